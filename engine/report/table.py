"""A table of the page: what a cell shows, and what it is sorted by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..analysis.tables.grid import points

NOTHING = "–"
LOSSES = ("logloss", "binary_crossentropy")  # all other metrics are in points


@dataclass(frozen=True)
class Shown:
    """A cell.

    Attributes:
        text: what is shown.
        value: what it is sorted by; None sorts by the text.
    """

    text: str
    value: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A header; ``numeric`` columns are aligned at the right and sorted largest first."""

    text: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, and rows with one cell for each."""

    columns: Sequence[Column]
    rows: list[list[Shown]] = field(default_factory=list)


def number(value: float | None, form: str) -> Shown:
    """A number, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Shown(NOTHING)
    return Shown(format(value, form), value)


def metric(name: str, values: Iterable[float | None]) -> Shown:
    """Mean over seeds, and standard deviation where there are several; sorted by the mean.

    One missing value leaves no mean: one of fewer seeds would look like one of all. A loss is shown as
    it is, anything else in points.
    """
    known = list(values)
    if not known or any(value is None or not math.isfinite(value) for value in known):
        return Shown(NOTHING)
    show = "{:.4f}".format if name in LOSSES else points
    mean = statistics.fmean(known)
    text = show(mean)
    if len(known) > 1:
        text += f" ± {show(statistics.stdev(known))}"
    return Shown(text, mean)
