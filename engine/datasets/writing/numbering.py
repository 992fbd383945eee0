"""Number the users and the items of a log, and write its events as numbers in blocks of users.

The log is read once. Each block holds about as many events as the memory allows, and its users follow
those of the block before. So blocks can be sorted one by one, and time grows with the log while memory
does not.
"""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...common.errors import UserError
from ..raw.raw_files import PART
from .like import Prepared
from .samples import Span

BLOCK = 4_000_000  # events that are sorted at a time; more gain nothing
SLICE = 2**24  # events that are grouped at a time, since polars holds many of them until the end
NEEDED = ["user", "item", "time"]  # an event that lacks one is left out
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
    users = _users(events, rows)
    # The least time and, of these, the least row: one number, since joins would hold many events.
    key = pl.col("time").cast(pl.Int128) * ROWS + pl.col("row")
    first = _grouped(events, rows, "item", {"row": key}, [pl.col("row").min()])
    items = first.with_columns((pl.col("row") % ROWS).cast(pl.Int64)).sort("item")
    count = users["events"].sum()
    print(f"{count:,} events of {len(users):,} users and {len(items):,} items", flush=True)
    if left_out := rows - count:
        print(f"{left_out:,} events without a user, an item or a time are left out", flush=True)
    if users.is_empty():
        raise UserError(
            f"{source} has no events; name data with some, or more users with --sample-users"
        )
    events = events.drop_nulls(NEEDED)
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


def _users(events: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """The users of a log in the order of their ids; of a partitioned log, part after part."""
    values, merge, order = {"events": pl.lit(1, pl.UInt32)}, [pl.col("events").sum()], ["user"]
    if PART in events.collect_schema():
        values |= {"part": pl.col(PART), "other": pl.col(PART)}
        merge, order = [*merge, pl.col("part").min(), pl.col("other").max()], ["part", "user"]
    users = _grouped(events, rows, "user", values, merge)
    return users.sort(order).with_row_index("user_index")


def _grouped(
    events: pl.LazyFrame, rows: int, by: str, values: dict[str, pl.Expr], merge: list[pl.Expr]
) -> pl.DataFrame:
    """The values of all events of each id, merged into one row.

    Groups of earlier slices are merged with the events of the next one. So memory grows with the ids,
    and not with the log.

    Args:
        rows: of the log.
        by: the column of the ids.
        merge: a sum, minimum or maximum of each value, under the same name.
    """
    groups = events.select(by, **values).head(0).collect()
    for start in range(0, rows, SLICE):
        some = events.slice(start, SLICE).drop_nulls(NEEDED).select(by, **values)
        both = pl.concat([groups.lazy(), some])
        groups = both.group_by(by).agg(merge).collect(engine="streaming")
    return groups


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
