"""A table of the page: what a cell shows, and what it is sorted by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NOTHING = "–"


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


def number(value: float | None, form: str = ".4f") -> Shown:
    """A number, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Shown(NOTHING)
    return Shown(format(value, form), value)


def spread(values: Iterable[float | None], form: str = ".4f") -> Shown:
    """Mean over seeds, and standard deviation where there are several; sorted by the mean.

    One missing value leaves no mean: one of fewer seeds would look like one of all.
    """
    known = list(values)
    if not known or any(value is None or not math.isfinite(value) for value in known):
        return Shown(NOTHING)
    mean = statistics.fmean(known)
    text = format(mean, form)
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):{form}}"
    return Shown(text, mean)
