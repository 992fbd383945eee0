"""Number the users and the items of a log, and write its events as numbers in blocks of users.

The log is read once. Each block holds about ``BLOCK`` events, and its users follow those of the block
before. So blocks can be sorted one by one, and time grows with the log while memory does not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq

from ..common.errors import UserError
from .like import Prepared

BLOCK = 4_000_000  # events that are sorted at a time
IN_MEMORY = 1_000_000  # times that are sorted at once, to find a moment
SLICES = 10_000


class Numbered(NamedTuple):
    """A log as numbers.

    Attributes:
        users: ``user_index, user``, the number of ``events`` and the ``block`` of each user.
        items: ``item``, and ``row``, the row of its earliest event; row i is the item of index i + 1.
            Items that come from another data set have no ``row``.
        occurring: how many of the items occur in the log.
        blocks: folder of the blocks, see ``read``.
    """

    users: pl.DataFrame
    items: pl.DataFrame
    occurring: int
    blocks: Path

    def spans(self) -> list[tuple[int, int, int]]:
        """Each block, with the first and the last of its users."""
        index = pl.col("user_index")
        spans = self.users.group_by("block").agg(index.min(), index.max().alias("last"))
        return spans.sort("block").rows()

    def read(self, block: int) -> pl.DataFrame:
        """The events of a block, with ``user_index`` and ``item_index``, in any order."""
        return pl.read_parquet(self.blocks / f"block={block}", hive_partitioning=False)

    def replace(self, block: int, events: pl.DataFrame) -> None:
        """Write the events of a block anew."""
        folder = self.blocks / f"block={block}"
        shutil.rmtree(folder)
        folder.mkdir()
        events.write_parquet(folder / "events.parquet", compression="lz4")


def number(events: pl.LazyFrame, source: str, scratch: Path, like: Prepared | None) -> Numbered:
    """Write the events of a log as numbers, block by block.

    Args:
        events: see ``interactions.Log``.
        source: names the log in messages.
        scratch: folder for temporary files.
        like: a data set whose items keep their indices; without one, the ids are sorted.
    """
    raw, blocks = scratch / "raw.parquet", scratch / "blocks"
    print("reading the log ...", flush=True)
    events.sink_parquet(raw, compression="lz4", maintain_order=False)
    events = pl.scan_parquet(raw).drop_nulls(["user", "item", "time"])
    by_user = events.group_by("user").agg(pl.len().alias("events"))
    users = by_user.collect(engine="streaming").sort("user").with_row_index("user_index")
    users = users.with_columns(block=(pl.col("events").cum_sum() - 1) // BLOCK)
    earliest = events.group_by("item").agg(pl.col("time").min())
    first = events.join(earliest, on=["item", "time"]).group_by("item").agg(pl.col("row").min())
    items = first.collect(engine="streaming").sort("item")
    count = f"{users['events'].sum():,} events of {len(users):,} users and {len(items):,} items"
    print(count, flush=True)
    if left_out := pq.read_metadata(raw).num_rows - users["events"].sum():
        print(f"{left_out:,} events without a user, an item or a time are left out", flush=True)
    if users.is_empty():
        raise UserError(f"{source} has no events; name data with some")
    occurring = len(items)
    items = items if like is None else like.with_items(items)
    items = items.with_row_index("item_index", 1)
    events = events.join(users.lazy().drop("events"), on="user")
    events = events.join(items.lazy().select("item", "item_index"), on="item")
    keyed = pl.PartitionBy(blocks, key="block", include_key=False)
    events = events.drop("user", "item")
    events.sink_parquet(keyed, compression="lz4", maintain_order=False, mkdir=True)
    raw.unlink()
    return Numbered(users, items.select("item", "row"), occurring, blocks)


def time_at(times: pl.LazyFrame, place: int) -> Any:
    """The number at a place of the sorted column ``time``, of which few are in memory at once.

    The range of the numbers is cut into slices of one width. Only the slice that holds the place is
    sorted or, while it is large, cut again.
    """
    time = pl.col("time")
    while True:
        count, low, high = _one_row(times.select(pl.len(), time.min(), time.max().alias("high")))
        if count <= IN_MEMORY or low == high:
            return times.sort("time").slice(place, 1).collect().item()
        slice_of = ((time - low) / (high - low) * SLICES).cast(pl.Int64)
        sizes = times.group_by(slice_of).len().collect(engine="streaming").sort("time")
        below = sizes.with_columns(below=pl.col("len").cum_sum() - pl.col("len"))
        chosen, _, skipped = below.filter(pl.col("below") <= place).row(-1)
        times, place = times.filter(slice_of == chosen), place - skipped


def _one_row(frame: pl.LazyFrame) -> tuple[Any, ...]:
    return frame.collect(engine="streaming").row(0)
