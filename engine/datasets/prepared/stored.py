"""Read a table of a prepared data set."""

from pathlib import Path

import polars as pl

from ..raw.raw_files import readable


def read_stored(folder: Path, name: str, columns: list[str] | None = None) -> pl.DataFrame:
    """The table ``<name>.parquet`` of a prepared folder, or some of its columns.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / f"{name}.parquet"
    with readable(path):
        return pl.read_parquet(path, columns=columns, glob=False)
