"""Times in every form: read right, or refused with some of the values and the flag to write."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.raw.moments import times
from engine.datasets.raw.source import Source
from engine.datasets.raw.values import identity

START = datetime(2023, 11, 25, 17, 13, 13, tzinfo=UTC)
SECONDS = [int(START.timestamp()) + 86_400 * day + 7 * day for day in range(9)]
MICROS = [second * 10**6 for second in SECONDS]


def read(folder: Path, values: list[Any], kind: str = "csv", **options: Any) -> tuple[list, str]:
    """The moments of a table, and their unit."""
    path = folder / f"log.{kind}"
    table = pl.DataFrame({"t": values, "other": "x"}, strict=False)
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    source = Source(path, lenient=options.pop("lenient", False))
    parse, expects, unit = times([source], "t", **options)
    expression = source.read("t", parse, expects)
    identity(source, "other")
    source.check()
    found = source.rows().select(expression).collect().to_series()
    assert found.dtype == pl.Int64
    return found.to_list(), unit


def written(form: str) -> list[str]:
    return [datetime.fromtimestamp(second, UTC).strftime(form) for second in SECONDS]


FORMS = [
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%S+0000", "%Y-%m-%d %H:%M:%S.000000",
    "%Y/%m/%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y%m%d%H%M%S",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_dates(tmp_path: Path, form: str) -> None:
    assert read(tmp_path, written(form)) == (MICROS, "us")


def test_zones_and_fractions_of_dates(tmp_path: Path) -> None:
    east = ["2023-11-15T17:13:13.123+08:00", "2023-11-15T17:13:14+08:00", "2023-11-15T09:13:15Z"]
    base = int(datetime(2023, 11, 15, 9, 13, 13, tzinfo=UTC).timestamp()) * 10**6
    assert read(tmp_path, east)[0] == [base + 123_000, base + 10**6, base + 2 * 10**6]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("values", "expected", "unit"),
    [
        (SECONDS, SECONDS, "s"),
        ([s * 1000 + 5 for s in SECONDS], [s * 1000 + 5 for s in SECONDS], "ms"),
        ([m + 5 for m in MICROS], [m + 5 for m in MICROS], "us"),
        ([m * 1000 + 999 for m in MICROS], MICROS, "us"),  # nanoseconds
        ([s + 0.25 for s in SECONDS], [m + 250_000 for m in MICROS], "us"),
        ([s * 1000 + 0.5 for s in SECONDS], [m + 500 for m in MICROS], "us"),
        ([float(s) for s in SECONDS], SECONDS, "s"),
        ([0, 5, 26_000_000], [0, 5, 26_000_000], "unknown"),
        ([-4, -3, 7], [-4, -3, 7], "unknown"),
        ([20240131, 20240201, 20240229], None, "us"),
    ],
)
def test_numbers(tmp_path: Path, kind: str, values: list, expected: list | None, unit: str) -> None:
    if expected is None:
        days = [datetime.strptime(str(v), "%Y%m%d").replace(tzinfo=UTC) for v in values]
        expected = [int(day.timestamp()) * 10**6 for day in days]
    assert read(tmp_path, values, kind) == (expected, unit)


def test_months_and_days_need_a_flag(tmp_path: Path) -> None:
    values = [511, 829, 1111, 1230]
    with pytest.raises(UserError, match=r"'511', '829', '1111'.*--time-format %m%d"):
        read(tmp_path, values)
    found, unit = read(tmp_path, values, form="%m%d")
    days = [datetime(2000, v // 100, v % 100, tzinfo=UTC) for v in values]
    assert (found, unit) == ([int(day.timestamp()) * 10**6 for day in days], "us")


REFUSED = {
    "seconds and milliseconds": ([*SECONDS, SECONDS[0] * 1000], "most values are times in s, but not '17"),
    "zeros": ([*SECONDS, 0, 0], "but not '0'; .*--time-range"),
    "negative": ([-1, *SECONDS], "but not '-1'"),
    "huge": ([*SECONDS, 1e300], r"but not '1e\+?300'"),
    "infinite": ([*map(float, SECONDS), math.inf], "but not 'inf'"),
    "all zero": ([0, 0, 0], "is 0.0 in every row"),
    "zero date": ([*written("%Y-%m-%d %H:%M:%S"), "1970-01-01 00:00:00"], "but not '1970-01-01 00:00:00'"),
    "words": (["morning", "noon", "evening", "night"], "'morning', 'noon', 'evening' are no dates.*--time-format"),
    "two digits of a year": (["1.2.24", "2.2.24", "3.2.24"], "are no dates in a known form"),
    "day or month": (["03/04/2024", "05/04/2024"], r"can be read as %m/%d/%Y or as %d/%m/%Y; write one as"),
    "one odd date": ([*written("%Y-%m-%d"), "yesterday"], "line 11: the value is 'yesterday'; write a date"),
    "one odd number": ([*SECONDS, "soon"], "line 11: the value is 'soon'; write a whole number"),
    "missing": ([*SECONDS, None], "line 11: the value is missing"),
    "missing as a word": ([*map(str, SECONDS), "NULL"], "line 11: the value is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    values, says = REFUSED[name]
    with pytest.raises(UserError, match=says):
        read(tmp_path, values)


def test_rows_outside_of_a_range_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bounds are numbers or dates, and a last day is meant as a whole."""
    values = [0, -1, *SECONDS, 2_100_000_000]
    for span in ([SECONDS[1], SECONDS[3]], ["2023-11-26", "2023-11-28"]):
        assert read(tmp_path, values, span=span) == (SECONDS[1:4], "s")
        assert "9 rows are left out: outside of --time-range" in capsys.readouterr().out
    dates = written("%Y-%m-%d %H:%M:%S")
    assert read(tmp_path, dates, span=["2023-11-26", "2023-11-28"]) == (MICROS[1:4], "us")


@pytest.mark.parametrize("form", ["%Y%m%d", "%d.%m.%y"])
@pytest.mark.parametrize("bound", ["{0:%Y%m%d}", "{0:%Y-%m-%d}", None])
def test_bounds_of_dates_are_dates(tmp_path: Path, form: str, bound: str | None) -> None:
    days = [datetime(2017, 11, day) for day in (4, 5, 12, 20, 21)]
    values = [f"{day:{form}}" for day in days]
    span = [bound.format(day) if bound else f"{day:{form}}" for day in (days[1], days[3])]
    found = read(tmp_path, values, form=form, span=span)[0]
    micros = [round(d.replace(tzinfo=UTC).timestamp() * 1e6) for d in days[1:4]]
    assert found == micros
    if bound:
        assert read(tmp_path, [day.date() for day in days], "parquet", span=span)[0] == micros


def test_bad_rows_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(tmp_path, [*SECONDS, 0, "soon", SECONDS[0] * 1000], lenient=True)
    assert found == (SECONDS, "s")
    out = capsys.readouterr().out
    assert "2 rows are left out: column t is no moment" in out
    assert "1 rows are left out: column t is not a whole number" in out


@pytest.mark.parametrize("unit", [None, "unknown"])
@pytest.mark.parametrize("factor", [1000, 10**6])
def test_an_unknown_unit_is_one_unit(tmp_path: Path, unit: str | None, factor: int) -> None:
    """Times that count from an unknown moment may lie in the range of two units, and between them."""
    mixed = [*SECONDS, SECONDS[0] * factor, SECONDS[1] * factor]
    with pytest.raises(UserError, match="most values are times in s, but not '17"):
        read(tmp_path, mixed, unit=unit)
    assert read(tmp_path, mixed, unit=unit, lenient=True) == (SECONDS, "s")
    counted = [SECONDS[0] // 2**n * factor for n in range(25)]
    assert read(tmp_path, counted, unit="unknown") == (counted, "unknown")


def test_a_flag_beats_the_size(tmp_path: Path) -> None:
    assert read(tmp_path, [5, 10, 25], unit="s") == ([5, 10, 25], "s")
    assert read(tmp_path, [0, *SECONDS], unit="unknown")[1] == "unknown"
    with pytest.raises(UserError, match="most values are times in ms, but not"):
        read(tmp_path, SECONDS, unit="ms")


@pytest.mark.parametrize("values", [[[1], [2, 3]], [timedelta(seconds=5)] * 2])
def test_what_is_no_time(tmp_path: Path, values: list) -> None:
    with pytest.raises(UserError, match=r"column t is .*, which is no time of an event"):
        read(tmp_path, values, "parquet")


def test_tables_of_one_log_have_one_form(tmp_path: Path) -> None:
    """Fractions in one of them scale both."""
    for name, values in {"a": [1, 2, 3], "b": [1.5, 2.5, 3.5]}.items():
        pl.DataFrame({"t": values}).write_parquet(tmp_path / f"{name}.parquet")
    tables = [Source(tmp_path / f"{name}.parquet") for name in "ab"]
    parse, expects, _ = times(tables, "t")
    read = [t.frame.select(t.read("t", parse, expects)).collect()["t"].to_list() for t in tables]
    assert read == [[10**6, 2 * 10**6, 3 * 10**6], [1_500_000, 2_500_000, 3_500_000]]


def test_tables_of_one_log_may_be_of_unlike_files(tmp_path: Path) -> None:
    pl.DataFrame({"t": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("u,t\na, 3\nb, 4\n")
    tables = [Source(tmp_path / "a.parquet"), Source(tmp_path / "b.csv")]
    parse, expects, _ = times(tables, "t")
    read = [t.frame.select(t.read("t", parse, expects)).collect()["t"].to_list() for t in tables]
    assert read == [[1, 2], [3, 4]]
