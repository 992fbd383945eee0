"""Sampled negatives: for each positive of a log, other items of its moment that the user did not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Negatives:
    """How negatives are drawn.

    Attributes:
        per_positive: negatives of each positive.
        source: ``time`` draws from the events nearest in time, so popularity and trend are those of
            the moment; ``popularity`` from all events before; ``uniform`` from all items known by then.
            In a log without times the last two draw from all training events.
        targets: with ``first``, a sample is a user's first event with an item, and a negative is
            never an item of the user's. With ``all``, repeats are samples too, and a negative may be
            another item of the user's, but no positive of the same moment.
    """

    per_positive: int
    source: Literal["time", "popularity", "uniform"] = "time"
    targets: Literal["first", "all"] = "first"
