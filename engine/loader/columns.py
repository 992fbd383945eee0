"""Columns of Parquet files as arrays, checked: every rejection names file, column and row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..common.errors import UserError, did_you_mean

PIECE = 16_384  # rows that are read at a time


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file, or say what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path} does not exist; prepare the data first (see data/README.md)")
    with whole_file(path):
        # With its defaults, pyarrow reads all of a row group at once, and keeps it.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**18)


@contextmanager
def whole_file(path: Path) -> Iterator[None]:
    """Surround pyarrow's reading of ``path``, so that errors about a damaged file name it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a whole parquet file ({reason}); prepare or copy it again"
        ) from None


def pieces(path: Path, names: list[str], rows: int | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Columns of a file, some rows at a time, and the number of the first of these rows.

    Reading lists whole takes several times the memory and the time. There is at least one piece,
    and each has at most ``rows`` rows (default: ``PIECE``).
    """
    file, start = open_parquet(path), 0
    for group in range(file.num_row_groups):
        batches = file.iter_batches(rows or PIECE, row_groups=[group], columns=names)
        while True:
            with whole_file(path):
                batch = next(batches, None)
            if batch is None:
                break
            yield start, pa.Table.from_batches([batch])
            start += len(batch)
    if not start:
        yield 0, file.schema_arrow.empty_table().select(names)


def read_in_pieces(
    path: Path, names: list[str], rows: int, convert: Callable[[pa.Table, int], dict[str, NDArray]]
) -> dict[str, NDArray]:
    """Read whole columns into arrays, with hardly more memory than the arrays take.

    Args:
        rows: the number of rows of the file.
        convert: makes arrays of some rows, given the number of the first.
    """
    arrays: dict[str, NDArray] = {}
    for start, table in pieces(path, names):
        for name, values in convert(table, start).items():
            if start == 0:
                arrays[name] = np.empty((rows, *values.shape[1:]), values.dtype)
            arrays[name][start : start + len(values)] = values
    return arrays


def require_columns(path: Path, present: list[str], needed: list[str]) -> None:
    """Reject a file that lacks a column."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise UserError(
            f"{path}: column {missing[0]!r} is missing; there are {', '.join(present)}"
            f"{did_you_mean(missing[0], present)}"
        )


def reject(
    path: Path, column: str, first_row: int, bad: NDArray, what: Callable[[Any], str]
) -> None:
    """Raise an error about the first bad value of a column, if there is one.

    Args:
        first_row: number of the first row, for the message.
        bad: whether each value is bad, ``(rows,)`` or ``(rows, width)``.
        what: the message about the value at a place, which is an index of ``bad``.
    """
    if bad.any():
        place = np.unravel_index(bad.argmax(), bad.shape)
        raise UserError(f"{path}, column {column}, row {first_row + place[0]}: {what(place)}")


def read_feature(
    path: Path, name: str, column: pa.ChunkedArray, spec: dict[str, Any], first_row: int
) -> NDArray:
    """One checked feature column: int64 for indices, float32 for numbers and vectors.

    Args:
        spec: of the feature map; ``embedding`` and ``sequence`` columns become 2-D.
        first_row: number of the first row, for messages.
    """
    kind = spec["type"]
    _require_filled(path, name, column, first_row)
    width = {"embedding": spec.get("pretrain_dim"), "sequence": spec.get("max_len")}.get(kind)
    if width is not None:
        column = _flattened(path, name, column, width, kind, first_row)
    read = _floats if kind in ("embedding", "numeric") else integers
    values = read(path, name, column)
    if width is not None:
        values = values.reshape(-1, width)
    if read is _floats:
        reject(
            path, name, first_row, ~np.isfinite(values), lambda i: f"the value is {values[i]}; "
            "fill it in with a number"
        )  # fmt: skip
    elif kind != "meta":
        high = spec["vocab_size"] - 1
        reject(
            path, name, first_row, (values < 0) | (values > high), lambda i: f"the index {values[i]} "
            f"is outside 0 to {high}; correct vocab_size or the data"
        )  # fmt: skip
    return values


def _require_filled(path: Path, name: str, column: pa.ChunkedArray, first_row: int) -> None:
    if column.null_count:
        missing = column.is_null().to_numpy()
        reject(path, name, first_row, missing, lambda _: "the value is missing; fill it in")


def _flattened(
    path: Path, name: str, column: pa.ChunkedArray, width: int, kind: str, first_row: int
) -> pa.Array:
    """The values of lists that all have one width, one list after the other."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise UserError(f"{path}, column {name} is {lists.type}; the type {kind} needs lists")
    length = lists.value_lengths().to_numpy(zero_copy_only=False)
    size = "embedding_dim" if kind == "embedding" else "max_len"
    reject(
        path, name, first_row, length != width,
        lambda i: f"the list has {length[i]} values, but {size} is {width}",
    )  # fmt: skip
    return lists.flatten()


def _floats(path: Path, name: str, column: pa.Array) -> NDArray:
    try:
        return np.asarray(column).astype(np.float32)
    except (ValueError, TypeError):
        raise UserError(f"{path}, column {name} is {column.type}; it must hold numbers") from None


def integers(path: Path, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Whole numbers, also where they are stored as floats."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return np.asarray(column).astype(np.int64)
    if pa.types.is_floating(column.type):
        values = np.asarray(column)
        if np.array_equal(values, np.floor(values)):
            return values.astype(np.int64)
    raise UserError(f"{path}, column {name} is {column.type}; it must hold whole numbers")


def read_label(
    path: Path, name: str, column: pa.ChunkedArray, first_row: int
) -> NDArray[np.float32]:
    """The checked label column, whose values are 0 or 1, as float32."""
    values = np.asarray(column)
    if values.dtype.kind not in "iufb":
        raise UserError(f"{path}, column {name} is {column.type}; a label must be 0 or 1")
    bad = (values != 0) & (values != 1)
    reject(path, name, first_row, bad, lambda i: f"the label is {values[i]}; write 0 or 1")
    return values.astype(np.float32)


def require_contiguous(path: Path, name: str, column: pa.ChunkedArray, first_row: int) -> None:
    """Reject an index column that is not 0, 1, 2, ...: rows are found by their number."""
    _require_filled(path, name, column, first_row)
    values = integers(path, name, column)
    number = np.arange(first_row, first_row + len(values))
    reject(
        path, name, first_row, values != number,
        lambda i: f"the value is {values[i]}, but rows must be numbered 0, 1, 2, ... in order, so "
        f"that row {number[i]} has {name} {number[i]}",
    )  # fmt: skip
