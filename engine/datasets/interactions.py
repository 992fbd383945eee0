"""Turn a log of interactions into LongCTR's layout, also if the log is larger than memory.

A log is one table of events in any order. An event with a label is a sample; a positive event joins
its user's history. The history of a sample holds what its user did *strictly before* the moment of
the sample. Events of one moment never see each other, so nothing of an impression leaks into it.

The log is streamed in three steps. Users and items are numbered. The events are written as numbers
to temporary files, one for each block of users with about ``BLOCK`` events. Then block after block
is read and sorted in memory, so that time grows with the log and memory does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from ..common.errors import UserError
from . import SEED
from .card import SPLITS
from .encoders import Encoders
from .features import Feature
from .layout import finish, new_folder
from .like import Prepared
from .negatives import Negatives
from .samples import histories_of, in_time_order, labelled

BLOCK = 4_000_000  # events that are sorted at a time
IN_MEMORY = 1_000_000  # times that are sorted at once, to find the moments of a split
SLICES = 10_000
ROUNDING = 1e-9  # added to a share times a count, because 0.7 + 0.1 is less than 0.8
INDEX = ("user_index", "item_index", "seq_len")
ItemTable = Callable[
    [pl.DataFrame, NDArray, Encoders], tuple[pl.DataFrame, dict[str, dict[str, Any]]]
]


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


@dataclass
class Log:
    """A log of interactions, and what to make of it.

    Attributes:
        events: one row for each event. ``row`` is a number that orders the events of one moment,
            ``time`` anything that can be compared. ``user`` and ``item`` are ids. ``label`` is 0 or
            1, or null for an event that is no sample. ``positive`` says whether the event joins the
            history. Then come the features of a sample. Events of the same user, item and time are
            merged into one. Events without one of these three are left out.
        item_table: a function that makes the item table: ``(items, times_N, encoders) ->
            (table, specs)``. ``items`` has the columns ``item`` and ``row``, the row of the item's earliest event. Its
            row i is the item of index i + 1. ``times_N`` is how often each item occurs in the
            training data. ``encoders`` encode the features and keep what they learn.
        label: name of the label's column.
        split: which samples go where.
        sample_features: how the features of a sample are to be read.
        exposures: whether samples say what was shown, and not what came of it. Such a sample is
            labelled 1 if a positive event of its user and item follows. The event must come before
            the item is shown to the user again. With a split by time, it must also come before the
            end of the sample's split.
        about: entries for the card. ``licence`` and ``source`` are among them, and messages name the
            source.
        item_names: columns ``item``, ``name`` and ``category``. People see them, but no model does.
        time_unit: ``s``, ``ms``, ``us``, ``unknown``, or ``order`` where ``time`` is only a place in
            the order of a user's events.
        negatives: draw negatives for the events of label 1, which alone are samples then.
        seed: of the negatives, and of the order of a user's samples of one moment.
        like: the data set that the log is encoded like. Its items keep their index and their row
            of the item table; the others follow.
    """

    events: pl.LazyFrame
    item_table: ItemTable
    label: str
    split: Split
    about: dict[str, Any]
    sample_features: list[Feature] = field(default_factory=list)
    exposures: bool = False
    item_names: pl.DataFrame | None = None
    time_unit: str = "unknown"
    negatives: Negatives | None = None
    seed: int = SEED
    like: Prepared | None = None


def write(log: Log, output: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Write the data set of a log, showing progress; returns its card.

    Raises:
        UserError: a split would be empty, or the training labels are all the same.
    """
    with new_folder(output, overwrite) as folder, TemporaryDirectory(dir=folder) as scratch:
        return _Writer(log, folder, Path(scratch)).run()


class _Writer:
    """One run of ``write``; ``scratch`` is a folder for temporary files."""

    def __init__(self, log: Log, folder: Path, scratch: Path) -> None:
        self.log, self.folder, self.scratch = log, folder, scratch
        self.source = log.about["source"]
        self.ends = (log.split.train, log.split.train + log.split.valid)  # shares of the samples
        self.blocks = scratch / "blocks"  # the events as numbers, once ``_number`` has run
        self.encoders = log.like.encoders() if log.like else Encoders()
        self.sample_encoders = self.encoders.of("sample", log.sample_features)
        self.names = [encoder.feature.name for encoder in self.sample_encoders]
        self.files: dict[Path, pq.ParquetWriter] = {}
        self.closing = ExitStack()  # closes the files
        self.merged = 0  # events of the same user, item and moment as another

    def run(self) -> dict[str, Any]:
        """Write everything; returns the card."""
        users, items = self._number()
        starts = self._starts()
        times_N = np.zeros(len(items), np.int64)
        counts = np.zeros((len(SPLITS), 2), np.int64)  # samples by split and label
        label = pl.col("label").cast(pl.Int64).alias(self.log.label)
        with self.closing:
            for samples, histories in self._blocks(users["block"].to_numpy(), starts):
                self._append(self.folder / "user_info.parquet", histories)
                samples = samples.with_columns(split=self._split(starts))
                for i, name in enumerate(SPLITS):
                    part = samples.filter(pl.col("split") == i)
                    counts[i] += np.bincount(part["label"], minlength=2)
                    if name == "train":
                        self._learn(part, histories, times_N)
                    raw = part.select(*INDEX, label, *self.names)
                    self._append(self.scratch / f"{name}.parquet", raw)
        self._require_usable(counts)
        specs = self._encode_samples()
        new = items.drop_nulls("row")  # the others have theirs from the data set that this is like
        times_N = times_N[len(items) - len(new) :]
        table, item_specs = self.log.item_table(new.select("item", "row"), times_N, self.encoders)
        table.write_parquet(self.folder / "item_info.parquet")
        self.encoders.save(self.folder)
        about = self.log.about | {"events": users["events"].sum(), "events_merged": self.merged}
        if self.log.like is not None:
            about |= self.log.like.described(self.encoders)
        return finish(self.folder, item_specs | specs, self.log.label, about)

    def _number(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Write the events as numbers, block by block, and whose numbers they are.

        Returns:
            The users, each with the number of ``events`` and the ``block``; and the items.
        """
        raw = self.scratch / "raw.parquet"
        print("reading the log ...", flush=True)
        self.log.events.sink_parquet(raw, compression="lz4", maintain_order=False)
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
            raise UserError(f"{self.source} has no events; name data with some")
        if self.log.like is not None:
            items = self.log.like.numbered(items)
        else:
            items = items.with_row_index("item_index", 1)
        events = events.join(users.lazy().drop("events"), on="user")
        events = events.join(items.lazy().select("item", "item_index"), on="item")
        blocks = pl.PartitionBy(self.blocks, key="block", include_key=False)
        events = events.drop("user", "item")
        events.sink_parquet(blocks, compression="lz4", maintain_order=False, mkdir=True)
        raw.unlink()
        users.select("user_index", "user").write_parquet(self.folder / "user_ids.parquet")
        ids = items.select("item_index", "item")
        if self.log.item_names is not None:
            ids = ids.join(self.log.item_names, on="item", how="left", maintain_order="left")
        ids.write_parquet(self.folder / "item_ids.parquet")
        return users, items

    def _starts(self) -> tuple[Any, ...]:
        """First moments of validation and test; there are none if the split is by user."""
        split = self.log.split
        if split.by == "user" or split.starts is not None:
            return split.starts or ()
        events = pl.scan_parquet(self.blocks)
        times = events.filter(pl.col("label").is_not_null()).select("time")
        last = times.select(pl.len()).collect(engine="streaming").item() - 1
        if last < 0:
            raise UserError(
                f"{self.source}: no event is a sample; name data that say what was shown"
            )
        return tuple(time_at(times, int(share * last + ROUNDING)) for share in self.ends)

    def _split(self, starts: tuple[Any, ...]) -> pl.Expr:
        """0 for training, 1 for validation, 2 for the test."""
        place, edges = pl.col("time"), starts
        if self.log.split.by == "user":
            place, count = (x.over("user_index") for x in (pl.int_range(pl.len()), pl.len()))
            edges = tuple((share * count + ROUNDING).floor() for share in self.ends)
        return pl.when(place < edges[0]).then(0).when(place < edges[1]).then(1).otherwise(2)

    def _blocks(
        self, block_U: NDArray, starts: tuple[Any, ...]
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Samples and histories of some users at a time.

        Samples have ``user_index, item_index, seq_len, label, time, ...`` in the time order of each
        user; histories have ``user_index, full_item_seq``.
        """
        for block in tqdm(np.unique(block_U), desc="sorting users", unit="block", leave=False):
            first, last = np.flatnonzero(block_U == block)[[0, -1]]
            events = pl.read_parquet(self.blocks / f"block={block}", hive_partitioning=False)
            count, events = len(events), in_time_order(events, self.names)
            self.merged += count - len(events)
            if self.log.exposures:
                events = labelled(events, starts)
            samples = events.filter(pl.col("label").is_not_null()).drop("positive")
            yield samples, histories_of(events, first, last)

    def _learn(self, samples: pl.DataFrame, histories: pl.DataFrame, times_N: NDArray) -> None:
        """Show the encoders what training shows: targets, and the items that they can see."""
        once = np.ones(len(samples), np.int64)
        for encoder in self.sample_encoders:
            encoder.observe(samples[encoder.feature.name], once)
        seen = samples.group_by("user_index").agg(pl.col("seq_len").max())
        visible = histories.join(seen, on="user_index").select(
            pl.col("full_item_seq").list.head(pl.col("seq_len"))
        )
        for items in (samples["item_index"], visible.to_series().explode().drop_nulls()):
            times_N += np.bincount(items.cast(pl.Int64) - 1, minlength=len(times_N))

    def _append(self, path: Path, frame: pl.DataFrame) -> None:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if path not in self.files:
            self.files[path] = self.closing.enter_context(pq.ParquetWriter(path, table.schema))
        self.files[path].write_table(table)

    def _require_usable(self, counts: NDArray) -> None:
        for name, count in zip(SPLITS, counts.sum(1), strict=True):
            if not count:
                raise UserError(
                    f"{self.source}: no sample falls into {name} when split by "
                    f"{self.log.split.by}; use another split or other shares"
                )
        if 0 in counts[0]:
            raise UserError(
                f"{self.source}: every label of the training data is {int(counts[0].argmax())}; "
                "a model needs both 0 and 1 (see --label, --exposures, and --positive, the least "
                "rating that counts as 1, which is 4 unless you write it)"
            )

    def _encode_samples(self) -> dict[str, dict[str, Any]]:
        """Write the splits with encoded features; returns the features' specifications."""
        with self.closing:
            for name in SPLITS:
                raw = pq.ParquetFile(self.scratch / f"{name}.parquet")
                for group in range(raw.num_row_groups):
                    part = pl.DataFrame(raw.read_row_group(group))
                    encoded = {
                        e.feature.name: e.encode(part[e.feature.name]) for e in self.sample_encoders
                    }
                    self._append(self.folder / f"{name}.parquet", part.with_columns(**encoded))
        return self.encoders.specs("sample")


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
