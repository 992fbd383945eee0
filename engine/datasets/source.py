"""A table of raw data in text or Parquet files, read lazily, with every value checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import polars as pl

from ..common.errors import UserError
from ..loader.columns import require_columns

ROW = "#row"  # the number of a row, beside the table's own columns
TEST = "#test"  # whether a row is of the test table
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
ENDINGS = (*SEPARATORS, PARQUET)
SHOWN = 300  # characters of a file's content that a message shows
Parse = Callable[[pl.Expr], pl.Expr]


class Source:
    """One file, all files of a folder, or those of a pattern (``logs/*.csv``).

    Args:
        path: ends with ``.csv``, ``.tsv`` (both also ``.gz``) or ``.parquet``; with a ``separator``
            any text is read.
        separator: what separates the fields of a text; by default the ending tells it.
        quotes: whether fields of a text may be quoted; those of a ``.tsv`` never are.
        columns: names of all columns of a text that has no header.
        test: another path, whose rows follow those of ``path``.

    Attributes:
        frame: the table, with a column ``ROW`` in front; every column of a text is text. With
            ``test`` there is also a column ``TEST``.
        schema: the type of each column of ``frame``.
    """

    quoted: Sequence[Path] = ()  # files whose lines can be counted, to find stray quotes

    def __init__(
        self,
        path: str | Path,
        separator: str | None = None,
        quotes: bool = True,
        columns: Sequence[str] = (),
        test: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        scan = partial(self._scan, separator=separator, quotes=quotes, columns=columns)
        with readable(self.path):
            frame, ending = scan(self.path)
        if test:
            with readable(Path(test)):
                tested, _ = scan(Path(test))
            frame = pl.concat(
                [
                    frame.with_columns(pl.lit(False).alias(TEST)),
                    tested.with_columns(pl.lit(True).alias(TEST)),
                ],
                how="diagonal_relaxed",
            )
        with readable(self.path):
            first = None if ending == PARQUET else 1 if columns else 2
            self._start(frame.with_row_index(ROW), first)

    def _scan(
        self, path: Path, separator: str | None, quotes: bool, columns: Sequence[str]
    ) -> tuple[pl.LazyFrame, str]:
        """The table of a path, and the ending of its files."""
        files, ending = _files(path, separator)
        if ending == PARQUET:
            return pl.scan_parquet(files, glob=False), ending
        quoted = quotes and ending != ".tsv"
        if quoted and not any(file.suffix == ".gz" for file in files):
            self.quoted = [*self.quoted, *files]
        frame = pl.scan_csv(
            files,
            separator=separator or SEPARATORS[ending],
            quote_char='"' if quoted else None,
            has_header=not columns,
            infer_schema=False,
            glob=False,
        )
        if columns:
            found = frame.collect_schema().names()
            if len(found) != len(columns):
                raise UserError(
                    f"{path} has {len(found)} columns, and --columns names {len(columns)}: "
                    f"{', '.join(columns)}; name all of them in order"
                )
            frame = frame.rename(dict(zip(found, columns, strict=True)))
        return frame, ending

    def _start(self, frame: pl.LazyFrame, first_line: int | None) -> None:
        """Take a table; ``first_line`` is the line of a text that holds the first row."""
        self.frame, self.first_line = frame, first_line
        self.schema = frame.collect_schema()
        self.checks: list[tuple[str, pl.Expr, str]] = []
        self.blank = pl.lit(True)  # whether a row has none of the columns that must be there

    def read(self, column: str, parse: Parse, expects: str, optional: bool = False) -> pl.Expr:
        """The parsed column; ``check`` rejects values that ``parse`` makes null.

        Args:
            expects: what a value must be, for the message.
            optional: whether a value may be missing.
        """
        raw = pl.col(column)
        given = raw.is_not_null()
        if self.kind(column) == pl.String:
            given &= raw != ""
        parsed = parse(raw)
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
            lines = sum(map(_count_lines, self.quoted)) - len(self.quoted) * (self.first_line == 2)
        if not kept:
            raise UserError(f"{self.path} has no rows; name a table with some")
        for (column, bad, expects), row in zip(self.checks, found, strict=True):
            if row is not None:
                shown = self.frame.filter((pl.col(ROW) == row) & bad).select(column).head(1)
                value = shown.collect().to_series().to_list()[0]
                what = "missing" if value in (None, "") else repr(value)[:SHOWN]
                place = f"row {row} (the first is 0)"
                if self.first_line is not None:
                    place = f"line {row + self.first_line}"
                raise UserError(
                    f"{self.path}, column {column}, {place}: the value is {what}; write {expects}"
                )
        if lines > rows:  # a stray quote swallows lines up to the next one, without any error
            print(
                f"warning: {self.path}: {lines:,} lines are {rows:,} rows, because quoted texts span "
                "several lines; if stray quotes do it, add --no-quotes",
                file=sys.stderr,
            )

    def kind(self, column: str) -> pl.DataType:
        """The type of a column, which must be there."""
        self.require(column)
        return self.schema[column]

    def require(self, *columns: str) -> None:
        """Reject a table that lacks a column."""
        names = [name for name in self.schema if name != ROW]
        other = next((s for s in ";\t|," if len(names) == 1 and s in names[0]), None)
        if other and names != list(columns):
            raise UserError(
                f"{self.path} has one column, {names[0][:SHOWN]!r}, which looks separated by {other!r}; "
                "write --separator"
            )
        require_columns(self.path, names, list(columns))


class Lines(Source):
    """A text whose first line does not name the columns, such as the older MovieLens files.

    Args:
        path: of the file, in Latin-1.
        columns: all that there are, in order.
        separator: what stands between the fields; polars itself reads only those of one byte.

    Raises:
        UserError: a line has another number of fields.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], separator: str) -> None:
        self.path = path
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


def _count_lines(file: Path) -> int:
    lines, last = 0, b"\n"
    with open(file, "rb") as content:
        while block := content.read(1 << 24):  # a table may be larger than memory
            lines, last = lines + block.count(b"\n"), block
    return lines + (not last.endswith(b"\n"))


def _files(path: Path, separator: str | None) -> tuple[list[Path], str]:
    """The files of a table, and the ending that all of them have."""
    with readable(path):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if _ending(file) in ENDINGS)
        else:  # the name may be a pattern
            files = [path] if path.exists() else sorted(path.parent.glob(path.name))
    if not files:
        raise UserError(
            f"{path} does not exist, or is a folder without tables; name a file that ends with "
            f"{', '.join(ENDINGS)}, a folder of such files, or a pattern such as '*.csv'"
        )
    found = sorted({_ending(file) for file in files})
    if len(found) > 1 or (found[0] not in ENDINGS and separator is None):
        raise UserError(
            f"{path} ends with {', '.join(found)}; all files must end with one of "
            f"{', '.join(ENDINGS)}, or write --separator"
        )
    return files, found[0]


def _ending(file: Path) -> str:
    """The ending of a file, without that of a compression."""
    return Path(file.name.lower().removesuffix(".gz")).suffix
