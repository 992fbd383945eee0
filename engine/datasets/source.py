"""A table of raw data in text or Parquet files, read lazily, with every value checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ..common.errors import UserError
from ..loader.columns import require_columns
from .features import Feature

ROW = "#row"  # the number of a row, beside the table's own columns
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
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
SAMPLE = 10_000  # rows from which the kind of a text column is guessed
SHOWN = 300  # characters of a file's content that a message shows
Unit = Literal["us", "ns"]
Parse = Callable[[pl.Expr], pl.Expr]


class Source:
    """One file, all files of a folder, or those of a pattern (``logs/*.csv``).

    Args:
        path: ends with ``.csv``, ``.tsv`` (both also ``.gz``) or ``.parquet``; with a ``separator``
            any text is read.
        separator: what separates the fields of a text; by default the ending tells it.
        quotes: whether fields of a text may be quoted; those of a ``.tsv`` never are.

    Attributes:
        frame: the table, with a column ``ROW`` in front; every column of a text is text.
        text: whether the files are texts.
    """

    def __init__(self, path: str | Path, separator: str | None = None, quotes: bool = True) -> None:
        self.path = Path(path)
        self.files, kind = _files(self.path, separator)
        self.text = kind != PARQUET
        self.quotes = quotes and kind != ".tsv"
        with readable(self.path):
            if self.text:
                frame = pl.scan_csv(
                    self.files,
                    separator=separator or SEPARATORS[kind],
                    quote_char='"' if self.quotes else None,
                    infer_schema=False,
                    row_index_name=ROW,
                )
            else:
                frame = pl.scan_parquet(self.files, row_index_name=ROW)
            self._start(frame)

    def _start(self, frame: pl.LazyFrame, first_line: int = 2) -> None:
        self.frame, self.first_line = frame, first_line  # the first line of a text names columns
        self.schema = frame.collect_schema()
        self.checks: list[tuple[str, pl.Expr, str]] = []
        self.blank = pl.lit(True)  # whether a row has none of the columns that must be there

    def read(self, column: str, parse: Parse, expects: str, optional: bool = False) -> pl.Expr:
        """The parsed column; ``check`` rejects values that ``parse`` makes null.

        Args:
            expects: what a value must be, for the message.
            optional: whether a value may be missing.
        """
        self.require(column)
        raw = pl.col(column)
        parsed = parse(raw)
        given = raw.is_not_null()
        if self.schema[column] == pl.String:
            given &= raw != ""
        if not optional:
            self.blank &= ~given
        self.checks.append((column, parsed.is_null() & (given | (not optional)), expects))
        return parsed

    def rows(self) -> pl.LazyFrame:
        """The table without blank rows; call it when all columns have been read."""
        return self.frame.filter(~self.blank)

    def check(self) -> None:
        """Read the table once and reject the first bad value.

        Raises:
            UserError: names the file, the column and the row.
        """
        print(f"checking {self.path} ...", flush=True)
        first = [
            pl.when(bad & ~self.blank).then(ROW).min().alias(str(i))
            for i, (_, bad, _) in enumerate(self.checks)
        ]
        kept = (~self.blank).sum().alias("kept")
        with readable(self.path):
            table = self.frame.select(pl.len().alias("rows"), kept, *first)
            rows, kept, *found = table.collect(engine="streaming").row(0)
            if not kept:
                raise UserError(f"{self.path} has no rows; name a table with some")
            for (column, _, expects), row in zip(self.checks, found, strict=True):
                if row is not None:
                    value = self.frame.filter(pl.col(ROW) == row).select(column).collect().item()
                    what = "missing" if value in (None, "") else repr(value)
                    place = (
                        f"line {row + self.first_line}"
                        if self.text
                        else f"row {row} (the first is 0)"
                    )
                    raise UserError(
                        f"{self.path}, column {column}, {place}: the value is {what}; write {expects}"
                    )
        self._warn_of_quotes(rows)

    def _warn_of_quotes(self, rows: int) -> None:
        """A stray quote swallows lines up to the next one, without any error."""
        if not (self.text and self.quotes) or any(file.suffix == ".gz" for file in self.files):
            return
        lines = sum(map(_count_lines, self.files)) - len(self.files)
        if lines > rows:
            print(
                f"warning: {self.path}: {lines:,} lines are {rows:,} rows, for quoted texts span "
                "several lines; if stray quotes do it, add --no-quotes",
                file=sys.stderr,
            )

    def require(self, *columns: str) -> None:
        """Reject a column that is not there."""
        names = [name for name in self.schema if name != ROW]
        other = next((s for s in ";\t|," if len(names) == 1 and s in names[0]), None)
        if other and names != list(columns):
            raise UserError(
                f"{self.path} has one column, {names[0][:SHOWN]!r}, which looks separated by {other!r}; "
                "write --separator"
            )
        require_columns(self.path, names, list(columns))

    # ---------------------------------------------------------------- what columns can hold

    def identity(self, column: str) -> pl.Expr:
        """Users or items: anything, as text; whole numbers that are stored as fractions are whole."""
        floats = self.schema.get(column, pl.String()).is_float()
        return self.read(column, _fraction_as_text if floats else _as_text, "an id")

    def number(self, column: str) -> pl.Expr:
        """Finite numbers that must be there."""
        return self.read(column, as_number, "a number")

    def whole(self, column: str, kind: type[pl.DataType] = pl.Int64) -> pl.Expr:
        """Whole numbers that must be there."""
        return self.read(column, lambda raw: raw.cast(kind, strict=False), "a whole number")

    def label(self, column: str) -> pl.Expr:
        """0 and 1, or True and False."""

        def parse(raw: pl.Expr) -> pl.Expr:
            text = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
            number = text.cast(pl.Float64, strict=False)
            yes, no = (number == 1) | (text == "true"), (number == 0) | (text == "false")
            return pl.when(yes).then(1).when(no).then(0).cast(pl.Int8)

        return self.read(column, parse, "0 or 1, or name a rating with --rating and --positive")

    def has_dates(self, column: str, form: str | None) -> bool:
        """Whether a column of times holds dates; otherwise it holds numbers."""
        kind = self.schema.get(column, pl.String())
        if kind != pl.String:
            return kind.is_temporal()
        first = self._first(column)
        return form is not None or (first is not None and _number_in(first) is None)

    def time_unit(self, column: str) -> Unit:
        """The unit of dates that loses nothing."""
        return "ns" if getattr(self.schema.get(column), "time_unit", "us") == "ns" else "us"

    def time(self, column: str, form: str | None, unit: Unit) -> pl.Expr:
        """Moments that can be compared: dates in ``unit``, numbers as they are."""
        kind = self.schema.get(column, pl.String())
        if not self.has_dates(column, form):
            if kind.is_integer() or (kind == pl.String and self._whole(column)):
                return self.whole(column, pl.UInt64 if kind == pl.UInt64 else pl.Int64)
            return self.number(column)
        if kind != pl.String:
            return self.read(column, lambda raw: raw.dt.epoch(unit), "a date")
        first = self._first(column)
        form = form or next((f for f in DATES if first and _fits(first, f)), None)
        if form is None:
            raise UserError(
                f"{self.path}, column {column}: {first!r} is no date in a known form; write "
                "--time-format, such as '%d.%m.%Y %H:%M'"
            )

        def parse(raw: pl.Expr) -> pl.Expr:
            return raw.str.to_datetime(form, time_unit=unit, strict=False).dt.epoch(unit)

        return self.read(column, parse, f"a date in the form {form}")

    def feature(self, feature: Feature) -> pl.Expr:
        """The values of a feature; they may be missing."""
        column = feature.source_column
        self.require(column)
        kind = self.schema[column]
        lists = isinstance(kind, pl.List | pl.Array)
        fits = {"embedding": lists, "sequence": lists or kind == pl.String}
        if not fits.get(feature.kind, not lists):
            where = f"{self.path}, column {column}"
            raise UserError(f"{where} is {kind}, which is no {feature.kind}; write another kind")
        if feature.kind == "numeric":
            return self.read(column, as_number, "a number, or declare it categorical", True)
        if feature.kind == "embedding":
            return self.read(column, lambda raw: raw.cast(pl.List(pl.Float32)), "numbers", True)
        if lists:
            return self.read(column, lambda raw: raw.cast(pl.List(pl.String)), "texts", True)
        return self.read(column, _as_text, "a text", True)

    def guess(self, column: str) -> str:
        """The kind of a feature, from the type of its column or, in a text, its first values."""
        self.require(column)
        kind = self.schema[column]
        if isinstance(kind, pl.List | pl.Array):
            return "embedding" if kind.inner.is_float() else "sequence"
        if kind == pl.String:
            with readable(self.path):
                values = self.frame.select(column).head(SAMPLE).collect().to_series().drop_nulls()
            whole = values.cast(pl.Int64, strict=False).null_count() == 0
            numbers = values.cast(pl.Float64, strict=False).null_count() == 0
            return "numeric" if numbers and not whole else "categorical"
        return "numeric" if kind.is_float() or kind.is_decimal() else "categorical"

    def _first(self, column: str) -> str | None:
        self.require(column)
        return self._one(pl.col(column).drop_nulls().first())

    def _whole(self, column: str) -> bool:
        """Whether all texts of a column that are numbers are whole ones."""
        number = pl.col(column).cast(pl.Float64, strict=False).is_not_null()
        return not self._one((number & pl.col(column).cast(pl.Int64, strict=False).is_null()).any())

    def _one(self, value: pl.Expr) -> Any:
        with readable(self.path):
            return self.frame.select(value).collect(engine="streaming").item()


class Lines(Source):
    """A text without a first line that names the columns, such as the older MovieLens files.

    Args:
        path: of the file, in Latin-1.
        columns: all that there are, in order.
        separator: what stands between the fields; polars itself reads only those of one byte.

    Raises:
        UserError: a line has another number of fields.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], separator: str) -> None:
        self.path, self.files, self.text, self.quotes = path, [path], True, False
        lines = path.read_text(encoding="latin-1").splitlines()
        fields = pl.Series(lines, dtype=pl.String).str.split(separator)
        bad = (fields.list.len() != len(columns)).arg_true()
        if len(bad):
            raise UserError(
                f"{path}, line {bad[0] + 1} is {lines[bad[0]]!r}; it must hold {len(columns)} fields "
                f"with {separator!r} between them: {', '.join(columns)}"
            )
        table = pl.DataFrame({name: fields.list.get(i) for i, name in enumerate(columns)})
        self._start(table.with_row_index(ROW).lazy(), first_line=1)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Surround polars' reading of ``path``, so that its errors name the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:SHOWN]
        raise UserError(f"{path} cannot be read ({reason}); mend it, or name another") from None


def require_unique(path: Path, what: str, ids: pl.Series) -> None:
    """Reject a table that describes something twice."""
    double = ids.filter(ids.is_duplicated())
    if len(double):
        raise UserError(f"{path}: {what} {double[0]} stands twice; keep one row")


def _files(path: Path, separator: str | None) -> tuple[list[Path], str]:
    """The files of a table, and the ending that all of them have."""
    endings = (*SEPARATORS, PARQUET)
    with readable(path):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if _ending(file) in endings)
        elif "*" in path.name:
            files = sorted(path.parent.glob(path.name))
        else:
            files = [path] if path.exists() else []
    if not files:
        what = "holds no file to read" if path.is_dir() else "does not exist"
        raise UserError(
            f"{path} {what}; name a file that ends with {', '.join(endings)}, a folder of such files, "
            "or a pattern such as '*.csv'"
        )
    found = sorted({_ending(file) for file in files})
    if len(found) > 1 or (found[0] not in endings and separator is None):
        raise UserError(
            f"{path} ends with {', '.join(found)}; all files must end with one of "
            f"{', '.join(endings)}, or write --separator"
        )
    return files, found[0]


def _ending(file: Path) -> str:
    """The ending of a file, without that of a compression."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _count_lines(file: Path) -> int:
    lines, last = 0, b"\n"
    with open(file, "rb") as content:
        while block := content.read(1 << 24):
            lines, last = lines + block.count(b"\n"), block
    return lines + (not last.endswith(b"\n"))


def _as_text(raw: pl.Expr) -> pl.Expr:
    text = raw.cast(pl.String)
    return pl.when(text != "").then(text)


def _fraction_as_text(raw: pl.Expr) -> pl.Expr:
    whole = raw.cast(pl.Int64, strict=False)
    return pl.when(raw == whole).then(whole.cast(pl.String)).otherwise(raw.cast(pl.String))


def as_number(raw: pl.Expr) -> pl.Expr:
    number = raw.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _number_in(text: str) -> float | None:
    return pl.Series([text]).cast(pl.Float64, strict=False)[0]


def _fits(value: str, form: str) -> bool:
    try:
        return pl.Series([value]).str.to_datetime(form, strict=False)[0] is not None
    except pl.exceptions.PolarsError:
        return False
