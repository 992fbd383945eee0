"""Sampled negatives: for each positive of a log, other items of its moment that the user did not have.

All three ways to draw read a *tape*, which is a row of items in the order of time. They differ in the
stretch of the tape that a positive draws from. A drawn item that the user may not have is drawn again,
and where a stretch has too few others, it grows.

Shape suffixes: P positives, N negatives of a positive, T places on the tape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from . import chance

WINDOW = 2_000  # events from the moment on, or fewer in a small log
SHARE, LEAST = 50, 200  # a window has at most a 50th of the log, but at least 200 events
SLICE = 4_000_000  # events of the tape that are sorted at a time
TRIES = 8  # draws for each negative, before the stretch is doubled
NONE = 0  # the item where nothing could be drawn


@dataclass(frozen=True)
class Negatives:
    """How negatives are drawn.

    Attributes:
        per_positive: negatives of each positive.
        source: ``time`` draws from the next events from the moment on, so popularity and trend are
            those of the moment; ``popularity`` from all events before; ``uniform`` from all items known by then.
            Without times the last two draw from all events. With a split by user, training,
            validation and test each draw from their own.
        targets: with ``first``, a sample is a user's first positive event with an item that the
            history does not show yet, and a negative is never an item of the user's. With ``all``, repeats are samples too, and a negative may be
            another item of the user's, but no positive of the same moment.
    """

    per_positive: int
    source: Literal["time", "popularity", "uniform"] = "time"
    targets: Literal["first", "all"] = "first"


class TapeWriter:
    """Collects positives block after block, and writes them in the order of time.

    Args:
        folder: an empty one, for the tape and for pieces of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.pieces, self.total = folder, 0, 0
        folder.mkdir(parents=True)

    def add(self, time_T: NDArray[np.int64], item_T: NDArray[np.int64]) -> None:
        """Add the positives of some users. Positives of one moment stay in this order."""
        order = np.argsort(time_T, kind="stable")
        np.save(self.folder / f"time_{self.pieces}.npy", time_T[order])
        np.save(self.folder / f"item_{self.pieces}.npy", item_T[order].astype(np.int32))
        self.pieces, self.total = self.pieces + 1, self.total + len(order)

    def finish(self, distinct: bool) -> None:
        """Write the tape.

        Args:
            distinct: keep only the first event of each item.
        """
        size = (max(1, self.total),)  # a file of nothing cannot be mapped
        times = open_memmap(self.folder / "times.npy", "w+", np.int64, size)
        items = open_memmap(self.folder / "items.npy", "w+", np.int32, size)
        end, known = 0, np.zeros(0, bool)
        for time_T, item_T in self._slices():
            if distinct:
                known = np.r_[known, np.zeros(max(0, item_T.max() + 1 - len(known)), bool)]
                first = np.sort(np.unique(item_T, return_index=True)[1])
                first = first[~known[item_T[first]]]
                time_T, item_T = time_T[first], item_T[first]
                known[item_T] = True
            times[end : end + len(time_T)], items[end : end + len(time_T)] = time_T, item_T
            end += len(time_T)
        np.save(self.folder / "length.npy", end)
        for piece in range(self.pieces):
            (self.folder / f"time_{piece}.npy").unlink()
            (self.folder / f"item_{piece}.npy").unlink()

    def _slices(self) -> Iterator[tuple[NDArray, NDArray]]:
        """The sorted positives of one stretch of time after the other."""
        names = [(f"time_{i}.npy", f"item_{i}.npy") for i in range(self.pieces)]
        pieces = [[np.load(self.folder / name, mmap_mode="r") for name in pair] for pair in names]
        every = max(1, SLICE // 1000)
        some = np.sort(np.concatenate([time_T[::every] for time_T, _ in pieces]))
        edges = np.unique(some[::1000])[1:]  # about SLICE events between two of them
        cuts = [np.r_[0, np.searchsorted(time_T, edges), len(time_T)] for time_T, _ in pieces]
        for i in range(len(edges) + 1):
            parts = [
                (time_T[cut[i] : cut[i + 1]], item_T[cut[i] : cut[i + 1]])
                for (time_T, item_T), cut in zip(pieces, cuts, strict=True)
            ]
            time_T, item_T = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(time_T, kind="stable")
            if len(order):
                yield time_T[order], item_T[order]


class Tape:
    """The items that negatives are drawn from, and the moments at which they are on the tape.

    Args:
        folder: what a ``TapeWriter`` wrote.
        source: see ``Negatives``.
        timed: whether moments are known.
    """

    def __init__(self, folder: Path, source: str, timed: bool) -> None:
        length = int(np.load(folder / "length.npy"))
        self.times_T = np.load(folder / "times.npy", mmap_mode="r")[:length]
        self.items_T = np.load(folder / "items.npy", mmap_mode="r")[:length]
        self.source, self.timed = source, timed

    def stretches(self, time_P: NDArray) -> tuple[NDArray, NDArray]:
        """Where the stretch of each positive begins and ends."""
        length, start = len(self.items_T), np.zeros(len(time_P), np.int64)
        if not self.timed:
            return start, start + length
        before, until = (np.searchsorted(self.times_T, time_P, side) for side in ("left", "right"))
        if self.source == "time":
            # Not before the moment: an item drawn there has an event before it, which many a
            # positive has not, and so its popularity would tell the label.
            window = max(LEAST, min(WINDOW, length // SHARE))
            start = np.minimum(before, max(0, length - LEAST))
            return start, np.minimum(start + window, length)
        return start, before if self.source == "popularity" else until

    def draw(
        self, count: int, key_P: NDArray, time_P: NDArray, user_P: NDArray, barred: Barred
    ) -> NDArray[np.int64]:
        """Different items for each positive, ``(P, N)``; ``NONE`` where there are no more.

        Args:
            count: N.
            key_P: see ``chance.keys``.
            user_P: whose positive it is, or whatever else ``barred`` goes by.
            barred: what may not be drawn.
        """
        drawn_PN = np.full((len(key_P), count), NONE, np.int64)
        start_P, end_P = self.stretches(time_P)
        filled_P = np.zeros(len(key_P), np.int64)
        open_P = np.arange(len(key_P))  # positives that lack some
        draw, length = 0, len(self.items_T)
        while len(open_P):
            start, end = start_P[open_P], end_P[open_P]
            place = start + (chance.uniform(key_P[open_P], draw) * (end - start)).astype(np.int64)
            item = np.where(end > start, self.items_T[np.minimum(place, length - 1)], NONE)
            free = (item != NONE) & ~barred.has(user_P[open_P], item)
            free &= (drawn_PN[open_P] != item[:, None]).all(1)
            taken = open_P[free]
            drawn_PN[taken, filled_P[taken]] = item[free]
            filled_P[taken] += 1
            open_P = open_P[filled_P[open_P] < count]
            draw += 1
            if draw % (TRIES * count) == 0:
                whole = (start_P[open_P] == 0) & (end_P[open_P] == length)
                self._draw_rest(open_P[whole], drawn_PN, key_P, user_P, barred)
                open_P = open_P[~whole]
                width = (end_P[open_P] - start_P[open_P]) // 2 + 1
                start_P[open_P] = np.maximum(0, start_P[open_P] - width)
                end_P[open_P] = np.minimum(length, end_P[open_P] + width)
        return drawn_PN

    def _draw_rest(
        self, rest_P: NDArray, drawn_PN: NDArray, key_P: NDArray, user_P: NDArray, barred: Barred
    ) -> None:
        """Draw from a list of what is left, for positives that have nearly every item."""
        if len(rest_P):
            item_I = np.unique(self.items_T).astype(np.int64)
        for p in rest_P:
            left = item_I[~barred.has(np.broadcast_to(user_P[p], len(item_I)), item_I)]
            left = left[~np.isin(left, drawn_PN[p])]
            order = np.argsort(chance.uniform(np.broadcast_to(key_P[p], len(left)), left))
            lacking = np.flatnonzero(drawn_PN[p] == NONE)
            chosen = left[order][: len(lacking)]
            drawn_PN[p, lacking[: len(chosen)]] = chosen


class Barred:
    """The items that may not be drawn, by user or by another number.

    Args:
        user, item: columns of pairs.
    """

    def __init__(self, user: NDArray, item: NDArray) -> None:
        self.items = int(item.max(initial=0)) + 1
        self.pairs = np.unique(user.astype(np.int64) * self.items + item)

    def has(self, user: NDArray, item: NDArray) -> NDArray[np.bool_]:
        """Whether each pair is among them."""
        pair = user.astype(np.int64) * self.items + item
        place = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        return (self.pairs[place] == pair) & (item < self.items)
