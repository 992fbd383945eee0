"""What the events of some users become: samples in the order of time, and histories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl

from ...common.errors import UserError
from . import chance
from .negatives import KNOWN, NONE, Barred, Negatives, Tape

LAST = 2**63 - 1  # a moment after all others
ROUNDING = 1e-9  # added to a share times a count, because 0.7 + 0.1 is less than 0.8
CARRIED = ("group", "test")  # columns that an event may have beside its features
MOST_RUNS = 2  # of a request's rows, on average; two requests at a time make several
REQUEST = "shown_with"  # the column of an impression whose rows may have moments of their own


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
        both = self.train + self.valid
        return (self.train / both, 1.0) if tested else (self.train, both)


class Span(NamedTuple):
    """The number of a block, and the first and the last of its users."""

    block: int
    first: int
    last: int


class Block(NamedTuple):
    """What some users give.

    Attributes:
        samples: ``user_index, item_index, seq_len, time, group_index, label, split`` and the features,
            in the time order of each user. Rows of one moment are in random order. ``group_index``
            counts from 0 on, and leaves out none.
        histories: ``user_index, full_item_seq, full_time_seq`` and the features of events. Where a user
            has several, ``user_index`` of these and of ``samples`` counts from 0 on, and ``user`` is
            whose they are.
        drawable: how many negatives could have been drawn.
    """

    samples: pl.DataFrame
    histories: pl.DataFrame
    drawable: int


@dataclass(frozen=True)
class Recipe:
    """How a block of events becomes samples and histories. It can be sent to another process.

    Attributes:
        scratch: folder that has the events of each block in ``blocks``. ``ordered`` and ``tape`` in it
            are what ``sort_block`` and ``write_tapes`` write.
        features, event_features: names of the samples' features, and of those of events.
        split, exposures, negatives, seed: see ``log.Log``.
        timed: whether moments are known, and not just an order.
        starts: the first moments of validation and test, for a split by time.
    """

    scratch: Path
    features: list[str]
    event_features: list[str]
    split: Split
    exposures: bool
    negatives: Negatives | None
    seed: int
    timed: bool
    starts: tuple[int, ...] = (LAST, LAST)
    carried: ClassVar[tuple[str, ...]] = CARRIED

    def sort_block(self, span: Span) -> None:
        """Write the events of a block in order and, for a split by user, with ``split``."""
        folder = self.scratch / "blocks" / f"block={span.block}"
        ordered = self.order(pl.read_parquet(folder, hive_partitioning=False))
        if self.split.by == "user":
            ordered = self.with_split(ordered)
        ordered.write_parquet(self._ordered(span), compression="lz4", mkdir=True)

    def make_block(self, span: Span) -> Block:
        """The samples and the histories of a block that is in order."""
        events = pl.read_parquet(self._ordered(span), glob=False)
        if self.split.by == "time":
            events = self.with_split(events)
        if self.exposures:
            events = labelled(events, self.starts)
        samples, drawable = events.filter(pl.col("label").is_not_null()), 0
        samples = samples.drop("positive", *self.event_features)
        if self.negatives:
            had = events.select("user_index", "item_index", "time")
            samples = samples.with_row_index("group_index")
            samples, drawable = self._with_negatives(samples, had, self.negatives)
        else:
            key = ["user_index", "group" if "group" in samples.columns else "time"]
            samples = with_number(samples, key, "group_index")
        columns = (samples[name].to_numpy() for name in ("user_index", "time", "item_index"))
        chances = pl.Series("chance", chance.keys(self.seed, *columns))
        samples = samples.with_columns(chances, pl.col("group_index").cast(pl.Int64))
        samples = samples.sort("user_index", "time", "chance", "group_index")
        samples = samples.drop("chance", *CARRIED, strict=False)
        return Block(*self.with_histories(samples, events, span), drawable)

    def order(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events in the order of time, with ``seq_len``; see ``in_time_order``."""
        if REQUEST in events.columns:
            events = at_one_moment(events)
        carried = [name for name in self.carried if name in events.columns]
        events = in_time_order(events, [*self.features, *carried], self.event_features)
        if self.negatives:
            positive = pl.col("label") == 1
            if self.negatives.targets == "first":  # neither in the history nor clicked before
                had = (pl.col("positive") | positive.fill_null(False)).cast(pl.Int64)
                positive &= (had.cum_sum() - had).over("user_index", "item_index") == 0
            events = events.with_columns(label=pl.when(positive).then("label"))
        return events

    def with_split(self, events: pl.DataFrame) -> pl.DataFrame:
        """Ordered events with the ``split`` of each sample: 0 training, 1 validation, 2 test."""
        given = "test" in events.columns
        tested = pl.col("test").fill_null(False) if given else pl.repeat(False, pl.len())
        place, edges = pl.col("time"), [pl.lit(start) for start in self.starts]
        if self.split.by == "user":
            own = (pl.col("label").is_not_null() & ~tested).cast(pl.Int64)
            place = (own.cum_sum() - own).over("user_index")
            if "group" in events.columns:  # an impression stays whole
                events = events.with_columns(split=place)  # first, since windows do not nest
                place = pl.col("split").min().over("user_index", "group")
            shares, count = self.split.ends(given), own.sum().over("user_index")
            edges = [(share * count + ROUNDING).floor() for share in shares]
        split = pl.when(tested).then(2).when(place < edges[0]).then(0).when(place < edges[1])
        return events.with_columns(split=split.then(1).otherwise(2))

    def with_histories(
        self, samples: pl.DataFrame, events: pl.DataFrame, span: Span
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The samples, and the histories that they read; see ``Block``."""
        return samples, histories_of(events, span.first, span.last, self.event_features)

    @property
    def pool(self) -> pl.Expr:
        """The tape that negatives of a sample are drawn from.

        With a split by user, training, validation and test each have their own. From one tape an item
        with many positives in training would have many negatives in the test.
        """
        return pl.col("split") if self.split.by == "user" else pl.repeat(0, pl.len())

    def _ordered(self, span: Span) -> Path:
        return self.scratch / "ordered" / f"{span.block:09}.parquet"

    def _with_negatives(
        self, samples: pl.DataFrame, had: pl.DataFrame, negatives: Negatives
    ) -> tuple[pl.DataFrame, int]:
        """The positives and their negatives, and how many negatives could have been drawn.

        Args:
            had: ``user_index, item_index, time`` of what the users had.
        """
        by = ["user_index"] if negatives.targets == "first" else ["user_index", "time"]
        keyed = samples.select("user_index", "item_index", "time", pool=self.pool)
        keyed, columns = with_number(keyed, by, "owner"), [*keyed.columns, "owner"]
        user_P, item_P, time_P, pool_P, owner_P = (keyed[name].to_numpy() for name in columns)
        had = had.join(keyed.select(*by, "owner").unique(), on=by)
        had, known_I = (
            had.select("owner", "item_index").unique(),
            np.load(self.scratch / "tape" / KNOWN),
        )
        had = had.filter(known_I[had["item_index"]])
        key_P, count = chance.keys(self.seed, user_P, item_P, time_P), negatives.per_positive
        drawn_PN = np.empty((len(samples), count), np.int64)
        for pool in np.unique(pool_P):
            tape = Tape(self.scratch / "tape" / f"pool={pool}", negatives.source, self.timed)
            on_tape, own = had.filter(tape.known_I[had["item_index"]]), pool_P == pool
            barred = Barred(*(column.to_numpy() for column in on_tape))
            drawn_PN[own] = tape.draw(count, key_P[own], time_P[own], owner_P[own], barred)
        place = np.repeat(np.arange(len(samples)), count)
        drawn = samples[place].with_columns(
            item_index=pl.Series(drawn_PN.ravel()), label=pl.lit(0, samples["label"].dtype)
        )
        sizes = np.bincount(had["owner"], minlength=len(samples))
        drawable = int((known_I.sum() - sizes[owner_P]).sum())
        return pl.concat([samples, drawn.filter(pl.col("item_index") != NONE)]), drawable


def with_number(samples: pl.DataFrame, by: list[str], name: str) -> pl.DataFrame:
    """Samples with a column that numbers what some columns hold, in the order of appearance."""
    groups = samples.select(by).unique(maintain_order=True).with_row_index(name)
    return samples.join(groups, on=by, how="left", maintain_order="left", nulls_equal=True)


def at_one_moment(events: pl.DataFrame) -> pl.DataFrame:
    """The events, with each request as a ``group`` whose rows have the moment of its first.

    So no row of a request is in the history of another, and a split leaves it whole.

    Raises:
        UserError: values come back after others, so they cannot be ids of requests.
    """
    key = ["user_index", REQUEST]
    shown = events.filter(pl.col(REQUEST).is_not_null()).sort("user_index", "time", "row")
    new = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in key).fill_null(True)
    runs, requests = shown.select(new.sum()).item(), shown.select(key).n_unique()
    if runs > MOST_RUNS * requests:
        raise UserError(
            f"--impression: its values come back {runs / requests - 1:.0f} times after others of the same "
            "user; name a column whose value is new in each request"
        )
    first = pl.col("time").min().over(key)
    time = pl.when(pl.col(REQUEST).is_null()).then("time").otherwise(first)
    return events.with_columns(time=time).rename({REQUEST: "group"})


def in_time_order(
    events: pl.DataFrame, features: list[str], event_features: list[str]
) -> pl.DataFrame:
    """Events sorted by user and time, with ``seq_len``: positive events at earlier moments.

    Where events are merged, the features are those of the first sample. A click that is logged
    apart has none, and would give the label away. Features of events are those of the first positive
    one, as the history has it. A sample of a given test set joins no history that
    other samples of its user read.
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
            pl.col(event_features).filter("positive").first(),
        )
        .with_columns(pl.col("user_index", "item_index").cast(pl.Int64))
    )
    if "test" in features:
        test = pl.col("test").fill_null(False)
        others = pl.col("time").filter(~test, pl.col("label").is_not_null())
        early = test & (pl.col("time") < others.max().over("user_index")).fill_null(False)
        ordered = ordered.with_columns(pl.col("positive") & ~early)
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


def histories_of(
    events: pl.DataFrame, first: int, last: int, event_features: list[str]
) -> pl.DataFrame:
    """The histories of the users ``first`` to ``last``, empty ones too; see ``Block``."""
    users = pl.DataFrame({"user_index": pl.int_range(first, last + 1, eager=True)})
    by_user = events.filter("positive").group_by("user_index", maintain_order=True)
    lists = by_user.agg(*event_features, full_item_seq="item_index", full_time_seq="time")
    histories = users.join(lists, on="user_index", how="left", maintain_order="left")
    ordered = histories.select("user_index", "full_item_seq", "full_time_seq", *event_features)
    return ordered.with_columns(pl.exclude("user_index").fill_null([]))
