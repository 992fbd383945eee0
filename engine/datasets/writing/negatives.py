"""Sampled negatives: for each positive of a log, other items of its moment that the user did not have.

All three ways to draw read a *tape*, which is a row of items in the order of time. They differ in the
stretch of the tape that a positive draws from. A drawn item that the user may not have is drawn again,
and where a stretch has too few others, it grows.

Shape suffixes: P positives, N negatives of a positive, T places on the tape.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from . import chance
from .by_time import slice_of

WINDOW = 2_000  # events from the moment on, or fewer in a small log
SHARE, LEAST = 50, 200  # a window has at most a 50th of the log, but at least 200 events
COLUMNS = {"time": np.int64, "item_index": np.int32}  # the files of a tape
KNOWN = "known.npy"  # beside them: whether each item is on the tape
FEW = 0.05  # share of the items that may be left to a user who draws from a list of them
PAIRS = 2**20  # of a positive and such an item that are looked at together
TRIES = 8  # draws for each negative, before the stretch is doubled
NONE = 0  # the item where nothing could be drawn


@dataclass(frozen=True)
class Negatives:
    """How negatives are drawn.

    Attributes:
        per_positive: negatives of each positive.
        source: ``time`` draws from the next events from the moment on, so popularity and trend are those
            of the moment; ``popularity`` from all events before; ``uniform`` from all items known by
            then. Without times the last two draw from all events. With a split by user, training,
            validation and test each draw from their own.
        targets: with ``first``, a sample is a user's first positive event with an item that the history
            does not show yet, and a negative is never an item of the user's. With ``all``, repeats are
            samples too, and a negative may be another item of the user's, but no positive of the same
            moment.
    """

    per_positive: int
    source: Literal["time", "popularity", "uniform"] = "time"
    targets: Literal["first", "all"] = "first"


def write_tapes(positives: pl.LazyFrame, folder: Path, items: int, distinct: bool) -> int:
    """Write the tape of each pool; returns how many items are on one.

    Args:
        positives: ``time, item_index, pool``. Those of one moment stay in this order.
        folder: gets a folder for each pool.
        items: the largest index of an item.
        distinct: keep only the first event of each item.
    """
    slices, known_PI = folder / "slices", {}
    number = slice_of(positives).alias("slice")
    keyed = pl.PartitionBy(slices, key=["pool", number], include_key=False)
    positives.sink_parquet(keyed, compression="lz4", maintain_order=True, mkdir=True)
    for pool in slices.iterdir():
        own, known_I = folder / pool.name, np.zeros(items + 1, bool)
        own.mkdir()
        for part in sorted(pool.iterdir(), key=lambda part: int(part.name.removeprefix("slice="))):
            events = pl.read_parquet(part, hive_partitioning=False)
            events = events.sort("time", maintain_order=True)
            if distinct:
                events = events.unique("item_index", keep="first", maintain_order=True)
                events = events.filter(~known_I[events["item_index"]])
            known_I[events["item_index"]] = True
            for name, kind in COLUMNS.items():
                with open(own / name, "ab") as file:
                    events[name].to_numpy().astype(kind).tofile(file)
        known_PI[pool] = known_I
        np.save(own / KNOWN, known_I)
    shutil.rmtree(slices)
    np.save(folder / KNOWN, known_I := np.any([*known_PI.values()], axis=0))
    return int(known_I.sum())


class Tape:
    """The items that negatives are drawn from, and the moments at which they are on the tape.

    Args:
        folder: of one pool, which ``write_tapes`` wrote.
        source: see ``Negatives``.
        timed: whether moments are known.
    """

    def __init__(self, folder: Path, source: str, timed: bool) -> None:
        columns = (np.memmap(folder / name, kind, "r") for name, kind in COLUMNS.items())
        self.times_T, self.items_T = columns
        self.known_I = np.load(folder / KNOWN)
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
        self, count: int, key_P: NDArray, time_P: NDArray, user_P: NDArray, barred: "Barred"
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
        dense_P = barred.count(user_P) > (1 - FEW) * self.known_I.sum()
        self._draw_rest(np.flatnonzero(dense_P), drawn_PN, key_P, user_P, barred)
        filled_P = np.zeros(len(key_P), np.int64)
        open_P = np.flatnonzero(~dense_P)  # positives that lack some
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
        self, rest_P: NDArray, drawn_PN: NDArray, key_P: NDArray, user_P: NDArray, barred: "Barred"
    ) -> None:
        """Draw from a list of what is left, for positives that have nearly every item."""
        if not len(rest_P):
            return
        item_I = np.flatnonzero(self.known_I)
        for own_P in np.split(rest_P, np.flatnonzero(np.diff(user_P[rest_P])) + 1):  # of one user
            free_I = item_I[~barred.has(np.full(len(item_I), user_P[own_P[0]]), item_I)]
            for some_P in np.array_split(own_P, 1 + len(own_P) * len(free_I) // PAIRS):
                chance_PI = chance.uniform(key_P[some_P, None], free_I)
                chance_PI[(drawn_PN[some_P, None] == free_I[:, None]).any(2)] = 1  # drawn before
                order_PI, left_P = np.argsort(chance_PI), (chance_PI < 1).sum(1)
                lacks_PN = drawn_PN[some_P] == NONE
                rank_PN = lacks_PN.cumsum(1) - 1
                p, n = np.nonzero(lacks_PN & (rank_PN < left_P[:, None]))
                drawn_PN[some_P[p], n] = free_I[order_PI[p, rank_PN[p, n]]]


class Barred:
    """The items that may not be drawn, by user or by another number.

    Args:
        user, item: columns of pairs.
    """

    def __init__(self, user: NDArray, item: NDArray) -> None:
        self.items = int(item.max(initial=0)) + 1
        self.pairs = np.unique(user.astype(np.int64) * self.items + item)

    def count(self, user: NDArray) -> NDArray[np.int64]:
        """How many items each user may not have."""
        user = user.astype(np.int64)
        edges = [np.searchsorted(self.pairs, (user + i) * self.items) for i in (0, 1)]
        return edges[1] - edges[0]

    def has(self, user: NDArray, item: NDArray) -> NDArray[np.bool_]:
        """Whether each pair is among them."""
        pair = user.astype(np.int64) * self.items + item
        place = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        return (self.pairs[place] == pair) & (item < self.items)
