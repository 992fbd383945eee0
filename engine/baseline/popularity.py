"""How popular a candidate was: its share of the events that its sample may know.

Shape suffixes: B samples, N items, S interactions of all users, E the interactions that are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..loader.columns import pieces

SECOND = {"s": 1, "ms": 1000, "us": 1_000_000}  # in the ``time_unit`` of a card
FOLDS = 5  # of users


class Times:
    """When all events were, in ticks since the first one: the unit of the data, or a multiple of it.

    Args:
        user_info: a Parquet file with the lists ``full_time_seq``.
        unit: the card's ``time_unit``.

    Attributes:
        tick_S: of each event, at most ``2**31 - 1``.
        second: how many ticks it has; None if nobody knows.
    """

    def __init__(self, user_info: Path, unit: str) -> None:
        ends = [(t.min(), t.max()) for t in _times(user_info) if len(t)] or [(0, 0)]
        self._first = int(min(first for first, _ in ends))
        self._tick = 1 + (int(max(last for _, last in ends)) - self._first >> 31)
        ticks = [self.ticks(time).astype(np.int32) for time in _times(user_info)]
        self.tick_S = np.concatenate(ticks)
        self.second = SECOND[unit] / self._tick if unit in SECOND else None

    def ticks(self, time: NDArray) -> NDArray[np.int64]:
        """The ticks of times of the data; times before the first event are 0."""
        return np.clip((time - self._first) // self._tick, 0, 2**31)


def _times(user_info: Path) -> Iterator[NDArray[np.int64]]:
    """The times of some users at a time."""
    for piece in pieces(user_info, ["full_time_seq"]):
        yield np.asarray(piece["full_time_seq"].lists().flatten(), np.int64)


class BeforeTheMoment:
    """Popularity among the events at earlier moments, so that no sample counts its own event.

    Args:
        item_E: the item of each event.
        tick_E: its moment.
        values: the value of each item, by feature.
    """

    def __init__(self, item_E: NDArray, tick_E: NDArray, values: dict[str, NDArray]) -> None:
        self._all = np.sort(tick_E)
        self._events = {
            name: np.sort((value_N[item_E].astype(np.int64) << 32) + tick_E)
            for name, value_N in values.items()
        }

    def share(self, name: str, value_B: NDArray, known_B: NDArray) -> NDArray:
        """The share of the events with a value of a feature; ``known_B`` has the moments of samples."""
        events, start_B = self._events[name], value_B.astype(np.int64) << 32
        found_B = np.searchsorted(events, start_B + known_B) - np.searchsorted(events, start_B)
        return found_B / np.maximum(1, np.searchsorted(self._all, known_B))


def fold_of(user: NDArray) -> NDArray:
    """The fold of each user, from 1 to ``FOLDS``, as if drawn: numbers of users may go in steps."""
    return 1 + (user * 2654435761 >> 16) % FOLDS


class AmongOthers:
    """Popularity in the training data, for logs without times.

    A training sample counts the events of users in other folds. With its own event, which it has
    only if it was clicked, popularity would tell its label.

    Args:
        item_E: the item of each event of the training data.
        fold_E: the fold of its user, from 1 to ``FOLDS``.
        values: the value of each item, by feature.
    """

    def __init__(self, item_E: NDArray, fold_E: NDArray, values: dict[str, NDArray]) -> None:
        self._shares = {}
        for name, value_N in values.items():
            size = 1 + int(value_N.max())
            place_E = fold_E * size + value_N[item_E]
            own = np.bincount(place_E, minlength=(1 + FOLDS) * size).reshape(-1, size)
            others = own.sum(0) - own
            self._shares[name] = others / np.maximum(1, others.sum(1, keepdims=True))

    def share(self, name: str, value_B: NDArray, known_B: NDArray) -> NDArray:
        """The share of the events with a value of a feature.

        Args:
            name: of the feature.
            value_B: the value.
            known_B: the fold whose events are left out; 0 leaves none out.
        """
        return self._shares[name][known_B, value_B]
