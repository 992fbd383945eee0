"""How popular a value was before a moment: its share of the events of all users until then.

Shape suffixes: N items, K values of an item, S interactions of all users, E those that are counted.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

EVENTS = 2**25  # about how many events at most tell what is popular


def every_nth(events: int) -> slice:
    """Those of so many events that tell what is popular: all, or each n-th of a large log."""
    return slice(None, None, 1 + events // EVENTS)


class BeforeTheMoment:
    """Popularity among the events at earlier moments, so that no sample counts its own event.

    Args:
        item_S: the item of each event.
        tick_S: its moment.
        values: of each item by feature, ``(N,)``, or ``(N, K)`` where an item has several.
    """

    def __init__(self, item_S: NDArray, tick_S: NDArray, values: Mapping[str, NDArray]) -> None:
        counted = every_nth(len(item_S))
        item_E, tick_E = item_S[counted], tick_S[counted]
        self._all = np.sort(tick_E)
        self._events = {}
        for name, value_N in values.items():
            value_EK = value_N.reshape(len(value_N), -1)[item_E].astype(np.int64)
            self._events[name] = np.sort(((value_EK << 32) + tick_E[:, None]).ravel())

    def share(self, name: str, value: NDArray, known: NDArray) -> NDArray:
        """The share of the events with a value of a feature.

        Args:
            name: of the feature.
            value: the values, of any shape.
            known: the moments of their samples, in a shape that spreads over that of the values.
        """
        events, start = self._events[name], value.astype(np.int64) << 32
        found = np.searchsorted(events, start + known) - np.searchsorted(events, start)
        return found / np.maximum(1, np.searchsorted(self._all, known))
