"""The names of items and categories, where the preparation of the data has kept them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from numpy.typing import NDArray


def item_names(
    folder: Path, label_N: NDArray | None
) -> tuple[dict[int, str], dict[int | None, str]]:
    """Names of items by index, and of categories by number; empty where they are not known.

    Args:
        folder: folder of the prepared data; its ``item_ids.parquet`` may have ``name`` and ``category``.
        label_N: category of each item of the catalogue, 0 unknown.
    """
    file = folder / "item_ids.parquet"
    if not file.exists() or "name" not in pl.read_parquet_schema(file):
        return {}, {}
    known = pl.read_parquet(file, columns=["item_index", "name", "category"])
    index_N = known["item_index"].to_list()
    names = dict(zip(index_N, known["name"], strict=True))
    if label_N is None:
        return names, {}
    numbers = [int(label_N[index]) for index in index_N]
    return names, dict(zip(numbers, known["category"], strict=True))
