"""The files of a raw table, and the one lazy table that they are together.

Text files come as columns of texts. Files may have unlike columns, or columns of other types. Folders
such as ``dt=2024-01-01`` hold the value of a column. Hidden files are passed over.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from glob import has_magic
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from ...common.errors import UserError

TEST = "#test"  # whether a row is of the test table
PART = "#part"  # the file, or else the folder, that holds all rows of a row's user
LINE = "#line"  # a line of a text that polars cannot cut into fields
SEPARATORS = {".csv": ",", ".tsv": "\t"}
GUESSES = (
    "\t",
    ";",
    "|",
    ",",
)  # separators that a first line may have, where its ending tells none
PARQUET = ".parquet"
ENDINGS = (*SEPARATORS, PARQUET)
COMPRESSED = (".gz", ".zst")
NULLS = ("NULL", "null", "\\N", "NaN", "nan", "None", "<NA>")  # how exports write a missing value
NEVER = "\0"  # a separator that no text has
HEAD = 100  # rows that tell whether the first line is a header
SHOWN = 300  # characters of a file's content that a message shows
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Form:
    """How the files of a table are written.

    Attributes:
        separator: what separates the fields in files whose first line has it. In others, and without
            it, the ending and the first line tell it.
        quotes: whether fields may be quoted; those of a ``.tsv`` never are.
        columns: names of all columns, where no header names them.
        partitioned: whether rows are to have a column ``PART``.
        encoding: of texts that are not UTF-8, which are read at once.
    """

    separator: str | None = None
    quotes: bool = True
    columns: Sequence[str] = ()
    partitioned: bool = False
    encoding: str | None = None


PLAIN = Form()


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Attributes:
        path: of the file.
        frame: its rows.
        first_line: the line of the first row; None in Parquet.
        quoted: whether a stray quote could swallow lines of it.
    """

    path: Path
    frame: pl.LazyFrame
    first_line: int | None
    quoted: bool = False


def parts_of(path: Path, form: Form, test: bool | None = None) -> list[Part]:
    """The files of a path, in the order of their names.

    Args:
        path: a file, a folder with all below it, or a pattern such as ``logs/**/*.csv``.
        test: what the column ``TEST`` of their rows says, if there is to be one.
    """
    parts, root = [], _root(path)
    for file in _files(path, root, form.separator):
        with readable(file):
            part = _parquet(file) if _ending(file) == PARQUET else _text(file, form)
            frame = part.frame.rename(str.strip)
            folders, more = file.relative_to(root).parts[:-1], {}
            for name, sign, value in (folder.partition("=") for folder in folders):
                if name and sign and name not in frame.collect_schema():
                    more[name] = pl.lit(None if value == NO_VALUE else unquote(value), pl.String)
            if form.partitioned:
                more[PART] = pl.lit((*folders, file.name)[0])
            if test is not None:
                more[TEST] = pl.lit(test)
            parts.append(replace(part, frame=frame.with_columns(**more)))
    return parts


def together(parts: Sequence[Part]) -> pl.LazyFrame:
    """The rows of all files, one file after the other. What a file lacks is missing there."""
    schemas: list[dict[str, Any]] = [dict(part.frame.collect_schema()) for part in parts]
    kinds: dict[str, Any] = {}
    for name in dict.fromkeys(name for schema in schemas for name in schema):
        kinds[name] = reduce(_common, [schema[name] for schema in schemas if name in schema])
    frames = [
        part.frame.cast({name: kinds[name] for name, kind in schema.items() if kind != kinds[name]})
        for part, schema in zip(parts, schemas, strict=True)
    ]
    return pl.concat(frames, how="diagonal")


def _common(first: Any, second: Any) -> Any:
    """A type that holds the values of two, without rounding a number."""
    if first == second or pl.Null in (first, second):
        return second if first == pl.Null else first
    if isinstance(first, pl.List) and isinstance(second, pl.List):
        return pl.List(_common(first.inner, second.inner))
    whole = first.is_integer() and second.is_integer()
    if whole and pl.UInt64 not in (first, second):
        return pl.Int64()
    if first.is_float() and second.is_float():
        return pl.Float64()
    if first.is_temporal() and second.is_temporal():
        return pl.Datetime("us")
    return pl.String()


def _parquet(file: Path) -> Part:
    frame = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    schema = frame.collect_schema()
    texts = [_given(name) for name, kind in schema.items() if kind == pl.String]
    fractions = [pl.col(name).fill_nan(None) for name, kind in schema.items() if kind.is_float()]
    return Part(file, frame.with_columns(*texts, *fractions), None)


def _text(file: Path, form: Form) -> Part:
    scan = partial(pl.scan_csv, file, infer_schema=False, glob=False)
    if form.encoding:
        whole = pl.LazyFrame({LINE: file.read_text(form.encoding).splitlines()}, {LINE: pl.String})
    else:
        whole = scan(has_header=False, separator=NEVER, quote_char=None)
    line = "".join(whole.head(1).collect().to_series().drop_nulls())
    separator = _separator(line, _ending(file), form)
    lines = form.encoding is not None or len(separator.encode()) > 1
    quoted = form.quotes and _ending(file) != ".tsv" and not lines
    columns = list(form.columns)
    if lines:
        frame = _cut(whole, columns or [*map(str, range(1 + line.count(separator)))], separator)
    else:
        quote, nulls = '"' if quoted else None, list(NULLS)
        scan = partial(scan, separator=separator, quote_char=quote, null_values=nulls)
        frame = scan(has_header=False)
    first = frame.select(pl.exclude(LINE)).head(HEAD).collect()
    if not len(first):
        raise UserError(f"{file} is empty; name a file with rows")
    names = [str(name or "").strip() for name in first.row(0)]
    if columns and len(names) != len(columns):
        raise UserError(
            f"{file} has {len(names)} columns, and --columns names {len(columns)}: "
            f"{', '.join(columns)}; name all of them in order"
        )
    if not columns and (double := [name for name in names if name and names.count(name) > 1]):
        raise UserError(
            f"{file} has two columns {double[0]!r}; rename one, or name all columns with --columns if "
            "the first line is a row"
        )
    header = columns in ([], names)
    if not header and _is_header(first, columns):
        raise UserError(
            f"{file} has a header, {', '.join(names)[:SHOWN]}, and --columns is for files without one; "
            "write the names of the header, or remove it"
        )
    if header and not lines:
        frame = scan(has_header=True)
    else:
        frame = frame.slice(header).rename(dict(zip(first.columns, columns or names, strict=True)))
    return Part(file, frame, 1 + header, quoted and file.suffix not in COMPRESSED)


def _separator(line: str, ending: str, form: Form) -> str:
    """What separates the fields of a file that begins with a line."""
    named = [unescaped(form.separator)] if form.separator else []
    guesses = [*named, SEPARATORS.get(ending, ","), *GUESSES]
    count = len(form.columns) - 1
    fitting = (s for s in guesses if (line.count(s) == count if form.columns else s in line))
    return next(fitting, guesses[0])


def _is_header(first: pl.DataFrame, columns: list[str]) -> bool:
    """Whether the first of some rows names columns, in other words than those given.

    It has no numbers then. And it names a column as given but for capitals, or a column has nothing
    but numbers below it.
    """
    number = first.select(pl.all().cast(pl.Float64, strict=False).is_not_null())
    names, below = first.row(0), number[1:].select(pl.all().all() & (pl.len() > 0))
    same = [str(name).lower() == own.lower() for name, own in zip(names, columns, strict=True)]
    return not any(number.row(0)) and (any(same) or (all(names) and any(below.row(0))))


def _cut(lines: pl.LazyFrame, names: Sequence[str], separator: str) -> pl.LazyFrame:
    """Cut lines into fields; ``LINE`` stays, and is cleared where the line has as many as it must."""
    line = pl.nth(0)
    fields = line.str.strip_suffix("\r").str.split(separator)
    wrong = pl.when(fields.list.len() != len(names)).then(line)
    each = {name: fields.list.get(i, null_on_oob=True) for i, name in enumerate(names)}
    return lines.select(wrong.alias(LINE), **each).with_columns(map(_given, names))


def _given(column: str) -> pl.Expr:
    """A column of texts, null where the text says that there is no value."""
    text = pl.col(column)  # comparisons stream, which ``is_in`` and ``replace`` do not
    return pl.when(~pl.any_horizontal(text == null for null in NULLS)).then(text).alias(column)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Surround polars' reading of ``path``, so that its errors name the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:SHOWN]
        if "ragged" in reason:
            reason = "a line has more fields than the first; if stray quotes do it, add --no-quotes"
        raise UserError(f"{path} cannot be read ({reason}); mend it, or name another") from None


def unescaped(separator: str) -> str:
    """A separator, where ``\\t`` and ``\\x01`` may be written so."""
    try:
        return separator.encode().decode("unicode_escape") if separator[:1] == "\\" else separator
    except UnicodeDecodeError:
        known = r"\t or \x01, or \\\\ for a backslash"
        raise UserError(f"the separator {separator} is no character; write {known}") from None


def _root(path: Path) -> Path:
    """The folder that the files of a path lie in: the longest without a pattern."""
    if path.is_dir():
        return path
    parents = [path.parent, *path.parent.parents]
    return path.parent if path.exists() else next(p for p in parents if not has_magic(str(p)))


def _files(path: Path, root: Path, separator: str | None) -> list[Path]:
    """The files of a table, which have one ending. They are not hidden, and have some content."""
    found = [path] if path.is_file() else []
    if not found:
        pattern = "**/*" if path.is_dir() else str(path.relative_to(root))
        for file in sorted(root.glob(pattern)):
            hidden = any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
            known = separator is not None or _ending(file) in ENDINGS
            if known and not hidden and file.is_file() and file.stat().st_size:
                found.append(file)
    endings = sorted({_ending(file) for file in found})
    if not found:
        raise UserError(
            f"{path} does not exist, or is a folder without tables; name a file that ends with "
            f"{', '.join(ENDINGS)}, a folder of such files, or a pattern such as '*.csv'"
        )
    if len(endings) > 1 or (endings[0] not in ENDINGS and separator is None):
        raise UserError(
            f"{path} ends with {', '.join(endings)}; all files must end with one of "
            f"{', '.join(ENDINGS)}, or write --separator"
        )
    return found


def _ending(file: Path) -> str:
    """The ending of a file, without that of a compression."""
    name = file.name.lower()
    for compression in COMPRESSED:
        name = name.removesuffix(compression)
    return Path(name).suffix
