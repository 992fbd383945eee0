"""Number the users and the items of a log, and write its events as numbers in blocks of users.

The log is read once. Each block holds about as many events as the memory allows, and its users follow
those of the block before. So blocks can be sorted one by one, and time grows with the log while memory
does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...common.errors import UserError
from ..raw.raw_files import PART
from .like import Prepared
from .samples import Span

BLOCK = 4_000_000  # events that are sorted at a time; more gain nothing
ROWS = 2**48  # more than a log has
LEAST = 100_000  # events of a block, however little memory there is
# Bytes, measured on logs of 2 to 50 million events: of the program, and of each user and each item.
PROGRAM, ID = 600 * 2**20, 200
# How often an event is in memory while its block is sorted, and how often each of its negatives is.
COPIES, NEGATIVE_COPIES = 14, 6


class Numbered(NamedTuple):
    """A log as numbers.

    Attributes:
        users: ``user_index, user``, the number of ``events`` and the ``block`` of each user.
        items: ``item``, and ``row``, the row of its earliest event; row i is the item of index i + 1.
            Items that come from another data set have no ``row``.
    """

    users: pl.DataFrame
    items: pl.DataFrame

    def spans(self) -> list[Span]:
        """All blocks in order."""
        index = pl.col("user_index")
        spans = self.users.group_by("block").agg(index.min(), index.max().alias("last"))
        return [Span(*row) for row in spans.sort("block").iter_rows()]


def number(
    events: pl.LazyFrame,
    source: str,
    scratch: Path,
    like: Prepared | None,
    memory: float,
    negatives: int,
) -> Numbered:
    """Write the events of a log as numbers, block by block, into the folder ``blocks`` of ``scratch``.

    Args:
        events: see ``log.Log``.
        source: names the log in messages.
        scratch: folder for temporary files.
        like: a data set whose items keep their indices; without one, the ids are sorted.
        memory: GiB that blocks should be made for.
        negatives: how many are drawn for each event.
    """
    rows = events.select(pl.len()).collect(engine="streaming").item()
    events = events.drop_nulls(["user", "item", "time"])
    users = _users(events)
    # The least time and, of these, the least row: one number, since joins would hold many events.
    key = pl.col("time").cast(pl.Int128) * ROWS + pl.col("row")
    first = events.group_by("item").agg(key.min().alias("row")).collect(engine="streaming")
    items = first.with_columns((pl.col("row") % ROWS).cast(pl.Int64)).sort("item")
    count = users["events"].sum()
    print(f"{count:,} events of {len(users):,} users and {len(items):,} items", flush=True)
    if left_out := rows - count:
        print(f"{left_out:,} events without a user, an item or a time are left out", flush=True)
    if users.is_empty():
        raise UserError(
            f"{source} has no events; name data with some, or more users with --sample-users"
        )
    most = _events_at_a_time(events, len(users) + len(items), memory, negatives)
    users = users.with_columns(block=_blocks(users, source, most))
    items = items if like is None else like.with_items(items)
    items = items.with_row_index("item_index", 1)
    events = events.join(users.lazy().select("user", "user_index", "block"), on="user")
    events = events.join(items.lazy().select("item", "item_index"), on="item")
    keyed = pl.PartitionBy(scratch / "blocks", key="block", include_key=False)
    events = events.drop("user", "item", PART, strict=False)
    events.sink_parquet(keyed, compression="lz4", maintain_order=False, mkdir=True)
    return Numbered(users, items.select("item", "row"))


def _users(events: pl.LazyFrame) -> pl.DataFrame:
    """The users of a log in the order of their ids; of a partitioned log, part after part."""
    counts, order = {"events": pl.len()}, ["user"]
    if PART in events.collect_schema():
        part = pl.col(PART)
        counts, order = counts | {"part": part.min(), "other": part.max()}, ["part", "user"]
    users = events.group_by("user").agg(**counts).collect(engine="streaming")
    return users.sort(order).with_row_index("user_index")


def _events_at_a_time(events: pl.LazyFrame, ids: int, memory: float, negatives: int) -> int:
    """How many events a block may have; see ``number``."""
    some = events.drop("user", "item", PART, strict=False).head(LEAST).collect()
    width = 8 + some.estimated_size() / len(some)  # two numbers stand for user and item
    each, free = width * (COPIES + NEGATIVE_COPIES * negatives), spare(memory, ids)
    if (lacking := LEAST * each - free) > 0:
        needed = memory + lacking / 2**30
        print(f"{ids:,} users and items need about {needed:.1f} GiB of memory", flush=True)
    return int(min(BLOCK, max(LEAST, free / each)))


def spare(memory: float, ids: int = 0) -> float:
    """The bytes that some GiB leave to events, beside the program and so many users and items."""
    return memory * 2**30 - PROGRAM - ID * ids


def _blocks(users: pl.DataFrame, source: str, most: int) -> pl.Series:
    """The block of each user: of about ``most`` events or, in a partitioned log, the part."""
    if "part" not in users.columns:
        return (users["events"].cum_sum() - 1) // most
    double = users.filter(pl.col("part") != pl.col("other"))
    if len(double):
        user, part, other = double.select("user", "part", "other").row(0)
        raise UserError(
            f"--partitioned: {source} has events of user {user!r} in {part} and in {other}; write all "
            "events of a user to one file or folder, or leave --partitioned out"
        )
    part, events = users.group_by("part").agg(pl.col("events").sum()).sort("events", "part").row(-1)
    if events > most:
        print(f"{part} has {events:,} events; parts of {most:,} would fit into --memory")
    return users["part"].rank("dense") - 1
