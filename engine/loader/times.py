"""When the events of all users were.

Shape suffix: S interactions of all users.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from fuxictr.features import FeatureMap
from numpy.typing import NDArray

from ..common.errors import UserError
from ..datasets.prepared.card import SECOND, card_beside
from .columnar import Histories
from .columns import open_parquet

TIMES = "full_time_seq"  # the column


class Times:
    """When all events were, in ticks since the first one: the unit of the data, or a multiple of it.

    Args:
        histories: their file has the lists ``full_time_seq``.
        unit: the card's ``time_unit``.

    Attributes:
        tick_S: of each event, at most ``2**31 - 1``.
        second: how many ticks it has; None if nobody knows.
    """

    def __init__(self, histories: Histories, unit: str) -> None:
        times = partial(histories.entries, TIMES)
        ends = [(t.min(), t.max()) for t in times() if len(t)] or [(0, 0)]
        self._first = int(min(first for first, _ in ends))
        self._tick = 1 + (int(max(last for _, last in ends)) - self._first >> 31)
        ticks = [self.ticks(time).astype(np.int32) for time in times()]
        self.tick_S = np.concatenate(ticks)
        self.second = SECOND[unit] / self._tick if unit in SECOND else None

    def ticks(self, time: NDArray) -> NDArray[np.int64]:
        """The ticks of times of the data; times before the first event are 0."""
        return np.clip((time - self._first) // self._tick, 0, 2**31)


def has_times(user_info: Path, of_samples: Iterable[str]) -> bool:
    """Whether the moments of all events and of the samples are known.

    Args:
        user_info: the file of the histories.
        of_samples: the columns of the samples.
    """
    return "time" in of_samples and TIMES in open_parquet(user_info).schema_arrow.names


def known_times(histories: Histories, feature_map: FeatureMap, key: str) -> Times:
    """When all events were, for a key that needs it.

    Raises:
        UserError: the data do not say when the events or the samples were.
    """
    path = histories.path
    if has_times(path, feature_map.features):
        return Times(histories, card_beside(path).get("time_unit", ""))
    raise UserError(
        f"{key}: {path.parent} lacks times of samples (`time`, a meta feature) or of each event "
        f"(`{TIMES}`); prepare it again, or do without"
    )
