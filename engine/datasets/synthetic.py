"""Generate users who hop between planted themes, so that the best possible AUC is known.

A user's history is a chain of sessions (8 to 30 items of one theme), with abrupt switches and
themes that reappear. ``Size.hopping`` is the chance that a session is followed by one of another
theme. With 1 it always is, and with 0 a user stays in one theme for ever. At any hopping, data of
one seed have the same items, tastes, lengths and targets. Items have a theme and a content. In each
theme *a subspace of its own* of the content matters, and the rest of it is noise there. The
subspaces overlap, so that no one measure of similarity serves all themes. The user judges what is
shown by the taste in the theme z of the running session, which is the theme of the newest item. It
is clicked with probability

    p = sigmoid(slope * match + bias),
    match = cos(S_z c_target, mean of S_z c_i / |S_z c_i| over the history's items i in theme z),

where c is an item's content (and match is 0 without a history). So a model that mixes the themes
up loses. A model sees everything that p depends on, so none can expect more than the AUC of p
itself. This Bayes AUC is written on the card.

Shape suffixes: N items, Z themes, D embedding width, C content width, R width of a theme's subspace,
T history length, M impressions of a user.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model_zoo.training.metrics import evaluate_metrics

from .prepared.card import SPLITS
from .prepared.layout import Dataset
from .writing.features import list_column

WIDTH = 64  # D
EMBEDDING = f"image_emb_dim{WIDTH}"
SESSION = (8, 30)  # items
CANDIDATES = 4  # a user picks the item nearest to the taste among so many


@dataclass(frozen=True)
class Size:
    """How much data, and its shape.

    Attributes:
        impressions: samples per user.
        min_length, max_length: bounds of the length of a history at an impression.
        themes, content, subspace: Z, C and R.
        noise: deviation of what is added to an item's embedding.
        vocab, categories: bounds of the ids of items and of categories, padding included.
        slope, bias: of the click probability.
        hopping: the chance that a session is followed by one of another theme, 0 to 1.
    """

    users: int
    items: int
    impressions: int
    min_length: int
    max_length: int
    themes: int = 5
    content: int = 8
    subspace: int = 2
    noise: float = 0.2
    vocab: int | None = None
    categories: int = 41
    slope: float = 4.0
    bias: float = -0.5
    hopping: float = 1.0


SIZES = {  # users, items, impressions, and bounds of the length of a history
    "tiny": Size(60, 300, 20, 0, 60),
    "small": Size(4_000, 3_000, 20, 40, 100),
    "micro": Size(10_986, 1_700_000, 100, 10, 1_000, vocab=24_323, categories=514),
}  # "micro" has the shape of MicroVideo1.7M_x2


def generate(size: Size, seed: int) -> Dataset:
    """Draw a data set of some size; the same seed gives the same data."""
    rng = np.random.default_rng(seed)
    theme_N, embedding_ND, direction_ZNR = _items(size, rng)
    catalogue = [np.flatnonzero(theme_N == theme) for theme in range(size.themes)]
    drawn = [_user(size, rng, catalogue, direction_ZNR) for _ in range(size.users)]
    shown = [m.with_columns(user_index=pl.lit(user, pl.Int64)) for user, (_, m) in enumerate(drawn)]
    # In time order of each user: the last tenth is the test set, the tenth before it validation.
    place = pl.int_range(pl.len()).over("user_index") / size.impressions
    table = pl.concat(shown).with_columns(
        split=pl.when(place < 0.8).then(0).when(place < 0.9).then(1).otherwise(2)
    )
    parts = {name: table.filter(pl.col("split") == i) for i, name in enumerate(SPLITS)}
    columns = ["user_index", "item_index", "seq_len", "is_click"]
    bayes = {name: _bayes(part) for name, part in parts.items()}
    item_info = _item_info(size, rng, theme_N, embedding_ND)
    users = {
        "user_index": np.arange(size.users),
        "full_item_seq": [history for history, _ in drawn],
    }
    return Dataset(
        splits={name: part.select(columns) for name, part in parts.items()},
        user_info=pl.DataFrame(users),
        item_info=item_info,
        item_ids=_item_ids(item_info, theme_N),
        features=features(size),
        label="is_click",
        about={
            "source": f"planted session hopping, seed {seed}",
            "licence": "Apache-2.0",
            "seed": seed,
            "themes": size.themes,
            "hopping": size.hopping,
            "bayes_auc": {name: best for name, (best, _) in bayes.items()},
            "bayes_gauc": {name: best for name, (_, best) in bayes.items()},
        },
    )


def features(size: Size) -> dict[str, dict]:
    """FuxiCTR's specification of the item features."""
    item = {"source": "item"}
    categorical = item | {"type": "categorical", "padding_idx": 0}
    widths = {"embedding_dim": WIDTH, "pretrain_dim": WIDTH}
    return {
        "item_id": categorical | {"vocab_size": size.vocab or size.items + 1},
        "cate_id": categorical | {"vocab_size": size.categories},
        EMBEDDING: item | {"type": "embedding", "feature_encoder": "nn.Identity()"} | widths,
    }


def _items(size: Size, rng: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
    """Draw the items. Row 0 is padding, which has no theme (-1).

    Returns:
        The themes ``(N + 1,)``, the embeddings ``(N + 1, D)``, and the unit direction of each item's
        content in the subspace of each theme ``(Z, N + 1, R)``.
    """
    theme_N = np.r_[-1, rng.integers(size.themes, size=size.items)]
    axes_DD = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    theme_ZD, content_CD = axes_DD[: size.themes], axes_DD[size.themes :][: size.content]
    content_NC = rng.normal(size=(size.items + 1, size.content)).astype(np.float32)
    basis_ZCR = np.linalg.qr(rng.normal(size=(size.themes, size.content, size.subspace)))[0]
    direction_ZNR = np.stack([_product(content_NC, b) for b in basis_ZCR.astype(np.float32)])
    direction_ZNR /= np.linalg.norm(direction_ZNR, axis=-1, keepdims=True)
    embedding_ND = 2 * theme_ZD[theme_N] + _product(content_NC, content_CD)
    embedding_ND += rng.normal(scale=size.noise, size=embedding_ND.shape)
    embedding_ND[0] = 0
    return theme_N, embedding_ND.astype(np.float32), direction_ZNR


def _product(a_NC: NDArray, b_CD: NDArray) -> NDArray:
    """``a @ b`` in float32 with the same bits on every machine.

    The bits of BLAS's result depend on the CPU and on the number of threads, and the data's hash
    would depend on them. Here the terms are added in order. Each is a fused multiply-add, because
    the product of two float32 numbers is exact in float64.
    """
    out_ND = np.zeros((len(a_NC), b_CD.shape[1]), np.float32)
    for a_N, b_D in zip(a_NC.T, b_CD, strict=True):
        out_ND[:] = np.multiply(a_N[:, None], b_D, dtype=np.float64) + out_ND
    return out_ND


def _user(
    size: Size, rng: np.random.Generator, catalogue: list[NDArray], direction_ZNR: NDArray
) -> tuple[NDArray, pl.DataFrame]:
    """One user's history ``(T,)`` and impressions, in time order."""
    T = int(rng.integers(size.min_length, size.max_length, endpoint=True))
    theme_T = _sessions(size, rng, T)
    taste_ZR = rng.normal(size=(size.themes, size.subspace)).astype(np.float32)
    pick = rng.random((T, CANDIDATES))
    offered = np.zeros((T, CANDIDATES), np.int64)
    for theme, items in enumerate(catalogue):
        here = theme_T == theme
        offered[here] = items[(pick[here] * len(items)).astype(int)]
    liking = np.einsum("tcr,tr->tc", direction_ZNR[theme_T[:, None], offered], taste_ZR[theme_T])
    history_T = offered[np.arange(T), liking.argmax(1)]

    seq_len_M = np.sort(rng.integers(size.min_length, T, size=size.impressions, endpoint=True))
    target_M = rng.integers(1, size.items, size=size.impressions, endpoint=True)
    # Sums of the directions of each theme over the first t items, for t = 0 ... T.
    sums = np.zeros((T + 1, size.themes, size.subspace))
    sums[np.arange(1, T + 1), theme_T] = direction_ZNR[theme_T, history_T]
    sums = sums.cumsum(0)
    theme_M = theme_T[seq_len_M - 1] if T else np.zeros(size.impressions, int)
    mean_MR = sums[seq_len_M, theme_M]
    mean_MR /= np.maximum(np.linalg.norm(mean_MR, axis=1, keepdims=True), 1e-12)
    match_M = (mean_MR * direction_ZNR[theme_M, target_M]).sum(1)
    p_M = 1 / (1 + np.exp(-(size.slope * match_M + size.bias)))
    shown = {
        "item_index": target_M,
        "seq_len": seq_len_M,
        "is_click": (rng.random(size.impressions) < p_M).astype(np.int64),
        "p": p_M,
    }
    return history_T, pl.DataFrame(shown)


def _sessions(size: Size, rng: np.random.Generator, T: int) -> NDArray:
    """Theme of each position: sessions of one theme, some of another theme than the one before."""
    chance = rng.spawn(1)[0]  # so that ``rng`` draws the same at any hopping
    themes = [int(rng.integers(size.themes))]
    lengths: list[int] = []
    while sum(lengths) < T:
        lengths.append(int(rng.integers(*SESSION, endpoint=True)))
        step = int(rng.integers(1, size.themes)) * (chance.random() < size.hopping)
        themes.append((themes[-1] + step) % size.themes)
    return np.repeat(themes[: len(lengths)], lengths)[:T].astype(int)


def _item_info(
    size: Size, rng: np.random.Generator, theme_N: NDArray, embedding_ND: NDArray
) -> pl.DataFrame:
    """The item table. A category belongs to one theme; ids beyond the vocabulary share entries."""
    index, ids = np.arange(size.items + 1), size.vocab or size.items + 1
    per_theme = (size.categories - 1) // size.themes
    category = 1 + theme_N * per_theme + rng.integers(per_theme, size=len(theme_N))
    columns = {
        "item_index": index,
        "item_id": np.where(index, 1 + (index - 1) % (ids - 1), 0),
        "cate_id": np.where(index, category, 0),
        EMBEDDING: list_column(embedding_ND, pl.Float32),
    }
    return pl.DataFrame(columns)


def _item_ids(item_info: pl.DataFrame, theme_N: NDArray) -> pl.DataFrame:
    """The id of each item, and its theme and category, in which hopping is measured."""
    ids = item_info.select(pl.col("item_index"), pl.col("item_index").cast(pl.String).alias("item"))
    return ids.with_columns(item_info["cate_id"], theme=theme_N)[1:]


def _bayes(part: pl.DataFrame) -> tuple[float, float]:
    """AUC and gAUC of the click probabilities themselves."""
    user, label, p = (part[name].to_numpy() for name in ("user_index", "is_click", "p"))
    found = evaluate_metrics(label, p, ["AUC", "gAUC"], user)
    return round(found["AUC"], 6), round(found["gAUC"], 6)
