"""A table between its numbers and its four forms (``formats.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.errors import UserError
from .significance import SIGNIFICANT

Header = tuple[tuple[tuple[str, int], ...], ...]


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
        header: rows of headings, each with the number of columns that it spans.
        labels: how many columns at the left name the row. Rows with the same first label belong together.
        rows: one entry for each column.
        notes: sentences below the table.
        footnotes: sentences that entries refer to.
        records: the same numbers, unrounded and in long form. Each dictionary is one line of the CSV
            file, and all have the same keys. Metrics and their differences are fractions.
    """

    title: str
    header: Header
    labels: int
    rows: Sequence[tuple[Entry, ...]]
    notes: Sequence[str] = ()
    footnotes: Sequence[str] = ()
    records: Sequence[dict[str, Any]] = ()

    @property
    def columns(self) -> list[list[str]]:
        """The headings above each column, the upper first, without empty ones."""
        spread = ([text for text, span in row for _ in range(span)] for row in self.header)
        return [[text for text in stack if text] for stack in zip(*spread, strict=True)]


class Footnotes:
    """Footnotes by number; the same text keeps its number."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()

    def numbers(self, *texts: str) -> tuple[int, ...]:
        """The number of each text, from 1; an empty text has none."""
        wanted = [text for text in texts if text]
        self.texts = tuple(dict.fromkeys([*self.texts, *wanted]))
        return tuple(self.texts.index(text) + 1 for text in wanted)


def header(*headings: str) -> Header:
    """A header of one row."""
    return (tuple((text, 1) for text in headings),)


def grouped_header(labels: Sequence[str], groups: Sequence[tuple[str, Sequence[str]]]) -> Header:
    """A header of two rows: titles above groups of columns, and the headings of all columns.

    Args:
        labels: headings of the columns that name a row.
        groups: the title and the headings of each group.
    """
    upper = (("", len(labels)), *((title, len(headings)) for title, headings in groups))
    return (upper, *header(*labels, *(text for _, headings in groups for text in headings)))


def points(value: float | None, sign: str = "") -> str:
    """A fraction in points (x100) with two decimals as in the paper; ``-`` for None."""
    return "-" if value is None else f"{100 * value:{sign}.2f}"


def tested(low: float | None, high: float | None, p: float | None) -> str:
    """The interval of a difference in points, and the p of its test; empty without a test."""
    if low is None or high is None or p is None:
        return ""
    return f"[{points(low, '+')}, {points(high, '+')}], p {p_value(p)}"


def p_value(p: float) -> str:
    """A p value with two digits, or as many as tell on which side of ``SIGNIFICANT`` it is."""
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT))


def settings(varied: Mapping[str, Any]) -> str:
    """Keys and their values as a table shows them."""
    return ", ".join(f"{key} = {value}" for key, value in varied.items())
