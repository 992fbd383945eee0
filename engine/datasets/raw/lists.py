"""Columns that hold a list in every row, and the table that has a row for each entry.

A list is a Parquet list, a JSON or Python list (``[1, 2]``, ``['a', 'b']``), or a text with a separator
between the entries. A missing value and an empty text are an empty list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from ...common.errors import UserError
from . import values
from .raw_files import readable, unescaped
from .source import FILE_ROW, PLACE, ROW, Source

SEPARATORS = (",", ";", "|", "#", "\x1d", " ")
ENTRY = r"""(?:"[^"\\]*"|'[^'\\]*'|[^\s,\[\]"'\\]+)"""  # of a list in brackets
BRACKETS = rf"^\[\s*(?:{ENTRY}\s*(?:,\s*{ENTRY}\s*)*)?,?\s*\]$"
SHOWN = 3  # values that a message shows


class Entries(Source):
    """The rows of a table with one row for each entry of its lists; those of empty lists are gone.

    Args:
        table: its other columns are repeated. ``check`` checks it first.
        columns: the lists by the names of their columns, of one length in each row; see ``parallel``.
        grouped: whether the entries of one row keep its ``ROW``; otherwise they are numbered anew.

    Attributes:
        frame: has the columns ``PLACE`` and ``FILE_ROW`` beside those of ``table``.
    """

    located_by = FILE_ROW

    def __init__(self, table: Source, columns: dict[str, pl.Expr], grouped: bool = True) -> None:
        self.table, self.path, self.lenient = table, table.path, table.lenient
        count, *others = (values.list.len() for values in columns.values())
        rows = table.frame.filter(count > 0, *(other == count for other in others))
        places = pl.int_ranges(count).alias(PLACE)
        rows = rows.with_columns(pl.col(ROW).alias(FILE_ROW), places, **columns)
        rows = rows.explode(*columns, PLACE)
        self._start(rows if grouped else rows.drop(ROW).with_row_index(ROW), table.parts)

    def check(self) -> dict[str, int]:
        return self.table.check() | super().check()


def parallel(
    table: Source, columns: Sequence[str], separator: str | None, flag: str
) -> dict[str, pl.Expr]:
    """Columns of lists, see ``lists``. ``check`` rejects rows in which they are not of one length."""
    parsed = {column: lists(table, column, separator, flag) for column in columns}
    first, *others = (lists.list.len() for lists in parsed.values())
    for column, count in zip(columns[1:], others, strict=True):
        table.checks.append((column, count != first, f"as many entries as {columns[0]} has"))
    return parsed


def lists(
    table: Source, column: str, separator: str | None, flag: str, feature: bool = False
) -> pl.Expr:
    """The lists of a column: of texts or, in Parquet, of what the file holds.

    Args:
        separator: stands between the entries of a text; ``\\x1d`` and ``\\t`` may be written so.
            Without it, the first values decide.
        flag: where the user names the separator, for messages.
        feature: whether values may be missing, and texts without a separator are lists of one value.

    Raises:
        UserError: the column holds no lists, or its separator cannot be told from the values.
    """
    kind = table.kind(column)
    if isinstance(kind, pl.List | pl.Array) and not kind.inner.is_nested():
        entry = pl.List(kind.inner)
        return table.read(column, lambda raw: raw.cast(entry).fill_null([]), "a list")
    if kind != pl.String:
        raise UserError(f"{table.path}, column {column} is {kind}, which is no list of values")
    if separator is None:
        separator = _separator(table, column, flag, feature)
    separator = unescaped(separator)
    parse, expects = _in_brackets, "a list such as [1, 2] or ['a', 'b'], without backslashes"
    if separator:
        parse, expects = (lambda text: _separated(text, separator)), "a list"

    def parse_all(raw: pl.Expr) -> pl.Expr:
        text = raw.str.strip_chars().fill_null("")
        return pl.when(text == "").then(pl.lit([], pl.List(pl.String))).otherwise(parse(text))

    return table.read(column, parse_all, expects, optional=feature)


def _in_brackets(text: pl.Expr) -> pl.Expr:
    """The entries of a JSON or Python list; null if the text is none."""
    entry = pl.element()
    entry = pl.when(~entry.str.contains("^(null|None|nan|NaN)$")).then(entry)
    entries = text.str.extract_all(ENTRY).list.eval(entry.str.replace("(?s)^[\"'](.*).$", "$1"))
    return pl.when(text.str.contains(BRACKETS)).then(entries)


def _separated(text: pl.Expr, separator: str) -> pl.Expr:
    """The entries of a text; missing ones are null. A separator at the end adds none."""
    entry = pl.element().str.strip_chars()
    if separator == " ":  # several blanks are as one
        return text.str.split(separator).list.eval(entry.filter(entry != ""))
    whole = text.str.strip_suffix(separator)
    return whole.str.split(separator).list.eval(pl.when(entry != "").then(entry))


def _separator(table: Source, column: str, flag: str, feature: bool) -> str:
    """What separates the entries of the first lists; nothing if they are in brackets."""
    text = pl.col(column).str.strip_chars()
    with readable(table.path):
        given = (
            table.frame.select(text).filter(text != "").head(values.SAMPLE).collect().to_series()
        )
    if given.str.starts_with("[").any():
        return ""
    found = [s for s in SEPARATORS if given.str.contains(s, literal=True).any()]
    if len(found) == 2 and found[1] == " ":  # blanks beside another separator mean nothing
        rest = given.str.replace_all(rf"\s*{re.escape(found[0])}\s*", "")
        found = found if rest.str.contains(" ", literal=True).any() else found[:1]
    if len(found) == 1 or given.is_empty() or (feature and not found):
        return (*found, SEPARATORS[0])[0]
    seen = ", ".join(repr(value) for value in given.unique(maintain_order=True).head(SHOWN))
    known = ", ".join(repr(separator) for separator in SEPARATORS)
    what = "more than one" if found else "none"
    raise UserError(
        f"{table.path}, column {column}: values such as {seen} hold {what} of the separators "
        f"{known}; write {flag}"
    )
