"""Histories that stand as lists in the rows of a log.

A user's lists often grow from row to row. A list that another one begins with is not stored again:
its rows read the beginning of the other. So a log of growing lists takes the room of its longest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ..common.errors import UserError
from . import values
from .lists import PLACE, Entries, parallel
from .mapping import Mapping
from .source import Source

FLAG = "--history-separator"
PARTS = 64  # of the users; the lists of one part are sorted at a time
LISTS = ("history", "history_time")
ANSWER = 0.5  # share of the clicked rows whose list may have the clicked item at an end


def shown(table: Source, mapping: Mapping, time: pl.Expr, unit: str) -> dict[str, pl.Expr]:
    """What the rows of a table show of their users: ``history`` and, if named, ``history_time``.

    Entries are ids and moments, oldest first. Of a row that became several, the first alone has them.

    Args:
        table: has read its other columns already.
        time: the moment of a row.
        unit: of the moments.

    Raises:
        UserError: the lists have other times than the rows. What is wrong in one row ``check`` finds.
    """
    item, moment, action = mapping.history, mapping.history_time, mapping.history_action
    assert item
    columns = [column for column in (item, moment, action) if column]
    lists = parallel(table, columns, mapping.history_separator, FLAG)
    kind = table.kind(item)
    lists[item] = _each(lists[item], values.as_id(getattr(kind, "inner", kind)))
    if mapping.history_padding is not None:
        padding = str(mapping.history_padding)
        lists = _where(lists, item, lambda entry: entry.fill_null("") != padding)
    if action:
        kept = mapping.history_actions or mapping.positive_actions
        lists = _where(lists, action, lambda entry: values.one_of(entry.cast(pl.String), kept))
    expects = "an id in each place, or name what fills empty places with --history-padding"
    table.checks.append((item, lists[item].list.contains(None), expects))
    found = {"history": lists[item]}
    if moment:
        entries = Entries(table, [moment], mapping.history_separator, FLAG)
        parse, expects, own = values.as_time([entries], moment, mapping.time_format)
        if own != unit:
            raise UserError(
                f"{table.path}: the times in column {moment} are read as {own}, and those in column "
                f"{mapping.time} as {unit}; bring both into one unit"
            )
        times = found["history_time"] = _each(lists[moment], parse)
        table.checks.append((moment, times.list.contains(None), f"{expects} in each place"))
    if mapping.history_order == "newest":
        found = {name: values.list.reverse() for name, values in found.items()}
    if moment:
        times = found["history_time"]
        expects = "times that do not fall, or --history-order newest if the newest entry is first"
        table.checks.append((moment, (times.list.diff().list.min() < 0).fill_null(False), expects))
        expects = f"times up to that of the row in column {mapping.time}, for later ones tell what follows"
        table.checks.append((moment, (times.list.max() > time).fill_null(False), expects))
    if PLACE in table.schema:
        found = {name: pl.when(pl.col(PLACE) == 0).then(v) for name, v in found.items()}
    return found


def _each(lists: pl.Expr, parse: values.Parse) -> pl.Expr:
    return lists.list.eval(parse(pl.element()))


def _where(
    lists: dict[str, pl.Expr], name: str, keep: Callable[[pl.Expr], pl.Expr]
) -> dict[str, pl.Expr]:
    """Parallel lists without the places where an entry of the list ``name`` is not to be kept."""
    places = lists[name].list.eval(keep(pl.element()).arg_true())
    return {name: values.list.gather(places) for name, values in lists.items()}


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
        ends, clicked = ends + int(samples["ends"].sum()), clicked + samples["ends"].count()
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
