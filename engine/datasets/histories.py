"""Histories that stand as lists in the rows of a log.

A user's lists often grow from row to row. A list that another one begins with is not stored again:
its rows read the beginning of the other. So a log of growing lists takes the room of its longest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from ..common.errors import UserError

PARTS = 64  # of the users; the lists of one part are sorted at a time
LISTS = ("history", "history_time")
ANSWER = 0.5  # share of the clicked rows whose list may have the clicked item at an end


def stored_events(events: pl.LazyFrame, source: str, scratch: Path) -> pl.LazyFrame:
    """The events of a log whose rows show lists, with the entries of the lists as events.

    Args:
        events: as ``stored`` takes them, with the columns of ``interactions.Log``.
        source: names the log in messages.
        scratch: folder for temporary files.

    Returns:
        The samples and, with ``place`` in their list and without a label, the entries.

    Raises:
        UserError: most lists hold the clicked item of their own row at an end.
    """
    print("sorting lists ...", flush=True)
    raw, done = scratch / "lists", scratch / "stored"
    key = (pl.col("user").hash() % PARTS).alias("part")
    by_user = pl.PartitionBy(raw, key=key, include_key=False)
    events.sink_parquet(by_user, compression="lz4", maintain_order=False, mkdir=True)
    done.mkdir()
    ends = clicked = 0
    for part in raw.iterdir():
        samples, entries = stored(pl.read_parquet(part, hive_partitioning=False))
        ends, clicked = ends + samples["ends"].sum(), clicked + samples["ends"].count()
        samples = samples.drop("ends")
        rows = pl.concat([samples, entries], how="diagonal_relaxed")
        rows.write_parquet(done / f"{part.name}.parquet", compression="lz4")
        shutil.rmtree(part)
    if ends > ANSWER * clicked:
        raise UserError(
            f"{source}: {ends:,} of {clicked:,} clicked rows have the clicked item itself at an end of "
            "their --history, so the list holds the answer; write lists of earlier items only"
        )
    return pl.scan_parquet(done)


def stored(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is stored of the lists of some users.

    Args:
        events: samples with ``user``, ``item`` and ``list``, the number of the row that shows the
            list. One sample of each ``list`` holds it in ``history``, and its times in
            ``history_time``, if there are any. In the others both are null.

    Returns:
        The samples, where ``list`` now is the stored one, and ``seq_len`` how much of it the row
        shows. For clicked ones ``repeated`` says whether that holds the item, and ``ends`` whether at
        an end. And the entries of the stored lists: ``user, list, item, place, positive`` and, if
        there are any, ``history_time``.
    """
    columns = [name for name in LISTS if name in events.columns]
    lists = events.filter(pl.col("history").is_not_null())
    # In this order a list that begins another one, or equals it, begins the very next one.
    lists = lists.select("user", "list", *columns).sort("user", *columns, "list")
    length = pl.col("history").list.len()
    begins = pl.col("user") == pl.col("user").shift(-1)
    for name in columns:
        begins &= pl.col(name) == pl.col(name).shift(-1).list.head(length)
    lists = lists.with_columns(begins=begins.fill_null(False), seq_len=length.cast(pl.Int64))
    whole = pl.when(~pl.col("begins")).then("list").backward_fill()
    entries = (
        lists.filter(~pl.col("begins") & (length > 0))
        .select("user", "list", *columns, place=pl.int_ranges(length))
        .explode(*columns, "place")
    )
    entries = entries.rename({"history": "item"}).with_columns(positive=pl.lit(True))
    shown = lists.select("user", "list", "seq_len", whole=whole)
    samples = events.drop(columns).join(shown, on=["user", "list"], how="left")
    clicked = pl.when(pl.col("label") == 1).then("list")  # only these are compared with their list
    samples = samples.with_columns(clicked=clicked)
    samples = samples.join(
        lists.select("user", "history", clicked="list"), on=["user", "clicked"], how="left"
    )
    history, item = pl.col("history"), pl.col("item")
    ends = (history.list.first() == item) | (history.list.last() == item)
    samples = samples.with_columns(repeated=history.list.contains(item), ends=ends)
    return samples.drop("list", "history", "clicked").rename({"whole": "list"}), entries
