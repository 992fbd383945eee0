"""A table of raw data in CSV or Parquet files, read lazily, with every value checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ..errors import UserError, did_you_mean
from .features import Feature

SUFFIXES = {".csv": ",", ".tsv": "\t", ".parquet": None}
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
Parse = Callable[[pl.Expr], pl.Expr]


class Source:
    """One file, all files of a folder, or those of a pattern (``logs/*.csv``).

    Attributes:
        frame: the table, with a column ``row`` in front; every column of a CSV file is text.
        text: whether it is.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        files, suffix = _files(self.path)
        separator = SUFFIXES[suffix]
        self.text = separator is not None
        with readable(self.path):
            if self.text:
                self.frame = pl.scan_csv(
                    files, separator=separator, infer_schema=False, row_index_name="row"
                )
            else:
                self.frame = pl.scan_parquet(files, row_index_name="row")
            self.schema = self.frame.collect_schema()
        self.checks: list[tuple[str, pl.Expr, str]] = []

    def read(self, column: str, parse: Parse, expects: str, optional: bool = False) -> pl.Expr:
        """The parsed column; ``check`` rejects values that ``parse`` makes null.

        Args:
            expects: what a value must be, for the message.
            optional: whether a value may be missing.
        """
        if column not in self.schema:
            names = [name for name in self.schema if name != "row"]
            raise UserError(
                f"{self.path}: has no column {column!r}; there are {', '.join(names)}"
                f"{did_you_mean(column, names)}"
            )
        raw = pl.col(column)
        parsed = parse(raw)
        given = raw.is_not_null()
        if self.schema[column] == pl.String:
            given &= raw != ""
        self.checks.append((column, parsed.is_null() & (given | (not optional)), expects))
        return parsed

    def check(self) -> None:
        """Read the table once and reject the first bad value.

        Raises:
            UserError: names the file, the column and the row.
        """
        print(f"checking {self.path} ...", flush=True)
        rows = [
            pl.when(bad).then("row").min().alias(str(i))
            for i, (_, bad, _) in enumerate(self.checks)
        ]
        with readable(self.path):
            found = (
                self.frame.select(pl.len().alias("rows"), *rows).collect(engine="streaming").row(0)
            )
            if not found[0]:
                raise UserError(f"{self.path}: has no rows")
            for (column, _, expects), row in zip(self.checks, found[1:], strict=True):
                if row is not None:
                    value = self.frame.filter(pl.col("row") == row).select(column).collect().item()
                    what = "is missing" if value in (None, "") else f"is {value!r}"
                    place = f"line {row + 2}" if self.text else f"row {row}"
                    raise UserError(
                        f"{self.path}, column {column}, {place}: {what}; write {expects}"
                    )

    # ---------------------------------------------------------------- what columns can hold

    def identity(self, column: str) -> pl.Expr:
        """Users or items: anything, as text."""
        return self.read(column, _as_text, "an id")

    def number(self, column: str) -> pl.Expr:
        """Numbers that must be there."""
        return self.read(column, _as_number, "a number")

    def label(self, column: str) -> pl.Expr:
        """0 and 1, or True and False."""

        def parse(raw: pl.Expr) -> pl.Expr:
            text = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
            yes, no = text.is_in(["1", "1.0", "true"]), text.is_in(["0", "0.0", "false"])
            return pl.when(yes).then(1).when(no).then(0).cast(pl.Int8)

        return self.read(column, parse, "0 or 1")

    def time(self, column: str, form: str | None = None) -> pl.Expr:
        """Moments as whole numbers: of a date, microseconds; of a number, thousandths of it."""
        kind = self.schema.get(column)
        if kind is not None and kind.is_temporal():
            return self.read(
                column, lambda raw: raw.cast(pl.Datetime("us")).cast(pl.Int64), "a date"
            )
        first = self._first(column) if kind == pl.String else None
        numeric = first is None or pl.Series([first]).cast(pl.Float64, strict=False)[0] is not None
        if numeric and form is None:
            return self.read(
                column, lambda raw: (_as_number(raw) * 1000).cast(pl.Int64), "a number"
            )
        form = form or next((f for f in DATES if _fits(first, f)), None)
        if form is None:
            raise UserError(
                f"{self.path}, column {column}: {first!r} is no date in a form that is known; "
                "write --time-format, such as '%d.%m.%Y %H:%M'"
            )

        def parse(raw: pl.Expr) -> pl.Expr:
            return raw.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64)

        return self.read(column, parse, f"a date in the form {form}")

    def feature(self, feature: Feature) -> pl.Expr:
        """The values of a feature; they may be missing."""
        kind = self.schema.get(feature.name)
        lists = isinstance(kind, pl.List | pl.Array)
        if kind is not None and (
            (feature.kind == "embedding" and not lists)
            or (feature.kind == "sequence" and not lists and kind != pl.String)
            or (feature.kind in ("categorical", "numeric") and lists)
        ):
            raise UserError(
                f"{self.path}, column {feature.name}: is {kind}, which is no {feature.kind}"
            )
        if feature.kind == "numeric":
            return self.read(feature.name, _as_number, "a number, or declare it categorical", True)
        if feature.kind == "embedding":
            return self.read(
                feature.name, lambda raw: raw.cast(pl.List(pl.Float32)), "numbers", optional=True
            )
        if lists:
            texts = pl.List(pl.String)
            return self.read(feature.name, lambda raw: raw.cast(texts), "texts", optional=True)
        return self.read(feature.name, _as_text, "a text", optional=True)

    def guess(self, column: str) -> str:
        """The kind of a feature, from the type of its column or, in CSV, its first values."""
        kind = self.schema.get(column, pl.String)
        if isinstance(kind, pl.List | pl.Array):
            return "embedding" if kind.inner.is_float() else "sequence"
        if kind == pl.String and column in self.schema:
            values = self.frame.select(column).head(SAMPLE).collect().to_series().drop_nulls()
            whole = values.cast(pl.Int64, strict=False).null_count() == 0
            numbers = values.cast(pl.Float64, strict=False).null_count() == 0
            return "numeric" if numbers and not whole else "categorical"
        return "numeric" if kind.is_float() else "categorical"

    def _first(self, column: str) -> str | None:
        with readable(self.path):
            values = self.frame.select(pl.col(column).drop_nulls().first()).collect(
                engine="streaming"
            )
        return values.item()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around polars' reading of ``path``: its errors name the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from None


def _files(path: Path) -> tuple[list[Path], str]:
    """The files of a table and what they all end with."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    elif "*" in path.name:
        files = sorted(path.parent.glob(path.name))
    else:
        files = [path]
    if not files or not files[0].exists():
        raise UserError(
            f"{path}: no such file; name one, a folder of them, or a pattern such as '*.csv'"
        )
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1 or kinds[0] not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UserError(
            f"{path}: ends with {', '.join(kinds)}; the files must all end with one of {known}"
        )
    return files, kinds[0]


def _as_text(raw: pl.Expr) -> pl.Expr:
    text = raw.cast(pl.String)
    return pl.when(text != "").then(text)


def _as_number(raw: pl.Expr) -> pl.Expr:
    return raw.cast(pl.Float64, strict=False).fill_nan(None)


def _fits(value: str, form: str) -> bool:
    try:
        return pl.Series([value]).str.to_datetime(form, strict=False)[0] is not None
    except pl.exceptions.PolarsError:
        return False
