"""Drawn columns for a schema: the item table and the features of samples, for stand-ins.

Shape suffixes: N rows of the item table, M samples, Z themes, D embedding width.
"""

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

THEMES = 12  # Z; fewer than the smallest vocabulary of item categories
EFFECT = 0.1  # spread of what a sample's own features add to its logit


def sample_features(
    rng: np.random.Generator,
    of_user: tuple[str, ...],
    of_target: tuple[str, ...],
    of_sample: dict[str, dict],
    user_M: NDArray,
    target_M: NDArray,
    num_items: int,
) -> tuple[dict[str, NDArray], NDArray]:
    """The columns of the sample's own features, and what they add to the logit."""
    columns, effect_M = {}, np.zeros(len(user_M))
    for name, spec in of_sample.items():
        if name in of_user:
            owner_M, size = user_M, int(user_M.max()) + 1
        elif name in of_target:
            owner_M, size = target_M, num_items + 1
        else:
            owner_M, size = np.arange(len(user_M)), len(user_M)
        values = _values(rng, spec, size)
        if name == "user_id":  # users beyond the vocabulary share its last entry
            values = np.minimum(np.arange(size) + 1, spec["vocab_size"] - 1)
        columns[name] = values[owner_M]
        leading_M = columns[name] if values.ndim == 1 else columns[name][:, 0]
        effect_M += rng.normal(scale=EFFECT, size=spec["vocab_size"])[leading_M]
    return columns, effect_M


def item_info(
    rng: np.random.Generator, of_item: dict[str, dict], theme_N: NDArray, place_N: NDArray
) -> pl.DataFrame:
    """The item table. Popular items have ids of their own, all others share the last entry, as in
    FuxiCTR's vocabularies; a category belongs to one theme."""
    N = len(theme_N)
    columns = {"item_index": pl.Series(np.arange(N))}
    for i, (name, spec) in enumerate(of_item.items()):
        if spec["type"] == "embedding":
            columns[name] = _embedding(rng, theme_N, spec["pretrain_dim"])
            continue
        last = spec["vocab_size"] - 1
        if i == 0:
            rank_N = np.rint(place_N * (N - 1)).astype(np.int64)
            values = np.minimum(rank_N + 1, last)
        else:
            per_theme = (last - 1 - theme_N) // THEMES + 1
            values = 1 + theme_N + THEMES * (rng.random(N) * per_theme).astype(np.int64)
        if spec["type"] == "sequence":
            others = _values(rng, spec, N)
            others[:, 0] = values
            values = others
        values[0] = 0
        columns[name] = series(values)
    return pl.DataFrame(columns)


def _embedding(rng: np.random.Generator, theme_N: NDArray, width: int) -> pl.Series:
    """The centre of the item's theme, and noise of its own."""
    centre_ZD = rng.normal(scale=0.3, size=(THEMES, width)).astype(np.float32)
    values_ND = rng.standard_normal((len(theme_N), width), dtype=np.float32)
    values_ND *= 0.2
    for theme in range(THEMES):
        values_ND[theme_N == theme] += centre_ZD[theme]
    values_ND[0] = 0
    return series(values_ND)


def _values(rng: np.random.Generator, spec: dict, size: int) -> NDArray:
    """Ids of a categorical, or of a sequence of 1 to ``max_len`` ids and zeros; small ones more
    often."""
    if spec["type"] != "sequence":
        return 1 + skewed(rng, size, spec["vocab_size"] - 1)
    width = spec["max_len"]
    ids = 1 + skewed(rng, size * width, spec["vocab_size"] - 1).reshape(size, width)
    return ids * (np.arange(width) < rng.integers(1, width + 1, size=size)[:, None])


def skewed(rng: np.random.Generator, size: int, count: int) -> NDArray:
    """Whole numbers from 0 to ``count - 1``, small ones more often."""
    return (rng.random(size) ** 2 * count).astype(np.int64)


def series(values: NDArray) -> pl.Series:
    if values.ndim == 1:
        return pl.Series(values)
    return lists(values.ravel(), np.full(len(values), values.shape[1]))


def lists(flat: NDArray, lengths: NDArray) -> pl.Series:
    """Lists that share the memory of ``flat``."""
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int64))
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pa.array(flat))))
