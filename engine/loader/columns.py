"""Columns of parquet files as arrays, checked: every rejection names file, column and row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..common.errors import UserError, did_you_mean

PIECE = 16_384  # rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file, or say what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path}: no such file; prepare the data first (see data/README.md)")
    with whole_file(path):
        # Else pyarrow reads all of a row group at once, and keeps it.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**18)


@contextmanager
def whole_file(path: Path) -> Iterator[None]:
    """Around pyarrow's reading of ``path``: errors about a cut or damaged file name the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not a whole parquet file ({reason}); prepare or copy it again"
        ) from None


def pieces(path: Path, names: list[str], rows: int | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Columns of a file, some rows at a time, and the number of the first of these rows.

    Reading lists whole takes several times the memory and the time. There is one piece at least, of
    at most ``rows`` rows (default: ``PIECE``).
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
    """Whole columns as arrays, at hardly more memory than theirs.

    Args:
        rows: of the file.
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


def read_feature(
    path: Path, name: str, column: pa.ChunkedArray, spec: dict, first_row: int
) -> NDArray:
    """One feature column: int64 for indices, float32 for numbers and vectors; checked.

    Args:
        spec: of the feature map; ``embedding`` and ``sequence`` columns become 2-D.
        first_row: number of the first row, for messages.
    """
    kind = spec["type"]
    _require_filled(path, name, column, first_row)
    width = {"embedding": spec.get("pretrain_dim"), "sequence": spec.get("max_len")}.get(kind)
    if width is not None:
        column = _flattened(path, name, column, width, kind, first_row)
    if kind in ("embedding", "numeric"):
        values = _floats(path, name, column, width or 1, first_row)
    else:
        values = integers(path, name, column)
    if kind in ("categorical", "sequence"):
        bad = np.flatnonzero((values < 0) | (values >= spec["vocab_size"]))
        if len(bad):
            row = first_row + bad[0] // (width or 1)
            raise UserError(
                f"{path}, column {name}, row {row}: index {values[bad[0]]} is outside 0 to "
                f"{spec['vocab_size'] - 1}; correct vocab_size or the data"
            )
    return values if width is None else values.reshape(-1, width)


def _require_filled(path: Path, name: str, column: pa.ChunkedArray, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise UserError(f"{path}, column {name}, row {row}: is missing; fill it in")


def _flattened(
    path: Path, name: str, column: pa.ChunkedArray, width: int, kind: str, first_row: int
) -> pa.Array:
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise UserError(f"{path}, column {name}: is {lists.type}; type {kind} needs lists")
    length = lists.value_lengths().to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(length != width)
    if len(bad):
        what = "embedding_dim" if kind == "embedding" else "max_len"
        raise UserError(
            f"{path}, column {name}, row {first_row + bad[0]}: has {length[bad[0]]} values, "
            f"but {what} is {width}"
        )
    return lists.flatten()


def _floats(path: Path, name: str, column: pa.Array, width: int, first_row: int) -> NDArray:
    try:
        values = np.asarray(column).astype(np.float32)
    except (ValueError, TypeError):
        raise UserError(f"{path}, column {name}: is {column.type}; it must hold numbers") from None
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"{path}, column {name}, row {first_row + bad[0] // width}: is {values[bad[0]]}; "
            "fill it in with a number"
        )
    return values


def integers(path: Path, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Whole numbers, also where they are stored as floats."""
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return np.asarray(column).astype(np.int64)
    if pa.types.is_floating(column.type):
        values = np.asarray(column)
        if np.array_equal(values, np.floor(values)):
            return values.astype(np.int64)
    raise UserError(f"{path}, column {name}: is {column.type}; it must hold whole numbers")


def read_label(
    path: Path, name: str, column: pa.ChunkedArray, first_row: int
) -> NDArray[np.float32]:
    """The label column: 0 or 1, as float32."""
    values = np.asarray(column)
    if values.dtype.kind not in "iufb":
        raise UserError(f"{path}, column {name}: is {column.type}; a label is 0 or 1")
    bad = np.flatnonzero(~((values == 0) | (values == 1)))
    if len(bad):
        raise UserError(
            f"{path}, column {name}, row {first_row + bad[0]}: label is {values[bad[0]]}; write 0 or 1"
        )
    return values.astype(np.float32)


def require_contiguous(path: Path, name: str, column: pa.ChunkedArray, first_row: int) -> None:
    """Reject an index column that is not 0, 1, 2, ...: rows are found by their number."""
    _require_filled(path, name, column, first_row)
    values = integers(path, name, column)
    bad = np.flatnonzero(values != np.arange(first_row, first_row + len(values)))
    if len(bad):
        row = first_row + bad[0]
        raise UserError(
            f"{path}, column {name}, row {row}: is {values[bad[0]]}; rows must be numbered "
            f"0, 1, 2, ... in order, so that row {row} has {name} {row}"
        )


def shortened(values: NDArray) -> str:
    """The first few values, for a message."""
    return np.array2string(np.atleast_1d(values)[:4], precision=3)
