"""An index of all events by what they show, which counts the matches of a sample by a few searches.

An event has a key for each of its values: ``(user * V + value) * P + its position`` in the history,
where V and P are above all values and positions. Values of different features differ, and keys are
sorted. So the events of a user with one value are neighbours, the oldest first.

Shape suffixes: B samples, F features, N items, K values of an item in all features, S interactions of
all users, W windows of time, and the whole, H values that a history shows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from fuxictr.features import FeatureMap
from numpy.typing import NDArray

from model_zoo.history.matches import NO_IDS, Matches, distinct_values, id_features

from ..common.errors import UserError
from .columnar import Histories, ItemTable
from .columns import Arrays
from .popularity import BeforeTheMoment
from .times import known_times

MATCHES = "(matches)"  # name of the column


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
        self._windows = None if windows is None else np.array([np.inf, *windows])
        length_U, item_S = histories.lengths(), histories.items
        user_S = np.repeat(np.arange(len(histories)), length_U)
        columns: list[NDArray] = []
        self._first, self._values = [], 1
        features = id_features(feature_map.features)
        if not features:
            raise UserError(NO_IDS)
        for name, rare in features.items():
            value_NK = distinct_values(items.tables[name], rare).cpu().numpy()
            self._first.append(len(columns))
            columns += list(np.where(value_NK > 0, value_NK + self._values, 0).T)
            self._values += 1 + int(value_NK.max())
        self._positions = 1 + int(length_U.max(initial=0))
        if self._values * len(length_U) * self._positions >= 2**63:
            raise UserError(
                f"match_features: {histories.path} has too many users to index; leave it out"
            )
        self._value_NK = np.stack(columns, axis=1)
        self._share_NF = 1 / np.maximum(1, np.add.reduceat(self._value_NK > 0, self._first, 1, int))
        position_S = np.arange(len(item_S)) - self._offsets[user_S]
        keys = []
        for value_N in columns:
            shown_E = np.flatnonzero(value_N[item_S])
            keys.append(self._key(user_S[shown_E], value_N[item_S[shown_E]]) + position_S[shown_E])
        self._keys = np.sort(np.concatenate([[-1], *keys]))  # one is before all others
        if windows is not None:
            self._times = known_times(histories, feature_map, "match_windows")
            self._ticks = np.append(self._times.tick_S, np.int32(0))
            self._moments = (user_S << 32) + self._times.tick_S
            values = {MATCHES: self._value_NK}
            self._popularity = BeforeTheMoment(item_S, self._times.tick_S, values)

    def _key(self, user: NDArray, value: NDArray) -> NDArray:
        """The key of a value at the first position of a user."""
        return (user * self._values + value) * self._positions

    def column(self, rows: Arrays) -> Arrays:
        """The numbers of some samples ``(B, M)``, as a further column."""
        return {MATCHES: self.count(rows).numbers().numpy()}

    def count(self, rows: Arrays) -> Matches:
        """Count the matches of some samples, given as columns."""
        user_B, end_B, item_B = rows["user_index"], rows["seq_len"], rows["item_index"]
        start_B = np.zeros_like(end_B) if self._newest is None else (end_B - self._newest).clip(0)
        value_BK = self._value_NK[item_B]
        key_BK = self._key(user_B[:, None], value_BK)
        stop_BK = self._keys.searchsorted(key_BK + end_B[:, None])
        last_BK = self._keys[stop_BK - 1] - key_BK  # position of the newest event with the value
        found_BK = (value_BK > 0) & (last_BK >= start_B[:, None])
        place_BK = np.where(found_BK, end_B[:, None] - last_BK, np.inf)
        place_BF = np.minimum.reduceat(place_BK, self._first, 1)
        begin_BW, gap_BG, share_BF = start_B[:, None], None, None
        if self._windows is not None:
            origin_B, now_B = self._offsets[user_B], self._times.ticks(rows["time"])
            place_BG = np.column_stack([place_BF, np.where(end_B > 0, 1.0, np.inf)])
            event_BG = np.where(place_BG < np.inf, (origin_B + end_B)[:, None] - place_BG, -1)
            ago_BG = (now_B[:, None] - self._ticks[event_BG.astype(int)]).clip(0)
            share_BK = self._popularity.share(MATCHES, value_BK, now_B[:, None])
            share_BF = np.maximum.reduceat(share_BK * (value_BK > 0), self._first, 1)
            gap_BG = np.where(place_BG < np.inf, ago_BG / self._times.second, np.inf)
            moment_BW = (now_B[:, None] - self._windows * self._times.second).clip(0)
            moment_BW = (user_B[:, None] << 32) + moment_BW.astype(int)
            begin_BW = self._moments.searchsorted(moment_BW) - origin_B[:, None]
            begin_BW = begin_BW.clip(start_B[:, None], end_B[:, None])
        row_H = found_BK.nonzero()[0]
        count_BKW = np.zeros((*found_BK.shape, begin_BW.shape[1]))
        begin_HW = self._keys.searchsorted(key_BK[found_BK][:, None] + begin_BW[row_H])
        count_BKW[found_BK] = stop_BK[found_BK][:, None] - begin_HW
        count_BFW = np.add.reduceat(count_BKW, self._first, 1) * self._share_NF[item_B][..., None]
        found = (end_B - start_B, count_BFW, place_BF, gap_BG, share_BF)
        return Matches(*(torch.from_numpy(x.astype(np.float32)) for x in found if x is not None))
