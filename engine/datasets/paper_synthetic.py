"""Synthetic stand-ins of the paper's data sets: their schema and shape, drawn content.

For trying code at full size where the real data cannot be had. Nothing measured on them says
anything about the real data.

Known, from the ``meta_data.json`` that reczoo publishes beside the data (its repositories
``MicroVideo_XLong``, ``KuaiVideo_XLong`` and ``Ebnerd_XLong``, whose totals are those of the three
data sets): users, items and samples of each split; vocabulary sizes as in
``config/dataset_config.yaml``. The label and all indices are stored as int64. Not known, and chosen
plausibly: label rates (Ebnerd's is one click per impression of 11.5 articles), lengths of histories,
popularity, and every relation between columns.

Content: each user has a few favourite themes and hops between them in sessions of 8 to 30 items.
A sample is clicked with probability ``sigmoid(running * [the target's theme is that of the newest
item] + share * (share of the target's theme in the history) + effects of the sample's own features
+ bias)``. Samples lie in the later half of the user's history, in time order: training, validation,
test. Histories are drawn before the samples and do not grow by their clicks.

Shape suffixes: U users, S interactions of all users, N items, M samples, Z themes, K favourites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from model_zoo.metrics import auc, grouped_auc

from ..errors import UserError
from . import paper
from .layout import SPLITS, Dataset

THEMES = 12  # Z; fewer than the smallest vocabulary of item categories
FAVOURITES = 4  # K, per user
SESSION = (8, 30)  # items
RUNNING, SHARE, EFFECT = 1.5, 3.0, 0.15
SEED = 2026


@dataclass(frozen=True)
class Shape:
    """How much data a data set has.

    Attributes:
        samples: of training, validation and test.
        history: mean length; lengths are log-normal, up to ``max_history``.
        label_rate: share of clicks.
        of_user, of_target: features of the sample that belong to its user or to its target item;
            all others are drawn for each sample.
    """

    users: int
    items: int
    samples: tuple[int, int, int]
    history: int
    label_rate: float
    max_history: int = 1_000
    of_user: tuple[str, ...] = ()
    of_target: tuple[str, ...] = ()


SHAPES = {
    "MicroVideo1.7M_x2": Shape(
        10_951, 1_704_880, (3_388_758, 447_520, 450_730), history=300, label_rate=0.2
    ),
    "KuaiVideo_x2": Shape(
        10_000, 3_239_534, (3_735_275, 463_177, 466_097), history=300, label_rate=0.2
    ),
    "Ebnerd_small_x1": Shape(
        18_827,
        20_738,
        (2_585_747, 1_462_203, 1_466_739),
        history=150,
        label_rate=0.087,
        of_user=("user_id", "is_sso_user", "gender", "postcode", "age", "is_subscriber"),
        of_target=("premium", "article_type", "ner_clusters", "topics", "sentiment_label"),
    ),
}


def generate(name: str, fraction: float = 1.0, seed: int = SEED) -> Dataset:
    """Draw a stand-in; the same arguments give the same data.

    Args:
        name: one of ``paper.NAMES``.
        fraction: of the users, samples and items, above 0 and at most 1. Schema, vocabulary sizes
            and lengths of histories stay, and so do as many items as the vocabulary has ids.
    """
    feature_map = paper.feature_map(name)
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction}: write a number above 0 and at most 1")
    shape, rng = SHAPES[name], np.random.default_rng(seed)
    features, label = paper.features(feature_map), feature_map.labels[0]
    of_item = {k: v for k, v in features.items() if v["source"] == "item"}
    of_sample = {k: v for k, v in features.items() if v["source"] != "item"}
    vocab = next(iter(of_item.values()))["vocab_size"]  # the first one is the item's id
    num_items = max(vocab - 1, round(fraction * shape.items))
    num_users = max(FAVOURITES, round(fraction * shape.users))

    theme_N, place_N = _catalogue(rng, num_items)
    order_N = np.lexsort((place_N, theme_N))[1:]  # by theme, most popular first
    favourite_UK = np.argsort(rng.random((num_users, THEMES)), axis=1)[:, :FAVOURITES]
    length_U, slot_S = _histories(rng, shape, num_users)
    user_S = np.repeat(np.arange(num_users), length_U)
    item_S = _pick(rng, order_N, favourite_UK[user_S, slot_S])
    user_M, split_M, seq_len_M = _samples(rng, shape, length_U, fraction)
    theme_M = _target_themes(rng, favourite_UK[user_M])
    target_M = _pick(rng, order_N, theme_M)

    columns, effect_M = _sample_features(rng, shape, of_sample, user_M, target_M, num_items)
    logit_M = effect_M + _fit(length_U, slot_S, favourite_UK, user_M, seq_len_M, theme_M)
    p_M = _sigmoid(logit_M + _bias(logit_M, shape.label_rate))
    clicked_M = (rng.random(len(p_M)) < p_M).astype(np.int64)
    table = {"user_index": user_M, "item_index": target_M, "seq_len": seq_len_M} | columns
    parts = [np.flatnonzero(split_M == i) for i in range(len(SPLITS))]
    return Dataset(
        splits={
            split: pl.DataFrame(
                {k: _series(v[rows]) for k, v in (table | {label: clicked_M}).items()}
            )
            for split, rows in zip(SPLITS, parts, strict=True)
        },
        user_info=pl.DataFrame(
            {"user_index": np.arange(num_users), "full_item_seq": _lists(item_S, length_U)}
        ),
        item_info=_item_info(rng, of_item, theme_N, place_N),
        features=features,
        label=label,
        source=f"synthetic stand-in of {name}, not the real data (fraction {fraction}, seed {seed})",
        licence="Apache-2.0",
        extra={
            "synthetic": True,
            "fraction": fraction,
            "seed": seed,
            "bayes_auc": {
                s: round(auc(clicked_M[rows], p_M[rows]), 6)
                for s, rows in zip(SPLITS, parts, strict=True)
            },
            "bayes_gauc": {
                s: round(grouped_auc(clicked_M[rows], p_M[rows], user_M[rows]), 6)
                for s, rows in zip(SPLITS, parts, strict=True)
            },
        },
    )


def _catalogue(rng: np.random.Generator, num_items: int) -> tuple[NDArray, NDArray]:
    """Theme of each item and its place in the order of popularity, 0 to 1; row 0, padding, has
    theme -1."""
    return np.r_[-1, np.arange(num_items) % THEMES], np.r_[
        0, rng.permutation(num_items) / num_items
    ]


def _pick(rng: np.random.Generator, order_N: NDArray, theme: NDArray) -> NDArray:
    """An item of each given theme, popular ones more often."""
    count_Z = np.full(THEMES, len(order_N) // THEMES)
    count_Z[: len(order_N) % THEMES] += 1
    place = (rng.random(len(theme)) ** 3 * count_Z[theme]).astype(np.int64)
    return order_N[(np.cumsum(count_Z) - count_Z)[theme] + place]


def _histories(rng: np.random.Generator, shape: Shape, num_users: int) -> tuple[NDArray, NDArray]:
    """Length of each history, and of each position the favourite, 0 to K - 1, of its session."""
    spread = 0.8
    length_U = rng.lognormal(np.log(shape.history) - spread**2 / 2, spread, num_users)
    length_U = np.clip(np.rint(length_U), 5, shape.max_history).astype(np.int64)
    total = int(length_U.sum())
    starts = np.cumsum(rng.integers(*SESSION, size=total // SESSION[0] + 1, endpoint=True))
    starts_here = np.zeros(total, bool)
    starts_here[starts[starts < total]] = True
    starts_here[np.cumsum(length_U) - length_U] = True
    session_S = np.cumsum(starts_here) - 1
    return length_U, _skewed(rng, session_S[-1] + 1, FAVOURITES)[session_S]


def _samples(
    rng: np.random.Generator, shape: Shape, length_U: NDArray, fraction: float
) -> tuple[NDArray, NDArray, NDArray]:
    """User, split and history length of each sample, by user and in time order."""
    count_3U = np.stack(
        [
            rng.multinomial(max(1, round(fraction * n)), length_U / length_U.sum())
            for n in shape.samples
        ]
    )
    count_U = count_3U.sum(0)
    user_M = np.repeat(np.arange(len(length_U)), count_U)
    split_M = np.repeat(np.tile(np.arange(len(SPLITS)), len(length_U)), count_3U.T.ravel())
    later_M = length_U[user_M] // 2 * rng.random(len(user_M))
    seq_len_M = length_U[user_M] - np.floor(later_M).astype(np.int64)
    return user_M, split_M, seq_len_M[np.lexsort((seq_len_M, user_M))]


def _target_themes(rng: np.random.Generator, favourite_MK: NDArray) -> NDArray:
    """Half the targets are of a favourite theme, the others of any."""
    M = len(favourite_MK)
    liked_M = favourite_MK[np.arange(M), _skewed(rng, M, FAVOURITES)]
    return np.where(rng.random(M) < 0.5, liked_M, rng.integers(THEMES, size=M))


def _fit(
    length_U: NDArray,
    slot_S: NDArray,
    favourite_UK: NDArray,
    user_M: NDArray,
    seq_len_M: NDArray,
    theme_M: NDArray,
) -> NDArray:
    """How well each target's theme fits the history before it."""
    first_M = (np.cumsum(length_U) - length_U)[user_M]
    end_M = first_M + seq_len_M
    fit_M = np.zeros(len(user_M))
    for k in range(FAVOURITES):
        is_k_M = favourite_UK[user_M, k] == theme_M
        count_S = np.r_[0, np.cumsum(slot_S == k)]
        share_M = (count_S[end_M] - count_S[first_M]) / seq_len_M
        fit_M += is_k_M * (SHARE * share_M + RUNNING * (slot_S[end_M - 1] == k))
    return fit_M


def _sample_features(
    rng: np.random.Generator,
    shape: Shape,
    of_sample: dict[str, dict],
    user_M: NDArray,
    target_M: NDArray,
    num_items: int,
) -> tuple[dict[str, NDArray], NDArray]:
    """The columns of the sample's own features, and what they add to the logit."""
    columns, effect_M = {}, np.zeros(len(user_M))
    for name, spec in of_sample.items():
        if name in shape.of_user:
            owner_M, size = user_M, int(user_M.max()) + 1
        elif name in shape.of_target:
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


def _item_info(
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
        columns[name] = _series(values)
    return pl.DataFrame(columns)


def _embedding(rng: np.random.Generator, theme_N: NDArray, width: int) -> pl.Series:
    """The centre of the item's theme, and noise of its own."""
    centre_ZD = rng.normal(scale=0.3, size=(THEMES, width)).astype(np.float32)
    values_ND = rng.standard_normal((len(theme_N), width), dtype=np.float32)
    values_ND *= 0.2
    for theme in range(THEMES):
        values_ND[theme_N == theme] += centre_ZD[theme]
    values_ND[0] = 0
    return _series(values_ND)


def _values(rng: np.random.Generator, spec: dict, size: int) -> NDArray:
    """Ids of a categorical, or of a sequence of 1 to ``max_len`` ids and zeros; small ones more
    often."""
    if spec["type"] != "sequence":
        return 1 + _skewed(rng, size, spec["vocab_size"] - 1)
    width = spec["max_len"]
    ids = 1 + _skewed(rng, size * width, spec["vocab_size"] - 1).reshape(size, width)
    return ids * (np.arange(width) < rng.integers(1, width + 1, size=size)[:, None])


def _skewed(rng: np.random.Generator, size: int, count: int) -> NDArray:
    """Whole numbers from 0 to ``count - 1``, small ones more often."""
    return (rng.random(size) ** 2 * count).astype(np.int64)


def _series(values: NDArray) -> pl.Series:
    if values.ndim == 1:
        return pl.Series(values)
    return _lists(values.ravel(), np.full(len(values), values.shape[1]))


def _lists(flat: NDArray, lengths: NDArray) -> pl.Series:
    """Lists that share the memory of ``flat``."""
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int64))
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pa.array(flat))))


def _sigmoid(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


def _bias(logit_M: NDArray, rate: float) -> float:
    """The bias that gives the label rate, by bisection on every so manieth sample."""
    some = logit_M[:: max(1, len(logit_M) // 100_000)]
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(some + middle).mean() < rate else (low, middle)
    return low
