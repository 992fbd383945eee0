"""Columns of Parquet files as arrays, checked: every rejection names file, column and row."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..common.errors import UserError, did_you_mean

Arrays = dict[str, NDArray]
PIECE = 16_384  # rows that are read at a time


def open_parquet(path: Path, needed: Iterable[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file that has the columns ``needed``, or say what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path} does not exist; prepare the data first (see data/README.md)")
    with whole_file(path):
        # With its defaults, pyarrow reads all of a row group at once, and keeps it.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**18)
    require_columns(path, file.schema_arrow.names, needed)
    return file


@contextmanager
def whole_file(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors while it reads ``path`` into a UserError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a whole parquet file ({reason}); prepare or copy it again"
        ) from None


def require_columns(path: Path, present: list[str], needed: Iterable[str]) -> None:
    """Reject a file that lacks a column, or has one twice."""
    if twice := [name for name in present if present.count(name) > 1]:
        raise UserError(f"{path} has two columns {twice[0]!r}; leave one out, or rename it")
    for name in needed:
        if name not in present:
            raise UserError(
                f"{path}: column {name!r} is missing; there are {', '.join(present)}"
                f"{did_you_mean(name, present)}"
            )


def pieces(path: Path, names: list[str], rows: int | None = None) -> "Iterator[dict[str, Column]]":
    """Give the columns of a file, some rows at a time.

    Reading lists whole takes several times the memory and the time. A file without rows gives one
    empty piece. Other pieces have at most ``rows`` rows (default: ``PIECE``).
    """
    file, start = open_parquet(path, names), 0
    with whole_file(path):
        for batch in file.iter_batches(rows or PIECE, columns=names):
            yield columns_of(path, pa.Table.from_batches([batch]), start)
            start += len(batch)
    if not start:
        yield columns_of(path, file.schema_arrow.empty_table().select(names))


def read_in_pieces(
    path: Path, names: list[str], convert: "Callable[[dict[str, Column]], Arrays]"
) -> Arrays:
    """Read whole columns into arrays, with hardly more memory than the arrays take.

    ``convert`` makes arrays of some rows.
    """
    rows, arrays = open_parquet(path, names).metadata.num_rows, {}
    for piece in pieces(path, names):
        start = piece[names[0]].start
        for name, values in convert(piece).items():
            if start == 0:
                arrays[name] = np.empty((rows, *values.shape[1:]), values.dtype)
            arrays[name][start : start + len(values)] = values
    return arrays


def columns_of(path: Path, table: pa.Table, start: int = 0) -> "dict[str, Column]":
    """The columns of some rows of a file, by name; ``start`` is the number of the first row."""
    columns = zip(table.column_names, table.columns, strict=True)
    return {name: Column(path, name, values.combine_chunks(), start) for name, values in columns}


@dataclass(frozen=True)
class Column:
    """Some rows of a column, to be checked and read.

    Attributes:
        path: the file.
        name: the column's name.
        values: the values as the file has them.
        start: the number of the first row, which messages need.
    """

    path: Path
    name: str
    values: pa.Array
    start: int

    def reject(self, bad: NDArray, what: str | Callable[[Any], str]) -> None:
        """Raise an error about the first bad value, if there is one.

        Args:
            bad: whether each value is bad, ``(rows,)`` or ``(rows, width)``.
            what: the message, or a function that says it of a place, which is an index of ``bad``.
        """
        if bad.any():
            place = np.unravel_index(bad.argmax(), bad.shape)
            row, text = self.start + place[0], what if isinstance(what, str) else what(place)
            raise UserError(f"{self.path}, column {self.name}, row {row}: {text}")

    def feature(self, spec: dict[str, Any]) -> NDArray:
        """The values of a feature: int64 for indices, float32 for numbers and vectors.

        Args:
            spec: the feature's entry in the feature map. An ``embedding`` or a ``sequence`` becomes
                2-D.
        """
        kind = spec["type"]
        self.reject(np.asarray(self.values.is_null()), "the value is missing; fill it in")
        width = {"embedding": spec.get("pretrain_dim"), "sequence": spec.get("max_len")}.get(kind)
        flat = self if width is None else self._flattened(width, kind)
        numbers = kind in ("embedding", "numeric")
        values = flat._numbers("numbers").astype(np.float32) if numbers else flat.integers()
        if width is not None:
            values = values.reshape(-1, width)
        if numbers:
            wrong = "fill it in with a number"
            self.reject(~np.isfinite(values), lambda i: f"the value is {values[i]}; {wrong}")
        elif kind != "meta":
            vocabulary = "the vocabulary; correct vocab_size or the data"
            self.require_within(values, 0, spec["vocab_size"] - 1, vocabulary)
        return values

    def integers(self) -> NDArray[np.int64]:
        """Whole numbers, also where they are stored as floats."""
        values = self._numbers("whole numbers")
        if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
            raise self._wrong_type("whole numbers")
        return values.astype(np.int64)

    def label(self) -> NDArray[np.float32]:
        """The values 0 and 1 of a label."""
        values = self._numbers("0 or 1, for it is a label")
        self.reject(~np.isin(values, (0, 1)), lambda i: f"the label is {values[i]}; write 0 or 1")
        return values.astype(np.float32)

    def lists(self) -> pa.ListArray | pa.LargeListArray:
        """Lists, none of which is missing or has missing values."""
        lists = self.values
        if pa.types.is_fixed_size_list(lists.type):
            lists = lists.cast(pa.list_(lists.type.value_type))
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
            raise self._wrong_type("lists")
        self.reject(np.asarray(lists.is_null()), "the list is missing; write an empty one")
        items = lists.flatten()
        if items.null_count:
            first = np.flatnonzero(items.is_null())[0]
            holds_it = np.cumsum(np.asarray(lists.value_lengths())) > first
            self.reject(holds_it, "the list has missing values; leave them out, or fill them in")
        return lists

    def require_within(self, x: NDArray, low: int, high: int, what: str) -> None:
        """Reject an index ``x`` of this column that is not from ``low`` to ``high``."""
        wrong = f"outside {low} to {high}, {what}"
        self.reject((x < low) | (x > high), lambda i: f"the value is {x[i]}, which is {wrong}")

    def require_numbered(self) -> None:
        """Reject an index column that is not 0, 1, 2, ...: rows are found by their number."""
        self.reject(np.asarray(self.values.is_null()), "the value is missing; fill it in")
        values = self.integers()
        number = np.arange(self.start, self.start + len(values))
        wrong = "rows must be numbered 0, 1, 2, ... in order"
        self.reject(values != number, lambda i: f"the value is {values[i]}, but {wrong}")

    def _flattened(self, width: int, kind: str) -> "Column":
        """The values of lists that all have one width, one list after the other."""
        lists = self.lists()
        length = np.asarray(lists.value_lengths())
        size = "embedding_dim" if kind == "embedding" else "max_len"
        wrong = f"values, but {size} is {width}"
        self.reject(length != width, lambda i: f"the list has {length[i]} {wrong}")
        return replace(self, values=lists.flatten())

    def _numbers(self, what: str) -> NDArray:
        values = np.asarray(self.values)
        if values.dtype.kind not in "iufb":
            raise self._wrong_type(what)
        return values

    def _wrong_type(self, what: str) -> UserError:
        return UserError(
            f"{self.path}, column {self.name} is {self.values.type}; it must hold {what}"
        )
