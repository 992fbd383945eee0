"""What a column of a raw table can hold, and how it is read: ids, labels, times, features.

Most functions take a ``Source`` and give one parsed column. They also tell the ``Source`` what to
check, and its ``check`` rejects the first bad value.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ..common.errors import UserError
from .source import Source, readable

DATES = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%dT%H:%M:%S%.f%:z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
)
UNITS = {"us": 1e14, "ms": 1e11, "s": 1e8}  # least numbers that are moments of our time
SAMPLE = 10_000  # rows from which the kind of a text column is guessed


def identity(table: Source, column: str) -> pl.Expr:
    """The ids of users or items, as text. A whole number that is stored as a fraction is whole."""
    parse = _fraction_as_text if table.kind(column).is_float() else _as_text
    return table.read(column, parse, "an id")


def number(table: Source, column: str) -> pl.Expr:
    """Finite numbers; none may be missing."""
    return table.read(column, _as_number, "a number")


def whole(table: Source, column: str) -> pl.Expr:
    """Whole numbers; none may be missing."""
    return table.read(column, _as_whole, "a whole number")


def _as_whole(raw: pl.Expr) -> pl.Expr:
    """The whole numbers of a column, also where they are written as fractions."""
    number = raw.cast(pl.Float64, strict=False)
    rounded = pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))
    return pl.coalesce(raw.cast(pl.Int64, strict=False), rounded)


def label(table: Source, column: str) -> pl.Expr:
    """A label: 0 and 1, or True and False; none may be missing."""

    def parse(raw: pl.Expr) -> pl.Expr:
        text = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
        number = text.cast(pl.Float64, strict=False)
        # Comparisons alone: polars keeps the whole column in memory for ``replace`` and ``is_in``.
        yes, no = (number == 1) | (text == "true"), (number == 0) | (text == "false")
        return pl.when(yes).then(1).when(no).then(0).cast(pl.Int8)

    return table.read(column, parse, "0 or 1, or name a rating with --rating and --positive")


def times(tables: Sequence[Source], column: str, form: str | None) -> tuple[list[pl.Expr], str]:
    """The moments of tables as whole numbers, and their unit: ``s``, ``ms``, ``us`` or ``unknown``.

    Dates and numbers with fractions are read in microseconds, and whole numbers as they are.

    Args:
        form: how texts write dates, in strftime's letters. Without it, the first date decides.
    """
    if all(table.kind(column).is_temporal() for table in tables):
        return [t.read(column, lambda raw: raw.dt.epoch("us"), "a date") for t in tables], "us"
    raw = pl.col(column)
    number = raw.cast(pl.Float64, strict=False)
    firsts, fractions, middle = [], False, 0.0
    for table in tables:
        with readable(table.path):
            given = table.frame.select(raw).filter(raw.is_not_null()).head(1)
            firsts += given.collect(engine="streaming").to_series().to_list()
            facts = table.frame.select((number != number.floor()).any(), number.median().alias("m"))
            found, median = facts.collect(engine="streaming").row(0)
        fractions, middle = fractions or found, max(middle, abs(median or 0))
    numbers = pl.Series(firsts[:1]).cast(pl.Float64, strict=False).null_count() == 0
    if form is None and numbers:
        unit = next((unit for unit, least in UNITS.items() if middle >= least), "unknown")
        if not fractions:
            return [whole(table, column) for table in tables], unit
        scale = {"ms": 1e3, "us": 1}.get(unit, 1e6)

        def scaled(raw: pl.Expr) -> pl.Expr:
            return (_as_number(raw) * scale).round().cast(pl.Int64, strict=False)

        unit = unit if unit == "unknown" else "us"
        return [table.read(column, scaled, "a number") for table in tables], unit
    form = form or next((f for f in DATES if _fits(str(firsts[0]), f)), None)
    if form is None:
        raise UserError(
            f"{tables[0].path}, column {column}: {firsts[0]!r} is no date in a known form; write "
            "--time-format, such as '%d.%m.%Y %H:%M'"
        )

    def parse(raw: pl.Expr) -> pl.Expr:
        return raw.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us")

    return [table.read(column, parse, f"a date in the form {form}") for table in tables], "us"


def _fits(value: str, form: str) -> bool:
    try:
        return pl.Series([value]).str.to_datetime(form, strict=False)[0] is not None
    except pl.exceptions.PolarsError:
        return False


def feature(table: Source, column: str, kind: str) -> pl.Expr:
    """The values of a feature of some kind; they may be missing."""
    found = table.kind(column)
    lists = isinstance(found, pl.List | pl.Array)
    fits = {"embedding": lists, "sequence": lists or found == pl.String}
    if not fits.get(kind, not lists):
        raise UserError(
            f"{table.path}, column {column} is {found}, which is no {kind}; write another kind"
        )
    if kind == "numeric":
        return table.read(column, _as_number, "a number, or declare it categorical", True)
    if not lists:
        return table.read(column, _as_text, "a text", True)
    entry = pl.List(pl.Float32 if kind == "embedding" else pl.String)
    return table.read(column, lambda raw: raw.cast(entry), "a list", True)


def guess(table: Source, column: str) -> str:
    """The kind of a feature, from the type of its column or, in a text, its first values."""
    kind = table.kind(column)
    if isinstance(kind, pl.List | pl.Array):
        return "embedding" if kind.inner.is_float() else "sequence"
    if kind == pl.String:
        with readable(table.path):
            values = table.frame.select(column).head(SAMPLE).collect().to_series().drop_nulls()
        whole = values.cast(pl.Int64, strict=False).null_count() == 0
        numbers = values.cast(pl.Float64, strict=False).null_count() == 0
        return "numeric" if numbers and not whole else "categorical"
    return "numeric" if kind.is_float() or kind.is_decimal() else "categorical"


def _as_number(raw: pl.Expr) -> pl.Expr:
    """The finite numbers of a column, and null for everything else."""
    number = raw.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _as_text(raw: pl.Expr) -> pl.Expr:
    text = raw.cast(pl.String)
    return pl.when(text != "").then(text)


def _fraction_as_text(raw: pl.Expr) -> pl.Expr:
    whole = raw.cast(pl.Int64, strict=False)
    return pl.when(raw == whole).then(whole.cast(pl.String)).otherwise(raw.cast(pl.String))
