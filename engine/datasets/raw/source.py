"""A table of raw data in text or Parquet files, read lazily, with every value checked."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from ...common.errors import UserError
from ...loader.columns import require_columns
from .raw_files import LINE, PART, PLAIN, SHOWN, TEST, Form, Part, parts_of, readable, together

ROW = "#row"  # the number of a row, beside the table's own columns
BLANK = "blank in each column that is needed"
PLACE = "#place"  # of an entry in a list, from 0, where entries are rows
FILE_ROW = "#file row"  # the row that an entry stands in
OURS = {ROW, TEST, PART, LINE, PLACE, FILE_ROW}  # columns that no file has
SAMPLE = 10_000  # values of a column that decide how it is written
EXAMPLES = 3  # of them, in a message
Parse = Callable[[pl.Expr], pl.Expr]


class Source:
    """One file, all files of a folder, or those of a pattern (``logs/*.csv``).

    Args:
        path: ends with ``.csv``, ``.tsv`` (both also compressed) or ``.parquet``; with a separator
            any text is read.
        form: how texts are written.
        test: another path, whose rows follow those of ``path``.
        lenient: whether ``rows`` leaves bad rows out, which are an error otherwise. None if the user
            has no choice.

    Attributes:
        frame: the table, with a column ``ROW`` in front; every column of a text is text. With
            ``test`` there is also a column ``TEST``.
        schema: the type of each column of ``frame``.
        left_out: what rows are left out for, and which.
    """

    located_by = ROW  # the column with the row of a file

    def __init__(
        self,
        path: str | Path,
        form: Form = PLAIN,
        test: str | Path | None = None,
        lenient: bool | None = None,
    ) -> None:
        self.path, self.lenient = Path(path), lenient
        parts = parts_of(self.path, form, None if test is None else False)
        if test is not None:
            parts += parts_of(Path(test), form, True)
        with readable(self.path):
            self._start(together(parts).with_row_index(ROW), parts)

    def _start(self, frame: pl.LazyFrame, parts: Sequence[Part]) -> None:
        """Take a table, and the files that its rows come from."""
        self.frame, self.parts = frame, parts
        self.schema = frame.collect_schema()
        self.checks: list[tuple[str, pl.Expr, str]] = []
        self.blank = pl.lit(True)  # whether a row has none of the columns that must be there
        self.left_out: dict[str, pl.Expr] = {}
        if LINE in self.schema:
            count = len(self.schema.keys() - OURS)
            self.checks.append((LINE, pl.col(LINE).is_not_null(), f"a line of {count} fields"))

    def read(self, column: str, parse: Parse, expects: str, optional: bool = False) -> pl.Expr:
        """The parsed column; ``check`` rejects values that ``parse`` makes null.

        Args:
            expects: what a value must be, for the message.
            optional: whether a value may be missing.
        """
        given, parsed = self._given(column), parse(self.raw(column))
        if not optional:
            self.blank &= ~given
            for part in self.parts:
                names = [name for name in part.frame.collect_schema() if name not in OURS]
                require_columns(part.path, names, [column])
        self.checks.append((column, parsed.is_null() & (given | (not optional)), expects))
        return parsed

    def raw(self, column: str) -> pl.Expr:
        """A column as the file has it; texts without the blanks around them."""
        raw = pl.col(column)
        return raw.str.strip_chars() if self.kind(column) == pl.String else raw

    def _given(self, column: str) -> pl.Expr:
        """Whether a column has a value."""
        raw = self.raw(column)
        return raw.is_not_null() & (raw != "" if self.kind(column) == pl.String else True)

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """What is computed from the table; the error of a file that cannot be read names it."""
        with readable(self.path):
            return frame.collect(engine="streaming")

    def first(self, column: str, which: pl.Expr | None = None) -> pl.Series:
        """The first values of a column that are not missing, or those of some rows."""
        rows = self.frame.filter(self._given(column) if which is None else which)
        return self.collect(rows.select(self.raw(column)).head(SAMPLE)).to_series()

    def wrong(self, column: str, what: str) -> UserError:
        """The error of a column."""
        return UserError(f"{self.path}, column {column}{what}")

    def rows(self) -> pl.LazyFrame:
        """The table without rows that are blank or left out; call it when all has been read."""
        return self.frame.filter(~self._gone())

    def _gone(self) -> pl.Expr:
        bad = [bad for _, bad, _ in self.checks] if self.lenient else []
        return pl.any_horizontal(self.blank, *self.left_out.values(), *bad)

    def check(self) -> dict[str, int]:
        """Read the table once, reject the first bad value, and say how many rows are left out.

        Returns:
            The same, by the reason.

        Raises:
            UserError: names the file, the column and the row.
        """
        print(f"checking {self.path} ...", flush=True)
        flags = {f"#{i}": bad for i, (_, bad, _) in enumerate(self.checks)}
        # Texts are parsed once for each flag, although several counts need it.
        flagged = self.frame.select(
            ROW, **flags, **self.left_out, **{BLANK: self.blank}, gone=self._gone()
        )
        out = pl.any_horizontal(BLANK, *self.left_out)
        counts = {what: (pl.col(what) & ~pl.col(BLANK)).sum() for what in self.left_out}
        counts |= {"rows": pl.len(), "kept": (~pl.col("gone")).sum(), BLANK: pl.col(BLANK).sum()}
        for name in flags:
            bad = pl.col(name) & ~out
            counts[name] = bad.sum() if self.lenient else pl.when(bad).then(ROW).min()
        found = self.collect(flagged.select(**counts)).row(0, named=True)
        rows, kept = found.pop("rows"), found.pop("kept")
        for i, (column, bad, expects) in enumerate(self.checks):
            place = found.pop(f"#{i}")
            if self.lenient:
                found[f"column {column} is not {expects.split(';')[0]}"] = place
            elif place is not None:
                raise self._error(column, bad & (pl.col(ROW) == place), expects)
        left_out = {what: count for what, count in found.items() if count}
        for what, count in left_out.items():
            print(f"{self.path}: {count:,} rows are left out: {what}", flush=True)
        if not kept:
            which = "no rows that are kept" if rows else "no rows"
            raise UserError(f"{self.path} has {which}; name a table with some")
        self._warn_of_quotes(rows)
        return left_out

    def _error(self, column: str, bad: pl.Expr, expects: str) -> UserError:
        """The error of a value."""
        row, value = self.frame.filter(bad).select(self.located_by, column).head(1).collect().row(0)
        path, place = self._place(row)
        what = repr(value)[:SHOWN]
        if value in (None, ""):
            what, expects = "missing", expects.split(";")[0]
        if self.lenient is not None:
            expects += ", or add --bad-rows leave_out"
        if column == LINE:
            return UserError(f"{path}, {place} is {what}; write {expects}")
        return UserError(f"{path}, column {column}, {place}: the value is {what}; write {expects}")

    def _place(self, row: int) -> tuple[Path, str]:
        """The file of a row, and where it stands there."""
        for part in self.parts:
            count = part.frame.select(pl.len()).collect(engine="streaming").item()
            if row < count:
                break
            row -= count
        if part.first_line is None:
            return part.path, f"row {row} (the first is 0)"
        return part.path, f"line {row + part.first_line}"

    def _warn_of_quotes(self, rows: int) -> None:
        """A stray quote swallows lines up to the next one, without any error."""
        if not all(part.quoted for part in self.parts):
            return
        lines = sum(_count_lines(part.path) - (part.first_line == 2) for part in self.parts)
        if lines > rows:
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
        names = [name for name in self.schema if name not in OURS]
        numbers = 2 * sum(name.isdigit() for name in names) >= len(names)
        if numbers and not all(name in names for name in columns):
            raise UserError(
                f"{self.path} has no column {columns[0]!r}; its first line, "
                f"{', '.join(names)[:SHOWN]}, looks like a row, so name all columns with --columns"
            )
        require_columns(self.path, names, list(columns))


def examples(values: pl.Series) -> str:
    """Some unlike values of a column, for a message."""
    return ", ".join(map(repr, values.unique(maintain_order=True).head(EXAMPLES)))


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
