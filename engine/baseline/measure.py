"""Train boosted trees on the counts of a data set, and measure them as models are measured."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from model_zoo.training.metrics import evaluate_metrics

from ..common.errors import UserError
from ..datasets.prepared import data_profile
from ..loader.columns import Arrays
from .counts import FEW, Counter
from .record import ALL, NEWEST, THEME, TIMES, VERSION, Entry

ROWS, SEED = 1_000_000, 2024
STOPPING = 100_000  # about as many samples of the validation data tell when to stop
METRICS = ["AUC", "gAUC", "logloss"]
ITEM_IDS = "item_ids.parquet"
Block = tuple[dict[str, NDArray], Arrays]  # counts of some samples, and their columns
Models = dict[str, tuple[list[str], HistGradientBoostingClassifier]]


def measure(params: dict[str, Any], max_len: int, rows: int = ROWS, seed: int = SEED) -> Entry:
    """Measure the counting baseline on a data set; ``record`` keeps what this returns.

    As a model does, it learns from the training data and stops by the validation data.

    Args:
        params: files and features of the data set, as in a configuration, with absolute paths.
        max_len: how many of the newest events of a history are counted.
        rows: about how many samples of the training data are drawn.
        seed: decides which.

    Raises:
        UserError: a file is damaged, or all samples of a split have the same label.
    """
    counter = Counter(params, max_len)
    theme, counter.theme_N = _theme(Path(params["user_info"]).parent, counter)
    kinds = {ALL: ["all"]}
    kinds |= {NEWEST: ["newest"]} if max_len > FEW else {}
    kinds |= {TIMES: ["all", "times"]} if counter.times else {}
    kinds |= {THEME: ["all", "theme"]} if theme else {}
    drawn, label = {}, {}
    for split, most in (("train", rows), ("valid", STOPPING)):
        share = min(1.0, most / len(counter.splits[split]))
        drawn[split] = list(counter.blocks(split, share, seed))
        label[split] = np.concatenate([columns[counter.label] for _, columns in drawn[split]])
        if len(np.unique(label[split])) < 2:
            path = counter.splits[split].path
            raise UserError(f"{path}: all labels are {label[split][0]:g}; trees need both, 0 and 1")
    models: Models = {}
    for kind, names in kinds.items():
        print(f"training on {len(label['train']):,} samples, counting {kind} ...", flush=True)
        x = {split: np.concatenate([_matrix(b, names) for b in drawn[split]]) for split in drawn}
        trees = HistGradientBoostingClassifier(max_iter=300, early_stopping=True, random_state=seed)
        trees.fit(x["train"], label["train"], X_val=x["valid"], y_val=label["valid"])
        models[kind] = names, trees
    found = {split: _evaluate(counter, split, models) for split in ("valid", "test")}
    entry = {
        "version": VERSION,
        "samples": len(label["train"]),
        "seed": seed,
        "metrics": {kind: {s: metrics[kind] for s, metrics in found.items()} for kind in kinds},
    }
    return entry | ({"theme": theme} if theme else {})


def _theme(
    folder: Path, counter: Counter
) -> tuple[dict[str, Any] | None, NDArray[np.int64] | None]:
    """The raw feature between whose values users hop least, and a number of its value for each item.

    A feature that most items lack is none, nor is one with about as many values as there are items.
    """
    known = data_profile.themes(folder)
    for name, value_N in known.items():
        if len(value_N) != counter.num_items:
            seen = f"{len(value_N) - 1} items, but item_info.parquet has {counter.num_items - 1}"
            raise UserError(
                f"{folder / ITEM_IDS}, column {name}: has {seen}; prepare the data again"
            )
    if not known or counter.histories_path != folder / data_profile.USERS:
        return None, None
    hopping = {
        name: found
        for name, found in data_profile.measure(folder)["hopping"].items()
        if 2 * max(known[name].null_count(), known[name].n_unique()) < counter.num_items
    }
    if not hopping:
        return None, None
    name = max(hopping, key=lambda name: hopping[name]["kappa"])
    return {"name": name} | hopping[name], known[name].cast(pl.Int64).fill_null(-1).to_numpy()


def _evaluate(counter: Counter, split: str, models: Models) -> dict[str, dict[str, float]]:
    """The metrics of each model on a whole split, whose counts are never all in memory."""
    label, user = [], []
    scores: dict[str, list[NDArray]] = {kind: [] for kind in models}
    for block in counter.blocks(split):
        label.append(block[1][counter.label])
        user.append(block[1][counter.user])
        for kind, (names, trees) in models.items():
            scores[kind].append(trees.predict_proba(_matrix(block, names))[:, 1])
    truth, group = np.concatenate(label), np.concatenate(user)
    try:
        return {
            kind: evaluate_metrics(truth, np.concatenate(score), METRICS, group)
            for kind, score in scores.items()
        }
    except ValueError as error:
        raise UserError(f"{counter.splits[split].path}: {error}") from None


def _matrix(block: Block, names: list[str]) -> NDArray[np.float32]:
    """The counts of some names, ``(B, F)``."""
    return np.hstack([block[0][name] for name in names])
