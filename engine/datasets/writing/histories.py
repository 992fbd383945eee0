"""Histories that stand as lists in the rows of a log.

A user's lists often grow from row to row. A list that another one begins with is not stored again:
its rows read the beginning of the other. So a log of growing lists takes the room of its longest.
"""

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from ...common.errors import UserError
from ..raw.source import PLACE
from .numbering import spare
from .samples import CARRIED, LAST, Recipe, Span

SOME = 100_000  # rows from all over a log that tell how large it is in memory
LEAST = 2**26  # bytes of the lists that are sorted at a time, however little memory there is
COPIES = 12  # how often such a list is in memory while it is sorted, as measured
PADDED = 0.1  # share of the lists from which an item that stands twice at an end looks like padding
ANSWER = 0.5  # share of the clicked rows whose list may have the clicked item at an end
LISTS = ("history", "history_time")  # columns of a log
LIST = "#list"  # of an event: the row whose list is stored
SEEN = "#seen"  # of a sample: how many entries of that list it shows
REPEATED = "#repeated"  # of a sample of label 1: whether they hold the item


def stored_events(events: pl.LazyFrame, source: str, scratch: Path, memory: float) -> pl.LazyFrame:
    """The events of a log whose rows show lists, with the entries of the stored lists as events.

    Args:
        events: see ``log.Log``.
        source: names the log in messages.
        scratch: folder for temporary files.
        memory: GiB that the lists of some users should fit into.

    Raises:
        UserError: most lists hold the clicked item of their own row at an end.
    """
    print("sorting lists ...", flush=True)
    raw, done = scratch / "lists", scratch / "stored"
    by_user = pl.PartitionBy(
        raw, key=(pl.col("user").hash() % _parts(events, memory)).alias("part")
    )
    events.sink_parquet(by_user, compression="lz4", maintain_order=False, mkdir=True)
    done.mkdir()
    ends = clicked = lists = stored_entries = 0
    known, doubled = False, Counter[str]()
    for part in sorted(raw.iterdir()):
        events_of_part = pl.read_parquet(part, hive_partitioning=False).drop("part")
        lists += events_of_part["history"].count()
        doubled.update(_doubled(events_of_part["history"]))
        samples, entries = stored(events_of_part)
        ends, clicked = ends + int(samples["ends"].sum()), clicked + samples["ends"].count()
        known |= entries["item"].is_in(samples["item"].implode()).any()
        stored_entries += len(entries)
        rows = pl.concat([samples.drop("ends"), entries], how="diagonal_relaxed")
        rows.write_parquet(done / f"{part.name}.parquet", compression="lz4")
        shutil.rmtree(part)
    if ends > ANSWER * clicked:
        raise UserError(
            f"{source}: {ends:,} of {clicked:,} clicked rows have the clicked item itself at an end of "
            "their --history, so the list holds the answer; write lists of earlier items only"
        )
    if stored_entries and not known:
        _warn(source, "no row has an item of a list; check that both are ids of one kind")
    for item, count in doubled.most_common(1):
        if count > PADDED * lists:
            _warn(
                source,
                f"{count:,} of {lists:,} lists have the item {item!r} twice at an end; if it only fills "
                f"them up, add --history-padding {item}",
            )
    return pl.scan_parquet(done)


def _parts(events: pl.LazyFrame, memory: float) -> int:
    """Into how many parts the users are divided, so that the lists of one fit into the memory."""
    every = 1 + events.select(pl.len()).collect().item() // SOME
    some = events.with_row_index("place").filter(pl.col("place") % every == 0)
    size = some.collect(engine="streaming").estimated_size() * every
    return 1 + int(size / max(LEAST, spare(memory) / COPIES))


def _warn(source: str, what: str) -> None:
    print(f"warning: {source}: {what}", file=sys.stderr)


def _doubled(lists: pl.Series) -> dict[str, int]:
    """The item that stands twice at an end of most lists, and of how many."""
    at = partial(lists.list.get, null_on_oob=True)
    twice = pl.concat([at(a).filter(at(a) == at(b)) for a, b in ((0, 1), (-1, -2))])
    return dict(twice.value_counts(sort=True).head(1).iter_rows())


def stored(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is stored of the lists of some users.

    Args:
        events: see ``log.Log``. Of the events of one ``row``, at least one has the list.

    Returns:
        The samples with ``LIST``, ``SEEN`` and ``REPEATED``. For those of label 1, ``ends`` says whether
        the item is at an end of the list. And the entries of the stored lists, as positive events
        without a ``row``, with ``LIST``, ``PLACE`` and, if the log has it, ``history_time``.
    """
    columns = [name for name in LISTS if name in events.columns]
    lists = events.filter(pl.col("history").is_not_null()).select("user", "row", *columns)
    # In this order a list that begins another one, or equals it, begins the very next one.
    lists = lists.unique(["user", "row"]).sort("user", *columns, "row")
    length = pl.col("history").list.len()
    begins = pl.col("user") == pl.col("user").shift(-1)
    for name in columns:
        begins &= pl.col(name) == pl.col(name).shift(-1).list.head(length)
    whole = pl.when(~begins.fill_null(False)).then("row").backward_fill()
    lists = lists.with_columns(whole.alias(LIST), length.cast(pl.Int64).alias(SEEN))

    kept = lists.filter((pl.col("row") == pl.col(LIST)) & (length > 0)).drop("row", SEEN)
    # The moment is the last, because the features of an item are those of its earliest event.
    kept = kept.with_columns(pl.int_ranges(length).alias(PLACE), time=LAST, positive=True)
    entries = kept.explode(*columns, PLACE).rename({"history": "item"})
    by_row = lists.select("user", "row", LIST, SEEN)
    samples = events.drop(columns).join(by_row, on=["user", "row"])
    by_click = lists.select("user", "history", clicked="row")
    samples = samples.with_columns(clicked=pl.when(pl.col("label") == 1).then("row"))
    samples = samples.join(by_click, on=["user", "clicked"], how="left")
    item, shown = pl.col("item"), pl.col("history")
    samples = samples.with_columns(
        shown.list.contains(item).alias(REPEATED),
        ends=(shown.list.first() == item) | (shown.list.last() == item),
    )
    return samples.drop("history", "clicked"), entries


@dataclass(frozen=True)
class ListRecipe(Recipe):
    """How a block of samples and of entries of lists becomes samples and histories.

    A user has a history for each list that samples read. So ``user_index`` of a sample counts the
    lists of the block, from 0 on, and ``group_user`` is the first ``user_index`` of the user.
    """

    carried = (*CARRIED, LIST, SEEN, REPEATED)

    def order(self, events: pl.DataFrame) -> pl.DataFrame:
        """The samples in the order of time, and then the entries."""
        is_entry = pl.col(PLACE).is_not_null()
        samples = super().order(events.filter(~is_entry)).with_columns(seq_len=SEEN)
        if self.negatives and self.negatives.targets == "first":
            samples = samples.with_columns(label=pl.when(~pl.col(REPEATED)).then("label"))
        return pl.concat([samples, events.filter(is_entry)], how="diagonal_relaxed")

    def with_histories(
        self, samples: pl.DataFrame, events: pl.DataFrame, span: Span
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        key, entries = ["user_index", LIST], events.filter(pl.col(PLACE).is_not_null())
        index = samples.select(key).unique().sort(key).with_row_index("index")
        index = index.with_columns(pl.col("index").cast(pl.Int64))
        index = index.with_columns(group_user=pl.col("index").first().over("user_index"))
        columns = {"full_item_seq": "item_index"}
        if "history_time" in entries.columns:
            columns["full_time_seq"] = "history_time"
        lists = entries.sort(*key, PLACE).group_by(key, maintain_order=True).agg(**columns)
        histories = index.join(lists, on=key, how="left", maintain_order="left").select(
            pl.col("index").alias("user_index"),
            pl.col("user_index").alias("user"),
            pl.col(*columns).fill_null([]),
        )
        samples = samples.join(index, on=key, how="left", maintain_order="left")
        samples = samples.drop("user_index", LIST, SEEN, REPEATED).rename({"index": "user_index"})
        return samples, histories
