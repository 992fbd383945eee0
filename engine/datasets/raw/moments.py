"""When events happened: how times are written, in which unit, and what is no time.

Times are read as whole numbers. Dates, and numbers with fractions, become microseconds since 1970.
Other numbers stay as they are, and their size tells the unit.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ...common.errors import UserError
from .source import Parse, Source, examples
from .values import as_whole

DATES = (
    *(f"%Y-%m-%d{gap}%H:%M:%S%.f{zone}" for gap in " T" for zone in ("", "%#z", " UTC")),
    *(f"{day}{clock}" for day in ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
      for clock in (" %I:%M:%S %p", " %H:%M:%S", " %H:%M", "")),
)  # fmt: skip
DIGITS = ("%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")  # dates that look like numbers
NO_YEAR = "%m%d"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Seconds from 1979 to 2100: a number between these limits in one unit is not so in another.
FIRST, LAST = 300_000_000, 4_102_444_800
DAY = 86_400 * PER_SECOND["us"]
Bound = str | int | float


def times(
    tables: Sequence[Source],
    column: str,
    form: str | None = None,
    unit: str | None = None,
    span: Sequence[Bound] = (),
    varied: bool = True,
) -> tuple[Parse, str, str]:
    """How values become moments, what they must be, and the unit: ``s, ms, us`` or ``unknown``.

    Args:
        form: how dates are written, in strftime's letters. Without it, the first values decide.
        unit: of numbers. Without it, their size decides.
        span: first and last moment; rows outside are left out.
        varied: whether more than one moment is needed.

    Raises:
        UserError: the form or the unit cannot be told, or some times are in another unit.
    """
    where = f"{tables[0].path}, column {column}"
    dates = _dates(tables, column, form, where)
    if dates and unit:
        raise UserError(f"{where} holds dates, and --time-unit is for numbers; leave it out")
    parse = dates[0] if dates else lambda raw: raw.cast(pl.Float64, strict=False)
    values = [parse(table.raw(column)) for table in tables]
    facts = _facts(tables, values)
    if varied and facts["rows"] > 1 and facts["low"] == facts["high"]:
        raise UserError(
            f"{where} is {facts['low']} in every row, so it orders nothing; write another --time, or "
            "--order row if the rows of a user are in order"
        )
    found = {name: facts[name] for name in (["us"] if dates else PER_SECOND) if facts[name]}
    most = max(found, key=lambda name: found[name], default="us" if dates else "unknown")
    unit = unit or most
    if unit == "unknown" and not span and len(found) > 1 and sum(found.values()) == facts["ours"]:
        unit = most  # there are two units, for nothing lies between them
    parse, expects, own = dates or (_numbers(unit, facts["fractions"]), "a whole number", None)
    outside, why = [], "outside of --time-range"
    if span:
        first, last = _bound(span[0], unit, own), _bound(span[1], unit, own, last=True)
        outside = [(value < first) | (value > last) for value in values]
    elif found and unit != "unknown" and facts["rows"] > found.get(unit, 0):
        outside = [~_within(value, unit) for value in values]
        why = f"column {column} is no moment of our time in {unit}"
        if not tables[0].lenient:
            raise UserError(
                f"{where}: most values are times in {unit}, but not "
                f"{examples(_texts(tables, column, outside))}; bring them into one unit, or leave such rows "
                "out with --time-range FIRST LAST, or with --bad-rows leave_out"
            )
    for table, rows in zip(tables, outside, strict=False):
        table.left_out[why] = rows.fill_null(False)
    micro = unit == "ns" or (facts["fractions"] and unit != "unknown")
    return parse, expects, "us" if micro else unit


def _facts(tables: Sequence[Source], values: Sequence[pl.Expr]) -> dict[str, Any]:
    """How many times there are, how many of them are of our time in each unit, and their range.

    ``ours`` is how many are of our time in any unit, or between such.
    """
    each = zip(tables, values, strict=True)
    rows = pl.concat([table.frame.select(time=value) for table, value in each])
    time = pl.col("time")
    facts = rows.select(
        rows=time.count(),
        low=time.min(),
        high=time.max(),
        fractions=(time.cast(pl.Float64) % 1 != 0).any(),
        ours=_within(time, "s", "ns").sum(),
        **{unit: _within(time, unit).sum() for unit in PER_SECOND},
    )
    return tables[0].collect(facts).row(0, named=True)


def _within(value: pl.Expr, unit: str, last: str | None = None) -> pl.Expr:
    """Whether numbers are moments of our time in a unit, or lie between those in two units."""
    return (value >= FIRST * PER_SECOND[unit]) & (value < LAST * PER_SECOND[last or unit])


def _numbers(unit: str, fractions: bool) -> Parse:
    """How to read numbers of a unit."""
    if fractions:
        scale = PER_SECOND["us"] / PER_SECOND.get(unit, 1)
        return lambda raw: (
            (raw.cast(pl.Float64, strict=False) * scale).round().cast(pl.Int64, strict=False)
        )
    return (lambda raw: as_whole(raw) // 1000) if unit == "ns" else as_whole


def _bound(bound: Bound, unit: str, own: str | None, last: bool = False) -> float:
    """A bound of a range as a number of a unit; a last day is meant as a whole.

    Args:
        own: the form of the column's dates, or nothing if they are no texts. None if the column has
            numbers, so that a number is no date.
    """
    text = pl.Series([str(bound)])
    number = text.cast(pl.Float64, strict=False)[0]
    if own is None and number is not None:
        return number
    form = own if own and _read(text, own)[0] is not None else None
    form = form or _form(text, f"--time-range: values such as {bound!r}")
    if form is None or unit not in PER_SECOND:
        raise UserError(
            f"--time-range {bound} cannot be compared with times of the unit {unit}; write it as the "
            "times are, or add --time-unit"
        )
    moment = pl.select(_parsed(pl.lit(str(bound)), form)).item()
    if last and "%H" not in form:
        moment += DAY - 1
    return moment / PER_SECOND["us"] * PER_SECOND[unit]


def _dates(
    tables: Sequence[Source], column: str, form: str | None, where: str
) -> tuple[Parse, str, str] | None:
    """How to read dates, what they are for a message, and their form; nothing if times are numbers."""
    kinds = [table.kind(column) for table in tables]
    for kind in kinds:
        if kind.is_nested() or kind == pl.Duration:
            raise UserError(f"{where} is {kind}, which is no time of an event; name another column")
    known = [kind in (pl.Date, pl.Datetime) for kind in kinds]
    if all(known):
        return lambda raw: raw.dt.epoch("us"), "a date", ""
    if any(known):
        raise UserError(f"{where} holds dates only in one of two tables; bring them into one form")
    if form is None:
        texts = _texts(tables, column, [None] * len(tables))
        such = f"{where}: values such as {examples(texts)}"
        form = _form(texts, such)
        if kinds[0] == pl.String and texts.str.contains(r"^\d\.\d+[eE]").any():
            print(f"{such} have few digits, so moments are rounded")
    return (lambda raw: _parsed(raw, form), f"a date in the form {form}", form) if form else None


def _form(texts: pl.Series, where: str) -> str | None:
    """The form of dates that fits most of some texts; nothing if they are numbers."""
    numbers = texts.cast(pl.Float64, strict=False).is_not_null()
    if 2 * numbers.sum() >= len(texts):
        if len(texts) and _read(texts, NO_YEAR).is_not_null().all():
            raise UserError(
                f"{where} look like a month and a day; write --time-format {NO_YEAR} if they are, or "
                "--time-unit unknown if they are numbers of another kind"
            )
        return next((f for f in DIGITS if len(texts) and _read(texts, f).is_not_null().all()), None)
    read = {form: _read(texts, form) for form in DATES}
    most = max(moments.count() for moments in read.values())
    forms = [form for form, moments in read.items() if moments.count() == most]
    if 2 * most <= len(texts):
        raise UserError(
            f"{where} are no dates in a known form; write --time-format, such as '%d.%m.%Y %H:%M'"
        )
    if not all(read[form].equals(read[forms[0]]) for form in forms):
        raise UserError(
            f"{where} can be read as {' or as '.join(forms)}; write one as --time-format"
        )
    return forms[0]


def _read(texts: pl.Series, form: str) -> pl.Series:
    """Dates of our time, and null for what is none."""
    moment = _parsed(pl.lit(texts), form)
    return pl.select(pl.when(_within(moment, "us")).then(moment)).to_series()


def _parsed(raw: pl.Expr, form: str) -> pl.Expr:
    """Dates of a form, in microseconds. Years that are not written are 2000."""
    text = raw.cast(pl.String).str.strip_chars()
    written = datetime(2000, 12, 31, 23, 59, 59).strftime(form)
    if written.isdigit():  # a number has lost its zeros
        text = text.str.zfill(len(written))
    if "%H" in form and "%M" not in form:  # polars reads no hour alone
        text, form = text + ":00", form + ":%M"
    if "%Y" not in form and "%y" not in form:
        text, form = "2000 " + text, "%Y " + form
    return text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us")


def _texts(tables: Sequence[Source], column: str, which: Sequence[pl.Expr | None]) -> pl.Series:
    """The first values of a column of some rows of tables, as texts."""
    each = zip(tables, which, strict=True)
    return pl.concat([table.first(column, rows).cast(pl.String) for table, rows in each])
