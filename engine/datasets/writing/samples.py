"""What the events of some users become: samples in the order of time, and histories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl

from ..prepared.card import SPLITS
from . import chance
from .negatives import NONE, Barred, Negatives, Tape

KNOWN = "known.npy"  # whether each item is on a tape
ROUNDING = 1e-9  # added to a share times a count, because 0.7 + 0.1 is less than 0.8
CARRIED = ("group", "test")  # columns that an event may have beside its features


@dataclass(frozen=True)
class Split:
    """Which samples are for training and validation; all others are the test set.

    Attributes:
        by: with ``time``, validation starts at one moment for all users, and the test at a later
            one. With ``user``, validation and test are the last samples of each user.
        train, valid: shares of the samples.
        starts: the first moments of validation and test, instead of the shares; for ``time`` only.
    """

    by: str = "time"
    train: float = 0.8
    valid: float = 0.1
    starts: tuple[int, int] | None = None

    def ends(self, tested: bool) -> tuple[float, float]:
        """Where training and validation end, as shares of the samples.

        Args:
            tested: whether the test set is given, so that the others are divided in two only.
        """
        return (
            (self.train / (self.train + self.valid), 1.0)
            if tested
            else (self.train, self.train + self.valid)
        )


class Span(NamedTuple):
    """The number of a block, and the first and the last of its users."""

    block: int
    first: int
    last: int


class Block(NamedTuple):
    """What some users give.

    Attributes:
        samples: ``user_index, item_index, seq_len, time, group_index, label, split`` and the features,
            in the time order of each user. Rows of one moment are in random order.
        histories: ``user_index, full_item_seq, full_time_seq``.
        groups: how many ``group_index`` there are, from 0 on.
        drawable: how many negatives could have been drawn.
        merged: events of the same user, item and moment as another.
    """

    samples: pl.DataFrame
    histories: pl.DataFrame
    groups: int
    drawable: int
    merged: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a block of events becomes samples and histories. It can be sent to another process.

    Attributes:
        blocks: folder of the events, with a folder for each block.
        features: names of the samples' features.
        split, exposures, negatives, seed: see ``log.Log``.
        tested: whether events say which samples are the test set.
        starts: the first moments of validation and test, for a split by time.
        items: the number of items that negatives are drawn from.
        timed: whether moments are known, and not just an order.
        tape: folder of the tapes that negatives are drawn from, one for each pool.
    """

    blocks: Path
    features: list[str]
    split: Split
    exposures: bool
    negatives: Negatives | None
    seed: int
    tested: bool
    timed: bool
    tape: Path
    items: int = 0
    starts: tuple[int, ...] = ()
    carried: ClassVar[tuple[str, ...]] = CARRIED

    def read(self, block: int) -> pl.DataFrame:
        """The events of a block, with ``user_index`` and ``item_index``."""
        return pl.read_parquet(self.blocks / f"block={block}", hive_partitioning=False)

    @property
    def pools(self) -> int:
        """Into how many pools the events that negatives are drawn from are divided.

        With a split by user, training, validation and test each draw from their own events. From one
        pool an item with many positives in training would have many negatives in the test.
        """
        return len(SPLITS) if self.split.by == "user" else 1

    def sort_block(self, target: Path, span: Span) -> tuple[pl.DataFrame, int]:
        """Write a block in order into another folder of blocks.

        Returns:
            ``time, item_index, pool`` of the events that negatives are drawn from; and how many
            events are gone, because they are merged with others.
        """
        events = self.read(span.block)
        ordered = self.order(events)
        folder = target / f"block={span.block}"
        folder.mkdir(parents=True, exist_ok=True)
        ordered.write_parquet(folder / "events.parquet", compression="lz4")
        if self.split.by == "time":  # which needs moments that are not known yet
            drawn_from = ordered.filter(pl.col("label").is_not_null()).with_columns(pool=0)
        else:
            drawn_from = self.samples(ordered).rename({"split": "pool"})
        return drawn_from.select("time", "item_index", "pool"), len(events) - len(ordered)

    def make_block(self, span: Span) -> Block:
        """Read a block and make its samples and histories."""
        events = self.read(span.block)
        ordered = events if self.negatives else self.order(events)  # or else ``sort_block`` did it
        block = self.block(ordered, span.first, span.last)
        return block._replace(merged=len(events) - len(ordered))

    def order(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events in the order of time, with ``seq_len``; see ``in_time_order``."""
        carried = [name for name in self.carried if name in events.columns]
        events = in_time_order(events, [*self.features, *carried])
        if self.negatives:
            positive = pl.col("label") == 1
            if (
                self.negatives.targets == "first"
            ):  # neither shown by the history, nor clicked before
                had = (pl.col("positive") | positive.fill_null(False)).cast(pl.Int64)
                positive &= (had.cum_sum() - had).over("user_index", "item_index") == 0
            events = events.with_columns(label=pl.when(positive).then("label"))
        return events

    def samples(self, events: pl.DataFrame) -> pl.DataFrame:
        """The ordered events that are samples, with ``split``: 0 training, 1 validation, 2 test."""
        samples = events.filter(pl.col("label").is_not_null())
        tested = pl.col("test").fill_null(False) if self.tested else pl.repeat(False, pl.len())
        if self.split.by == "user":
            own = (~tested).cast(pl.Int64)
            place = (own.cum_sum() - own).over("user_index")
            if "group" in events.columns:  # an impression stays whole
                place = place.min().over("user_index", "group")
            edges = tuple(
                (share * own.sum().over("user_index") + ROUNDING).floor()
                for share in self.split.ends(self.tested)
            )
        else:
            place, edges = pl.col("time"), tuple(map(pl.lit, self.starts))
        split = (
            pl.when(tested).then(2).when(place < edges[0]).then(0).when(place < edges[1]).then(1)
        )
        return samples.with_columns(split=split.otherwise(2))

    def block(self, events: pl.DataFrame, first: int, last: int) -> Block:
        """What the ordered events of the users ``first`` to ``last`` become."""
        if self.exposures:
            events = labelled(events, self.starts)
        samples, histories = self.samples(events), histories_of(events, first, last)
        return self.finish(samples, histories, events.select("user_index", "item_index", "time"))

    def finish(self, samples: pl.DataFrame, histories: pl.DataFrame, had: pl.DataFrame) -> Block:
        """Number the groups, draw the negatives, and put rows of one moment in random order.

        Args:
            had: ``user_index, item_index, time`` of what the users had.
        """
        samples, drawable = samples.drop("positive", strict=False), 0
        if self.negatives:
            samples = samples.with_row_index("group_index")
            samples, drawable = self._with_negatives(samples, had)
        else:
            key = ["user_index", "group" if "group" in samples.columns else "time"]
            groups = samples.select(key).unique(maintain_order=True).with_row_index("group_index")
            samples = samples.join(
                groups, on=key, how="left", maintain_order="left", nulls_equal=True
            )
        columns = (samples[name].to_numpy() for name in ("user_index", "time", "item_index"))
        chances = pl.Series("chance", chance.keys(self.seed, *columns))
        samples = samples.with_columns(chances, pl.col("group_index").cast(pl.Int64))
        samples = samples.sort("user_index", "time", "chance", "group_index").drop(
            "chance", *CARRIED, strict=False
        )
        count = int(samples["group_index"].to_numpy().max(initial=-1)) + 1
        return Block(samples, histories, count, drawable)

    def _with_negatives(self, samples: pl.DataFrame, had: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """The positives and their negatives, and how many negatives could have been drawn."""
        assert self.negatives is not None
        user, item, time, split = (
            samples[name].to_numpy() for name in ("user_index", "item_index", "time", "split")
        )
        by = ["user_index"] if self.negatives.targets == "first" else ["user_index", "time"]
        owners = samples.select(by).unique(maintain_order=True).with_row_index("owner")
        owner = samples.join(owners, on=by, how="left", maintain_order="left")["owner"].to_numpy()
        had = had.join(owners, on=by).select("owner", "item_index").unique()
        had = had.filter(np.load(self.tape / KNOWN)[had["item_index"]])
        barred = Barred(had["owner"].to_numpy(), had["item_index"].to_numpy())
        key, count = chance.keys(self.seed, user, item, time), self.negatives.per_positive
        drawn_PN = np.empty((len(samples), count), np.int64)
        for pool in range(self.pools):
            tape = Tape(self.tape / str(pool), self.negatives.source, self.timed)
            own = (split == pool) | (self.pools == 1)
            drawn_PN[own] = tape.draw(count, key[own], time[own], owner[own], barred)
        place = np.repeat(np.arange(len(samples)), count)
        negatives = samples[place].with_columns(
            item_index=pl.Series(drawn_PN.ravel()), label=pl.lit(0, samples["label"].dtype)
        )
        sizes = np.bincount(had["owner"], minlength=len(owners))
        drawable = int((self.items - sizes[owner]).sum())
        return pl.concat([samples, negatives.filter(pl.col("item_index") != NONE)]), drawable


def in_time_order(events: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    """Events sorted by user and time, with ``seq_len``: positive events at earlier moments.

    Where events are merged, the features are those of the first sample. A click that is logged
    apart has none, and would give the label away.
    """
    sample = pl.col("label").is_not_null()
    ordered = (
        events.lazy()
        .sort("user_index", "time", "row", ~sample, "item_index")
        .group_by("user_index", "time", "item_index", maintain_order=True)
        .agg(
            pl.col("label").max(),
            pl.col("positive").any(),
            pl.col(features).filter(sample).first(),
        )
        .with_columns(pl.col("user_index", "item_index").cast(pl.Int64))
    )
    # Comparisons with the row before take a tenth of the time that windows (``over``) do.
    so_far = pl.col("positive").cast(pl.Int64).cum_sum() - pl.col("positive")
    new_user = pl.col("user_index").diff().fill_null(1) != 0
    new_moment = new_user | (pl.col("time") != pl.col("time").shift())
    of_user, of_moment = (
        pl.when(new).then(so_far).forward_fill() for new in (new_user, new_moment)
    )
    return ordered.with_columns(seq_len=(of_moment - of_user).cast(pl.Int64)).collect()


def labelled(events: pl.DataFrame, starts: tuple[Any, ...]) -> pl.DataFrame:
    """Exposures with the label of what followed them.

    Only what happened before the next of the moments ``starts`` counts, because more is not known
    when training ends.
    """
    shown = pl.col("label").is_not_null()
    pair = ["user_index", "item_index"]
    visits = events.with_columns(visit=shown.cast(pl.Int64).cum_sum().over(pair))
    first = pl.col("time").filter("positive").min().over(*pair, "visit")
    followed = first.is_not_null()
    for start in starts:
        followed &= (pl.col("time") >= start) | (first < start)
    followed = followed.fill_null(False).cast(events["label"].dtype)
    return visits.with_columns(label=pl.when(shown).then(followed)).drop("visit")


def histories_of(events: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """``user_index, full_item_seq, full_time_seq`` of the users ``first`` to ``last``, empty lists too."""
    users = pl.DataFrame({"user_index": pl.int_range(first, last + 1, eager=True)})
    by_user = events.filter("positive").group_by("user_index", maintain_order=True)
    lists = by_user.agg(full_item_seq="item_index", full_time_seq="time")
    histories = users.join(lists, on="user_index", how="left", maintain_order="left")
    return histories.with_columns(pl.col("full_item_seq", "full_time_seq").fill_null([]))
