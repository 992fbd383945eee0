"""Stand-ins of the paper's data sets: their schema, their shape, and content that is drawn.

They let code be tried where the real data cannot be had, at full size too:
``python -m tests.support.stand_ins KuaiVideo_x2 --fraction 0.01`` writes one into
``data/synthetic/``. Nothing measured on them says anything about the real data.

Some facts are known from the ``meta_data.json`` that reczoo publishes beside the data, in its
repositories ``MicroVideo_XLong``, ``KuaiVideo_XLong`` and ``Ebnerd_XLong``: the number of users, of
items, and of samples in each split. Vocabulary sizes are those of ``config/dataset_config.yaml``.
The label and all indices are stored as int64. The rest is not known and was chosen plausibly: label
rates (Ebnerd has one click per impression of 11.5 articles), lengths of histories, popularity, and
every relation between columns.

Each user has a few favourite themes and hops between them in sessions of 8 to 30 items. A sample is
clicked with probability ``sigmoid(running * [the target's theme is that of the newest item] + share
* (share of the target's theme in the history) + effects of the sample's own features + bias)``.
Samples lie in the later half of the user's history, in time order: training, validation, test.
Histories are drawn before the samples and do not grow by their clicks.

Shape suffixes: U users, S interactions of all users, N items, M samples, Z themes, K favourites.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.common.errors import UserError, run_command
from engine.common.places import HOME
from engine.datasets import paper
from engine.datasets.prepared import layout
from engine.datasets.prepared.card import SPLITS, describe
from engine.datasets.prepared.layout import Dataset
from model_zoo.training.metrics import evaluate_metrics

from .stand_in_columns import THEMES, item_info, lists, sample_features, series, skewed

FAVOURITES = 4  # K, per user
SESSION = (8, 30)  # items
RUNNING, SHARE = 1.5, 3.0
LEAST = 200  # samples of a split, so that both labels occur
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

    columns, effect_M = sample_features(
        rng, shape.of_user, shape.of_target, of_sample, user_M, target_M, num_items
    )
    logit_M = effect_M + _fit(length_U, slot_S, favourite_UK, user_M, seq_len_M, theme_M)
    p_M = _sigmoid(logit_M + _bias(logit_M, shape.label_rate))
    clicked_M = (rng.random(len(p_M)) < p_M).astype(np.int64)
    table = {"user_index": user_M, "item_index": target_M, "seq_len": seq_len_M}
    table |= columns | {label: clicked_M}
    parts = {split: np.flatnonzero(split_M == i) for i, split in enumerate(SPLITS)}
    best = {
        split: evaluate_metrics(clicked_M[rows], p_M[rows], ["AUC", "gAUC"], user_M[rows])
        for split, rows in parts.items()
    }
    return Dataset(
        splits={
            split: pl.DataFrame({key: series(column[rows]) for key, column in table.items()})
            for split, rows in parts.items()
        },
        user_info=pl.DataFrame(
            {"user_index": np.arange(num_users), "full_item_seq": lists(item_S, length_U)}
        ),
        item_info=item_info(rng, of_item, theme_N, place_N),
        features=features,
        label=label,
        about={
            "source": f"synthetic stand-in of {name}, not the real data (fraction {fraction}, "
            f"seed {seed})",
            "licence": "Apache-2.0",
            "synthetic": True,
            "fraction": fraction,
            "seed": seed,
            "bayes_auc": {split: round(found["AUC"], 6) for split, found in best.items()},
            "bayes_gauc": {split: round(found["gAUC"], 6) for split, found in best.items()},
        },
    )


def _catalogue(rng: np.random.Generator, num_items: int) -> tuple[NDArray, NDArray]:
    """Theme of each item and its place in the order of popularity, 0 to 1; row 0, padding, has
    theme -1."""
    theme_N = np.r_[-1, np.arange(num_items) % THEMES]
    return theme_N, np.r_[0, rng.permutation(num_items) / num_items]


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
    is_start_S = np.zeros(total, bool)
    is_start_S[starts[starts < total]] = True
    is_start_S[np.cumsum(length_U) - length_U] = True
    session_S = np.cumsum(is_start_S) - 1
    return length_U, skewed(rng, session_S[-1] + 1, FAVOURITES)[session_S]


def _samples(
    rng: np.random.Generator, shape: Shape, length_U: NDArray, fraction: float
) -> tuple[NDArray, NDArray, NDArray]:
    """User, split and history length of each sample, by user and in time order."""
    count_3U = np.stack(
        [
            rng.multinomial(max(LEAST, round(fraction * n)), length_U / length_U.sum())
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
    liked_M = favourite_MK[np.arange(M), skewed(rng, M, FAVOURITES)]
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


def _sigmoid(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


def _bias(logit_M: NDArray, rate: float) -> float:
    """The bias that gives the label rate, by bisection on up to 200,000 samples."""
    some = logit_M[:: max(1, len(logit_M) // 100_000)]
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(some + middle).mean() < rate else (low, middle)
    return low


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write a stand-in of one of the paper's data sets."
    )
    parser.add_argument("name", choices=paper.NAMES)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the users and samples")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, help="folder, data/synthetic/NAME by default")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder")
    args = parser.parse_args()
    output = args.output or HOME / "data" / "synthetic" / args.name
    with layout.new_folder(output, args.overwrite) as folder:
        card = layout.write(generate(args.name, args.fraction, args.seed), folder)
    print(describe(card))
    print(
        f"train on it: python run_expid.py --expid TWIN_MoS_{args.name} --data-root {output.parent} "
        "--model-root checkpoints/synthetic"
    )
    return 0


if __name__ == "__main__":
    run_command(main, "nothing was written")
