"""What events had of their own: a bucket for each event and feature, from ``user_info.parquet``.

Shape suffixes: B samples, L padded length, S interactions of all users.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from fuxictr.features import FeatureMap
from numpy.typing import NDArray

from ..common.errors import UserError
from .columnar import Histories
from .columns import Arrays
from .times import known_times

TIME_GAP = "time_gap"  # a feature that is computed, from the event to the moment of the sample


class EventColumns:
    """The event features of a data set, one number for each event.

    A feature ``action`` stands in the lists ``event_action``, one id per entry of ``full_item_seq``.
    The bucket of ``time_gap`` is the whole part of ``log2(1 + seconds)`` from the event to the
    sample's ``time``, and at most the last bucket. Without a known unit, the data's unit counts.

    Args:
        histories: all events.
        event_cols: the features, ``{name, vocab_size}`` each.
        feature_map: must have ``time``, if the gap is asked for.

    Raises:
        UserError: a column is missing, or does not fit.
    """

    def __init__(
        self, histories: Histories, event_cols: Sequence[dict[str, Any]], feature_map: FeatureMap
    ) -> None:
        self._histories = histories
        self._sizes = {column["name"]: column["vocab_size"] for column in event_cols}
        self._tapes = {n: self._read(n, size) for n, size in self._sizes.items() if n != TIME_GAP}
        if TIME_GAP in self._sizes:
            self._times = known_times(histories, feature_map, f"event_cols, {TIME_GAP}")
            self._tapes[TIME_GAP] = np.append(self._times.tick_S, np.int32(0))

    def _read(self, name: str, size: int) -> NDArray:
        column = f"event_{name}"
        values = self._histories.entries(column)
        tape_S = np.concatenate([np.clip(some, -1, size).astype(np.int32) for some in values])
        if (bad_S := (tape_S < 0) | (tape_S >= size)).any():
            row = np.searchsorted(self._histories.offsets, bad_S.argmax(), side="right") - 1
            raise UserError(
                f"{self._histories.path}, column {column}, row {row}: a value is outside 0 to "
                f"{size - 1}, the vocabulary; correct vocab_size in event_cols or the data"
            )
        return np.append(tape_S, 0).astype(np.uint8 if size <= 256 else np.int32)

    def batch(self, rows: Arrays, mask_BL: NDArray) -> Arrays:
        """The buckets ``(B, L)`` of the histories of some samples, given as columns; 0 is padding."""
        end_B = self._histories.offsets[rows["user_index"]] + rows["seq_len"]
        place_BL = end_B[:, None] + np.arange(-mask_BL.shape[1], 0)
        found = {}
        for name, tape_S in self._tapes.items():
            bucket_BL = tape_S.take(place_BL, mode="clip")
            if name == TIME_GAP:
                ticks_BL = self._times.ticks(rows["time"])[:, None] - bucket_BL
                seconds_BL = ticks_BL.clip(0) / (self._times.second or 1)
                bucket_BL = np.frexp(1 + seconds_BL)[1] - 1
                bucket_BL = bucket_BL.clip(max=self._sizes[name] - 1)
            found[name] = bucket_BL * (mask_BL > 0)
        return found
