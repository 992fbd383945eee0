"""Columns that hold a list in every row, and the table that has a row for each entry.

A list is a Parquet list, a JSON or Python list (``[1, 2]``, ``['a', 'b']``), or a text with a separator
between the entries. A missing value and an empty text are an empty list.
"""

import re
from collections.abc import Sequence

import polars as pl

from .raw_files import unescaped
from .source import FILE_ROW, PLACE, ROW, Source, examples

SEPARATORS = ("|", ";", ",", "\x1d", "#", " ")  # in the order in which they are tried for features
NUMBERS = r"^[-\d ]+$"
ENTRY = r"""(?:"[^"\\]*"|'[^'\\]*'|[^\s,\[\]"'\\]+)"""  # of a list in brackets
BRACKETS = rf"^\[\s*(?:{ENTRY}\s*(?:,\s*{ENTRY}\s*)*)?,?\s*\]$"


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


def lists(table: Source, column: str, separator: str | None, flag: str | None = None) -> pl.Expr:
    """The lists of a column: of texts or, in Parquet, of what the file holds.

    Args:
        separator: stands between the entries of a text; ``\\x1d`` and ``\\t`` may be written so.
            Without it, the first values decide.
        flag: where the user names the separator, for messages. None for a feature, of which values
            may be missing, and where the first of ``SEPARATORS`` that occurs is taken.

    Raises:
        UserError: the column holds no lists, or its separator cannot be told from the values.
    """
    kind = table.kind(column)
    if isinstance(kind, pl.List | pl.Array) and not kind.inner.is_nested():
        entry = pl.List(kind.inner)
        return table.read(column, lambda raw: raw.cast(entry).fill_null([]), "a list")
    if kind != pl.String:
        raise table.wrong(column, f" is {kind}, which is no list of values")
    if separator is None:
        separator = _separator(table, column, flag)
    separator = unescaped(separator)
    parse, expects = _in_brackets, "a list such as [1, 2] or ['a', 'b'], without backslashes"
    if separator:
        parse, expects = (lambda text: _separated(text, separator)), "a list"

    def parse_all(raw: pl.Expr) -> pl.Expr:
        text = raw.fill_null("")
        return pl.when(text == "").then(pl.lit([], pl.List(pl.String))).otherwise(parse(text))

    return table.read(column, parse_all, expects, optional=flag is None)


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


def _separator(table: Source, column: str, flag: str | None) -> str:
    """What separates the entries of the first lists; nothing if they are in brackets."""
    given = table.first(column)
    if given.str.starts_with("[").any():
        return ""
    found = [s for s in SEPARATORS if given.str.contains(s, literal=True).any()]
    if flag is None:  # blanks are often inside of a value, but not between whole numbers
        if found[:1] == [" "] and not given.str.contains(NUMBERS).all():
            found = []
        how = f"values are separated by {found[0]!r}" if found else "each text is one value"
        print(f"{table.path}, column {column}: {how}", flush=True)
        return (found or SEPARATORS)[0]
    if len(found) == 2 and found[1] == " ":  # blanks beside another separator mean nothing
        rest = given.str.replace_all(rf"\s*{re.escape(found[0])}\s*", "")
        found = found if rest.str.contains(" ", literal=True).any() else found[:1]
    if len(found) == 1 or given.is_empty():
        return (found or SEPARATORS)[0]
    known = ", ".join(map(repr, SEPARATORS))
    what = f"hold {'more than one' if found else 'none'} of the separators {known}; write {flag}"
    raise table.wrong(column, f": values such as {examples(given)} {what}")
