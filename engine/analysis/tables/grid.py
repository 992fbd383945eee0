"""A table between its numbers and its four forms (``formats.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...common.errors import UserError
from .comparison import SIGNIFICANT


class NothingToShow(UserError):
    """The results have no number for a table."""


@dataclass(frozen=True)
class Entry:
    """What one place of a table shows.

    Attributes:
        text: the value; ``-`` if there is none.
        number: the value unrounded, to sort by; None if the text is no number.
        mark: ``best``, ``second`` or empty.
        secondary: smaller lines below, such as the gain.
        footnotes: numbers of ``Table.footnotes``, from 1.
    """

    text: str = "-"
    number: float | None = None
    mark: str = ""
    secondary: tuple[str, ...] = ()
    footnotes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: one line.
        header: its rows, each of headings with the number of columns that they span.
        labels: how many columns at the left name the row; rows with the same first label belong together.
        rows: as many entries as there are columns.
        notes: sentences below the table.
        footnotes: sentences that entries refer to.
        records: the same numbers, unrounded and in long form: one dictionary for each line of the CSV
            file, all with the same keys. Metrics and their differences are fractions.
    """

    title: str
    header: tuple[tuple[tuple[str, int], ...], ...]
    labels: int
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...]
    footnotes: tuple[str, ...]
    records: tuple[dict[str, Any], ...]


class Footnotes:
    """Numbers footnotes; the same text keeps its number."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def numbers(self, *texts: str) -> tuple[int, ...]:
        """The number of each text, from 1; empty ones have none."""
        wanted = [text for text in texts if text]
        self._texts = list(dict.fromkeys([*self._texts, *wanted]))
        return tuple(self._texts.index(text) + 1 for text in wanted)

    def texts(self) -> tuple[str, ...]:
        """All of them in order."""
        return tuple(self._texts)


def points(value: float | None, sign: str = "") -> str:
    """A fraction in points (x100) with two decimals as in the paper; ``-`` for None."""
    return "-" if value is None else f"{100 * value:{sign}.2f}"


def interval(low: float, high: float, p: float) -> str:
    """An interval in points, and the p of its test."""
    return f"[{points(low, '+')}, {points(high, '+')}], p {p_value(p)}"


def p_value(p: float) -> str:
    """With two digits, or as many as say on which side of ``SIGNIFICANT`` it is."""
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT))


def settings(varied: dict[str, Any]) -> str:
    """Keys and their values as a table shows them."""
    return ", ".join(f"{key} = {value}" for key, value in varied.items())
