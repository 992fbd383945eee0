"""What every form of raw data becomes: a log of interactions, and what to make of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from numpy.typing import NDArray

from .. import SEED
from .encoders import Encoders
from .features import Feature
from .like import Prepared
from .negatives import Negatives
from .samples import Split

ItemTable = Callable[
    [pl.DataFrame, NDArray, Encoders], tuple[pl.DataFrame, dict[str, dict[str, Any]]]
]


@dataclass
class Log:
    """A log of interactions, and what to make of it.

    Attributes:
        events: one row for each event. ``row`` is a number that orders the events of one moment,
            ``time`` a whole number. ``user`` and ``item`` are ids. ``label`` is 0 or 1, or null for
            an event that is no sample. ``positive`` says whether the event joins the history. Then
            come the features of a sample. More columns are optional: ``group`` is the impression,
            without which a user's samples of one moment are one; ``test`` says that a sample belongs
            to the test set whatever its moment; ``history`` is a list of items, oldest first, which
            at least one of the events of a row has. It is the history of the row's samples then, and
            ``history_time`` the moments of its entries. ``raw_files.PART`` names the
            part of the log that has all events of the user. Events of the same user, item and time are merged
            into one. Events without one of these three are left out.
        item_table: a function that makes the item table:
            ``(items, times_N, encoders) -> (table, specs)``. ``items`` has the columns ``item`` and
            ``row``, the row of the item's earliest event, for items in the order of their indices.
            ``times_N`` is how often each occurs in the training data. ``encoders`` encode features.
        label: name of the label's column.
        split: which samples go where.
        sample_features: how the features of a sample are to be read.
        exposures: whether samples say what was shown, and not what came of it. Such a sample is
            labelled 1 if a positive event of its user and item follows. The event must come before
            the item is shown to the user again. With a split by time, it must also come before the
            end of the sample's split.
        about: entries for the card. ``licence`` and ``source`` are among them, and messages name the
            source.
        item_names: columns ``item``, ``name`` and ``category``. People see them, but no model does.
        time_unit: ``s``, ``ms``, ``us``, ``unknown``, or ``order`` where ``time`` is only a place in
            the order of a user's events.
        negatives: draw negatives for the events of label 1, which alone are samples then.
        seed: of the negatives, and of the order of a user's samples of one moment.
        like: the data set that the log is encoded like. Its items keep their indices and their rows
            of the item table, and ``item_table`` is asked for the others.
        event_features: how the features of events in histories are to be read. Their columns are
            called ``event_NAME``. A log with ``history`` has none.
    """

    events: pl.LazyFrame
    item_table: ItemTable
    label: str
    split: Split
    about: dict[str, Any]
    sample_features: list[Feature] = field(default_factory=list)
    exposures: bool = False
    item_names: pl.DataFrame | None = None
    time_unit: str = "unknown"
    negatives: Negatives | None = None
    seed: int = SEED
    like: Prepared | None = None
    event_features: list[Feature] = field(default_factory=list)
