"""What a column of a raw table can hold, and how it is read: ids, labels, times, features.

Most functions take a ``Source`` and give one parsed column. They also tell the ``Source`` what to
check, and its ``check`` rejects the first bad value.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from .source import Parse, Source

UNKNOWN = ("?", "-", "NA", "N/A")  # what a column of numbers has besides ``raw_files.NULLS``
SHOWN = 20  # actions that a message shows
LARGEST = 3.4e38  # of the numbers that models compute with
# A whole number that was stored as a fraction, and has lost its last digits.
ROUNDED = r"^-?(\d\.\d+[eE]\+?\d+|\d{16,}\.0)$"


def identity(table: Source, column: str) -> pl.Expr:
    """The ids of users or items, as text.

    A whole number that is written as a fraction is whole, so ``1.0`` and ``1`` are one id.
    """
    kind = table.kind(column)
    if kind.is_nested():
        what = (
            f" is {kind}, which holds no ids; for events in lists write --events-in-row, and for "
        )
        raise table.wrong(column, what + "what a row shows --history or --candidates")
    digits = 7 if kind == pl.Float32 else 15
    expects = f"an id; whole numbers of more than {digits} digits must not be stored as fractions"
    return table.read(column, as_id(kind), expects)


def as_id(kind: pl.DataType) -> Parse:
    """How values of a type become ids."""
    if not kind.is_float():
        return _as_id
    exact = 2**24 if kind == pl.Float32 else 2**53  # they hold smaller whole numbers exactly
    return lambda raw: pl.when(raw.abs() < exact).then(_fraction_as_id(raw))


def one_of(values: pl.Expr, chosen: Sequence[Any]) -> pl.Expr:
    """Whether a text is one of some; without any, each is."""
    return pl.any_horizontal(values == str(c) for c in chosen) if chosen else values != ""


def action(table: Source, column: str, chosen: Sequence[Any]) -> pl.Expr:
    """What users did, as text.

    Args:
        chosen: actions that must occur.
    """
    done = table.read(column, as_id(table.kind(column)), "an action")
    if chosen:
        found = table.collect(table.frame.select(done).unique())[column].drop_nulls()
        for name in map(str, chosen):
            if name not in found:
                known = ", ".join(found.sort().head(SHOWN))
                raise table.wrong(column, f" has no {name!r}; there are {known}")
    return done


def number(table: Source, column: str) -> pl.Expr:
    """Finite numbers; none may be missing."""
    return table.read(column, _as_number, "a number")


def whole(table: Source, column: str) -> pl.Expr:
    """Whole numbers; none may be missing."""
    return table.read(column, as_whole, "a whole number")


def as_whole(raw: pl.Expr) -> pl.Expr:
    """The whole numbers of a column, also where they are written as fractions."""
    number = raw.cast(pl.Float64, strict=False)
    rounded = pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))
    return pl.coalesce(raw.cast(pl.Int64, strict=False), rounded)


def label(table: Source, column: str) -> pl.Expr:
    """A label: 0 and 1, True and False, or lists [1, 0] and [0, 1]; none may be missing."""
    if isinstance(table.kind(column), pl.List | pl.Array):
        entry = pl.List(pl.Float64)

        def one_hot(raw: pl.Expr) -> pl.Expr:
            two = raw.cast(entry)
            known = (two.list.len() == 2) & (two.list.min() == 0) & (two.list.sum() == 1)
            return pl.when(known).then(two.list.last()).cast(pl.Int8)

        return table.read(column, one_hot, "[1, 0] for 0, or [0, 1] for 1")

    def parse(raw: pl.Expr) -> pl.Expr:
        text = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
        number = text.cast(pl.Float64, strict=False)
        # Comparisons alone: polars keeps the whole column in memory for ``replace`` and ``is_in``.
        yes, no = (number == 1) | (text == "true"), (number == 0) | (text == "false")
        return pl.when(yes).then(1).when(no).then(0).cast(pl.Int8)

    return table.read(column, parse, "0 or 1, or name a rating with --rating and --positive")


def feature(table: Source, column: str, kind: str) -> pl.Expr:
    """The values of a feature of some kind; they may be missing."""
    found = table.kind(column)
    lists = isinstance(found, pl.List | pl.Array)
    if lists != (kind in ("embedding", "sequence")):
        raise table.wrong(column, f" is {found}, which is no {kind}; write another kind")
    if kind == "numeric":
        expects = f"a number up to {LARGEST}, or declare it categorical"
        return table.read(column, _as_feature, expects, True)
    if not lists:
        return table.read(column, as_id(found), "a text, or declare it numeric", True)
    entry = pl.List(pl.Float32 if kind == "embedding" else pl.String)
    return table.read(column, lambda raw: raw.cast(entry), "a list", True)


def guess(table: Source, column: str) -> str:
    """The kind of a feature: numbers are numeric if one of the first has a fraction."""
    kind = table.kind(column)
    if isinstance(kind, pl.List | pl.Array):
        return "embedding" if kind.inner.is_float() else "sequence"
    if kind != pl.String and not kind.is_numeric():
        return "categorical"
    numbers = table.first(column).cast(pl.Float64, strict=False)
    fractions = (numbers != numbers.floor()).any()
    return "numeric" if fractions and not numbers.null_count() else "categorical"


def _as_number(raw: pl.Expr) -> pl.Expr:
    """The finite numbers of a column, and null for everything else."""
    number = raw.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _as_feature(raw: pl.Expr) -> pl.Expr:
    """The numbers of a column up to ``LARGEST``, and NaN where a text says that it is unknown."""
    unknown = one_of(raw.cast(pl.String).str.strip_chars(), UNKNOWN)
    number = _as_number(raw)
    return pl.when(unknown).then(float("nan")).when(number.abs() <= LARGEST).then(number)


def _as_id(raw: pl.Expr) -> pl.Expr:
    text = raw.cast(pl.String).str.strip_chars()
    whole = text.str.contains(r"^-?\d+\.0$")
    exact = (text != "") & ~text.str.contains(ROUNDED)
    return pl.when(exact).then(pl.when(whole).then(text.str.strip_suffix(".0")).otherwise(text))


def _fraction_as_id(raw: pl.Expr) -> pl.Expr:
    whole = raw.cast(pl.Int64, strict=False)
    return pl.when(raw == whole).then(whole.cast(pl.String)).otherwise(raw.cast(pl.String))
