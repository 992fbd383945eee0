"""An index of all events by what they show, which counts the matches of a sample by a few searches.

An event has a key for each of its values: ``value * S + its place on the tape``. Values of different
features differ, and the keys are sorted. The events of a user with one value, within some bounds of
the history, then lie between two places of the keys.

Shape suffixes: B samples, F features, N items, K values of an item in all features, S interactions of
all users, W windows of time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fuxictr.features import FeatureMap
from numpy.typing import NDArray

from model_zoo.history.matches import Matches, distinct_values, id_features

from ..common.errors import UserError
from ..datasets.prepared.card import card_beside
from .columnar import Histories, ItemTable
from .columns import Arrays
from .times import Times

NEVER = np.float32(np.inf)


class MatchIndex:
    """Counts what the candidate of a sample shares with its history; see ``history/matches.py``.

    Args:
        histories: all events.
        items: the item table.
        feature_map: names the features.
        newest: how many of the newest events of a history are counted; None counts all of them.
        windows: seconds before a sample, in which matches are counted by themselves; None if no
            times are read.
    """

    def __init__(
        self,
        histories: Histories,
        items: ItemTable,
        feature_map: FeatureMap,
        newest: int | None = None,
        windows: Sequence[float] | None = None,
    ) -> None:
        self._offsets, self._newest = histories.offsets, newest
        self._windows = None if windows is None else np.array(windows)
        item_S, self._size = histories.items, len(histories.items)
        columns: list[NDArray] = []
        self._first, count = [], 0
        for name, rare in id_features(feature_map.features).items():
            value_NK = distinct_values(items.tables[name], rare).cpu().numpy()
            self._first.append(sum(column.shape[1] for column in columns))
            columns.append(np.where(value_NK > 0, value_NK + count, 0))
            count += int(value_NK.max(initial=0))
        value_NK = np.concatenate(columns, axis=1)
        self._base_NK = value_NK * self._size  # the key of a value at place 0
        self._values_NF = np.maximum(
            1, np.add.reduceat(value_NK > 0, self._first, 1, dtype=np.int32)
        )
        place_S = np.arange(self._size)
        keys = (self._base_NK[item_S, k] + place_S for k in range(value_NK.shape[1]))
        shown = (value_NK[item_S, k] > 0 for k in range(value_NK.shape[1]))
        self._keys = np.concatenate([key[found] for key, found in zip(keys, shown, strict=True)])
        self._keys.sort()
        self._keys = np.append(self._keys, np.iinfo(np.int64).max)  # so that there is one
        if windows is not None:
            path = histories.path
            self._times = Times(path, card_beside(path).get("time_unit", ""))
            if "time" not in feature_map.features or len(self._times.tick_S) != self._size:
                raise UserError(
                    f"match_windows: {path.parent} lacks times of samples (`time`, a meta feature) or "
                    "of each event (`full_time_seq`); prepare it again, or write match_windows: null"
                )
            self._ticks = np.append(self._times.tick_S, 0)
            user_S = np.repeat(np.arange(len(histories)), histories.lengths())
            self._moments = (user_S << 32) + self._times.tick_S

    def count(self, rows: Arrays) -> Matches:
        """Count the matches of some samples, given as columns."""
        user_B, item_B = rows["user_index"], rows["item_index"]
        start_B, end_B = self._offsets[user_B], self._offsets[user_B] + rows["seq_len"]
        if self._newest is not None:
            start_B = np.maximum(start_B, end_B - self._newest)
        base_BK, values_BF = self._base_NK[item_B], self._values_NF[item_B]
        stop_BK = self._keys.searchsorted(base_BK + end_B[:, None])
        count_BK = stop_BK - self._keys.searchsorted(base_BK + start_B[:, None])
        place_BK = end_B[:, None] - (self._keys[stop_BK - 1] - base_BK)
        place_BK = np.where(count_BK > 0, place_BK, NEVER)
        count_BF = np.add.reduceat(count_BK, self._first, 1) / values_BF
        place_BF = np.minimum.reduceat(place_BK, self._first, 1)
        found = [end_B - start_B, count_BF, place_BF]
        if self._windows is not None:
            now_B = self._times.ticks(rows["time"])
            known_BF = place_BF < NEVER
            newest_BF = np.where(known_BF, end_B[:, None] - place_BF, -1).astype(np.int64)
            gap_BF = np.where(known_BF, self._since(now_B[:, None], newest_BF), NEVER)
            begin_BW = now_B[:, None] - self._windows * self._times.second
            begin_BW = (user_B[:, None] << 32) + begin_BW.clip(0).astype(np.int64)
            begin_BW = self._moments.searchsorted(begin_BW)
            begin_BW = begin_BW.clip(start_B[:, None], end_B[:, None])
            recent_BKW = stop_BK[..., None] - self._keys.searchsorted(
                base_BK[..., None] + begin_BW[:, None]
            )
            recent_BFW = np.add.reduceat(recent_BKW, self._first, 1) / values_BF[..., None]
            last_B = np.where(end_B > start_B, self._since(now_B, end_B - 1), NEVER)
            found += [gap_BF, recent_BFW, last_B]
        return Matches(*(torch.from_numpy(x.astype(np.float32)) for x in found))

    def _since(self, now: NDArray, place: NDArray) -> NDArray:
        """Seconds from events, at their places on the tape, to the moments of samples."""
        return (now - self._ticks[place]).clip(0) / self._times.second
