"""Count how often, and how long ago, a history shows what the candidate of its sample is.

Shape suffixes: B samples, L padded history, M matches, F counts, E events whose popularity counts, N
items, D width of a vector.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.feature_map import build_feature_map
from ..datasets.prepared.card import SPLITS, card_beside
from ..loader.columnar import META, Histories, ItemTable, Samples
from ..loader.columns import Arrays, open_parquet
from ..loader.popularity import BeforeTheMoment, every_nth
from ..loader.times import Times, has_times
from .among_others import AmongOthers, fold_of

READ = ("categorical", "sequence", "embedding")  # the types of features that are compared
BLOCK = 4096  # samples that are counted at a time
FEW = 20  # newest events that are counted by themselves, too
SPANS = (1800, 86_400)  # seconds before a sample, in which matches are counted by themselves
NEVER = 1e12  # how long ago a match is that is not there
NUMBERS = 16_000_000  # of vectors, that are gathered at a time


class Counter:
    """Counts the matches of each sample of a data set.

    An event of the history matches if its item is the candidate, or if both have the same value of
    a categorical feature. Of a sequence the first value counts. The value 0 matches nothing. Features
    that are vectors are compared by their cosine.

    Args:
        params: files and features of the data set, as in a configuration.
        max_len: how many of the newest events of a history are read.

    Attributes:
        theme_N: a number of each item's theme, -1 where it has none; None, as at first, if no themes are
            known.
        num_items: N.
        histories_path: the file of the histories.
        splits: the samples, which are read by row group.
        label: the column of the label.
        user: the column that tells users apart.
        times: when the events were; None where no times are known.
    """

    def __init__(self, params: dict[str, Any], max_len: int) -> None:
        self.max_len = max_len
        self.theme_N: NDArray[np.int64] | None = None
        feature_map = build_feature_map(params)
        own = open_parquet(Path(params["train_data"])).schema_arrow.names
        features = {name: META for name in ("time", "group_user") if name in own}
        for name, spec in feature_map.features.items():
            if spec.get("source") == "item" and spec["type"] in READ:
                features[name] = spec
        feature_map.features = features
        self.label = feature_map.labels[0]
        self.user = "group_user" if "group_user" in own else "user_index"
        self._histories = Histories(params["user_info"])
        items = ItemTable(params["item_info"], feature_map)
        self._histories.check_items(len(items), items.path)
        self.num_items, self.histories_path = len(items), self._histories.path
        self.splits = {
            split: Samples(params[f"{split}_data"], feature_map, self._histories, len(items), True)
            for split in SPLITS
        }
        self._values = {"item": np.arange(len(items), dtype=np.int32)}
        self._vectors: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []  # with lengths
        for name, table in items.tables.items():
            if features[name]["type"] == "embedding":
                vector_ND = table.numpy().reshape(len(items), -1).astype(np.float32, copy=False)
                length_N = np.sqrt(np.einsum("nd,nd->n", vector_ND, vector_ND))
                self._vectors.append((vector_ND, np.where(length_N > 0, length_N, 1)))
                continue
            first = table.numpy().reshape(len(items), -1)[:, 0].astype(np.int32)
            if 2 * len(np.unique(first)) < len(first):  # else it is nearly the item again
                self._values[name] = first
        unit = card_beside(params["train_data"]).get("time_unit", "")
        timed = has_times(self._histories.path, own) and unit != "order"  # which compares no users
        self.times = Times(self._histories, unit) if timed else None
        self._popularity = self._known_popularity()

    def _known_popularity(self) -> BeforeTheMoment | AmongOthers:
        items = self._histories.items
        if self.times is not None:
            return BeforeTheMoment(items, self.times.tick_S, self._values)
        event_E = np.arange(len(items))[every_nth(len(items))]
        fold, shown = np.zeros((2, len(self._histories)), np.int64)
        for rows in self.splits["train"].batches(BLOCK, None):
            fold[rows["user_index"]] = fold_of(rows[self.user])
            np.maximum.at(shown, rows["user_index"], rows["seq_len"])
        offsets = self._histories.offsets
        user_E = np.searchsorted(offsets, event_E, side="right") - 1
        known_E = event_E - offsets[user_E] < shown[user_E]
        return AmongOthers(items[event_E[known_E]], fold[user_E[known_E]], self._values)

    def blocks(
        self, split: str, share: float = 1, seed: int = 0
    ) -> Iterator[tuple[dict[str, NDArray], Arrays]]:
        """Count the samples of a split, in the order of the file; give the counts and the samples.

        Args:
            split: its name.
            share: how many of the samples are drawn.
            seed: decides which.
        """
        rng = np.random.default_rng(seed)
        for rows in self.splits[split].batches(int(BLOCK / share), None):
            if share < 1:
                drawn = rng.random(len(rows["user_index"])) < share
                rows = {name: column[drawn] for name, column in rows.items()}
            yield self.count(rows, split == "train"), rows

    def count(self, rows: Arrays, training: bool) -> dict[str, NDArray[np.float32]]:
        """Count some samples.

        Args:
            rows: their columns.
            training: whether a sample of the training data must not count its own event.

        Returns:
            ``all`` has the counts of the whole history ``(B, F)``, ``newest`` the same of its
            newest 20 events, ``theme`` the same, but for popularity, of the events with the theme
            of the newest one, and ``times`` what the moments add.
        """
        item_B, length_B = rows["item_index"], np.minimum(rows["seq_len"], self.max_len)
        index_BL, _ = self._histories.batch(
            rows["user_index"], rows["seq_len"], item_B, self.max_len
        )
        index_BL = index_BL[:, :-1]
        age_L = np.arange(index_BL.shape[1], 0, -1)  # 1 is the newest event
        parts = {"all": age_L <= length_B[:, None]}
        parts["newest"] = parts["all"] & (age_L <= FEW)
        if self.theme_N is not None:
            theme_BL = self.theme_N[index_BL]
            parts["theme"] = parts["all"] & (theme_BL == theme_BL[:, -1:]) & (theme_BL >= 0)
        found: dict[str, list[NDArray]] = {name: [mask.sum(1)] for name, mask in parts.items()}
        end_B = self._histories.offsets[rows["user_index"]] + rows["seq_len"]
        known_B = fold_of(rows[self.user]) if training else np.zeros(len(item_B), np.int64)
        if self.times is not None:
            known_B = self.times.ticks(rows["time"])
            some = length_B > 0
            gap_B = np.full(len(item_B), NEVER)
            gap_B[some] = known_B[some] - self.times.tick_S[end_B[some] - 1]
            found["times"] = [gap_B]
        for name, value_N in self._values.items():
            value_B = value_N[item_B]
            popular_B = self._popularity.share(name, value_B, known_B)
            same_BL = value_N[index_BL] == np.where(value_B == 0, -1, value_B)[:, None]
            row_M, column_M = np.divmod(np.flatnonzero(same_BL), len(age_L))
            for part, mask_BL in parts.items():
                own = mask_BL[row_M, column_M]
                counts = _matches(row_M[own], age_L[column_M[own]], found[part][0])
                found[part] += [popular_B, *counts] if part != "theme" else counts
            if self.times is not None:
                gap_M = known_B[row_M] - self.times.tick_S[end_B[row_M] - age_L[column_M]]
                found["times"] += _gaps(row_M, gap_M, len(item_B), self.times.second)
        for vector_ND, length_N in self._vectors:
            cosine_BL = _products(vector_ND, item_B, index_BL)
            cosine_BL /= length_N[item_B][:, None] * length_N[index_BL]
            for part, mask_BL in parts.items():
                found[part] += _similar(cosine_BL, mask_BL)
                if part != "newest":
                    found[part] += _similar(cosine_BL, mask_BL & (age_L <= FEW))
        return {k: np.column_stack(v).astype(np.float32) for k, v in found.items()}


def _matches(row_M: NDArray, age_M: NDArray, length_B: NDArray) -> list[NDArray]:
    """How many events match, which share, how old the newest is, and how many are recent.

    Args:
        row_M: the sample of each match; of one sample the newest match comes last.
        age_M: its place, counted from the end.
        length_B: the length of the history.
    """
    size = len(length_B)
    count_B, newest_B = np.bincount(row_M, minlength=size), np.full(size, NEVER)
    newest_B[row_M] = age_M
    recent = (np.bincount(row_M[age_M <= n], minlength=size) for n in (5, FEW))
    return [count_B, count_B / np.maximum(1, length_B), newest_B, *recent]


def _gaps(row_M: NDArray, gap_M: NDArray, size: int, second: float | None) -> list[NDArray]:
    """The time since the newest match, and how many matches are in each span before the sample."""
    newest_B = np.full(size, NEVER)
    newest_B[row_M] = gap_M
    spans = () if second is None else [span * second for span in SPANS]
    return [newest_B, *(np.bincount(row_M[gap_M <= span], minlength=size) for span in spans)]


def _products(
    vector_ND: NDArray[np.float32], item_B: NDArray, index_BL: NDArray
) -> NDArray[np.float32]:
    """The inner product of each event's vector with that of the candidate, ``(B, L)``."""
    product_BL = np.empty(index_BL.shape, np.float32)
    step = max(1, NUMBERS // (index_BL.shape[1] * vector_ND.shape[1]))
    for start in range(0, len(item_B), step):
        part = slice(start, start + step)
        event_BLD, candidate_BD = vector_ND[index_BL[part]], vector_ND[item_B[part]]
        np.einsum("bld,bd->bl", event_BLD, candidate_BD, out=product_BL[part])
    return product_BL


def _similar(cosine_BL: NDArray[np.float32], mask_BL: NDArray[np.bool_]) -> list[NDArray]:
    """The mean and the highest cosine of some events, 0 and -1 where there are none."""
    mean_B = (cosine_BL * mask_BL).sum(1) / np.maximum(1, mask_BL.sum(1))
    return [mean_B, np.where(mask_BL, cosine_BL, -1).max(1)]
