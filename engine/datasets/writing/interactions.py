"""Turn a log of interactions into LongCTR's layout, also if the log is larger than memory.

A log is one table of events in any order. An event with a label is a sample; a positive event joins
its user's history. The history of a sample holds what its user did *strictly before* the moment of
the sample. Events of one moment never see each other, so nothing of an impression leaks into it.

The log is streamed. ``numbering`` writes its events as numbers, in blocks of users. ``samples`` turns
each block into samples and histories. This file puts them together.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from ...common.errors import UserError
from ..prepared.card import SPLITS
from ..prepared.layout import finish
from .by_time import times_at
from .encoders import Encoders
from .features import Encoder
from .histories import ListRecipe, stored_events
from .log import Log
from .negatives import write_tapes
from .numbering import Numbered, number, spare
from .samples import LAST, ROUNDING, Recipe, Span

NAMES = {"train": "training", "valid": "validation", "test": "test"}
ROWS = {**dict.fromkeys(SPLITS, 2**20), "user_info": 2**14}  # of a row group, at most
LEAST = 2**26  # bytes of the rows that are written at a time, however little memory there is
COPIES = 6  # how often they are in memory
MEMORY = 4.0  # GiB
INDEX = ("user_index", "item_index", "seq_len", "time", "group_index")
T = TypeVar("T")
Each = Callable[[Callable[[Span], T], list[Span]], Iterator[T]]


def write(log: Log, folder: Path, memory: float = MEMORY, each: Each = map) -> dict[str, Any]:
    """Write the data set of a log into a folder, made if missing, and show progress.

    Args:
        memory: GiB to take at most, if users and items alone do not take more.
        each: works on the blocks: ``map``, or ``ray_blocks.each_on_ray``.

    Returns:
        The card.

    Raises:
        UserError: a split would be empty, or its labels are all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        return _Writer(log, folder, Path(scratch), memory, each).run()


class _Writer:
    """One run of ``write``; ``scratch`` is a folder for temporary files."""

    def __init__(self, log: Log, folder: Path, scratch: Path, memory: float, each: Each) -> None:
        self.log, self.folder, self.scratch = log, folder, scratch
        self.memory, self.each = memory, each
        self.source = log.about["source"]
        self.encoders = log.like.encoders() if log.like else Encoders()
        self.sample_encoders = self.encoders.of("sample", log.sample_features)
        self.event_encoders = self.encoders.of("event", log.event_features)
        self.names = [encoder.feature.name for encoder in self.sample_encoders]
        self.event_names = [encoder.feature.name for encoder in self.event_encoders]
        self.files: dict[Path, pq.ParquetWriter] = {}
        self.sizes = Counter[Path]()  # bytes in memory of all that went into a file
        self.closing = ExitStack()  # closes the files
        self.groups = self.lists = self.drawable = 0  # of the blocks so far; see ``samples.Block``
        self.listed = "history" in log.events.collect_schema()

    def run(self) -> dict[str, Any]:
        """Write everything; returns the card."""
        log = self.scratch / "log.parquet"
        print("reading the log ...", flush=True)
        self.log.events.sink_parquet(log, compression="lz4", maintain_order=False)
        events = pl.scan_parquet(log, glob=False)
        if self.listed:
            events = stored_events(events, self.source, self.scratch, self.memory)
        drawn = self.log.negatives.per_positive if self.log.negatives else 0
        numbered = number(events, self.source, self.scratch, self.log.like, self.memory, drawn)
        log.unlink()
        items = numbered.items
        self.ids = len(numbered.users) + len(items)
        recipe = self._sorted(numbered)
        times_N = np.zeros(len(items), np.int64)
        counts = np.zeros((len(SPLITS), 2), np.int64)  # samples by split and label
        label = pl.col("label").cast(pl.Int64).alias(self.log.label)
        with self.closing:
            for block in self._results(recipe.make_block, numbered, "making samples"):
                following = pl.col("^(user_index|group_user)$") + self.lists
                samples = block.samples.with_columns(following, pl.col("group_index") + self.groups)
                histories = block.histories.with_columns(following)
                self.groups += samples["group_index"].n_unique()
                self.lists += len(histories) * self.listed
                self.drawable += block.drawable
                self._append(self.scratch / "user_info.parquet", histories)
                for i, name in enumerate(SPLITS):
                    part = samples.filter(pl.col("split") == i)
                    counts[i] += np.bincount(part["label"], minlength=2)
                    if name == "train":
                        self._learn(part, histories, times_N)
                    raw = part.select(*INDEX, "^group_user$", label, *self.names)
                    self._append(self.scratch / f"{name}.parquet", raw)
        self._require_usable(counts)
        specs = self._write_tables()
        known = 0 if self.log.like is None else len(self.log.like.items)
        table, item_specs = self.log.item_table(items[known:], times_N[known:], self.encoders)
        table.write_parquet(self.folder / "item_info.parquet")
        self._write_ids(numbered)
        self.encoders.save(self.folder)
        count = numbered.users["events"].sum()
        about = self.log.about | {"events": count, "events_merged": count - self.kept}
        about |= {"time_unit": self.log.time_unit, "seed": self.log.seed}
        if self.log.like is not None:
            about |= self.log.like.described(self.encoders)
        about |= self._sampling(counts)
        if self.event_names:
            about["event_cols"] = self.encoders.event_cols()
        return finish(self.folder, item_specs | specs, self.log.label, about)

    def _write_ids(self, numbered: Numbered) -> None:
        """Write whose numbers the indices of users and items are, and the themes of items."""
        users = numbered.users.select("user_index", "user")
        if self.listed:
            lists = pl.read_parquet(
                self.scratch / "user_info.parquet", columns=["user_index", "user"], glob=False
            )
            users = lists.with_columns(users["user"].gather(lists["user"]))
        users.write_parquet(self.folder / "user_ids.parquet")
        ids = numbered.items.with_row_index("item_index", 1).select("item_index", "item")
        if self.log.item_names is not None:
            ids = ids.join(self.log.item_names, on="item", how="left", maintain_order="left")
        ids.with_columns(self.encoders.themes).write_parquet(self.folder / "item_ids.parquet")

    def _sorted(self, numbered: Numbered) -> Recipe:
        """Put all blocks in order; returns the recipe that makes samples of them.

        What takes a look at all blocks is done here: where the splits begin, and the tape.
        """
        log = self.log
        recipe = (ListRecipe if self.listed else Recipe)(
            scratch=self.scratch,
            features=self.names,
            event_features=self.event_names,
            split=log.split,
            exposures=log.exposures,
            negatives=log.negatives,
            seed=log.seed,
            timed=log.time_unit != "order",
        )
        for _ in self._results(recipe.sort_block, numbered, "sorting users"):
            pass
        shutil.rmtree(self.scratch / "blocks")
        ordered = pl.scan_parquet(self.scratch / "ordered")
        self.kept = ordered.select(pl.len()).collect().item()
        samples = ordered.filter(pl.col("label").is_not_null())
        tested = "test" in ordered.collect_schema()
        others = samples.filter(~pl.col("test").fill_null(False)) if tested else samples
        count = others.select(pl.len()).collect(engine="streaming").item()
        if not count:
            raise UserError(
                f"{self.source}: no event is a sample; name data that say what was shown"
            )
        if negatives := log.negatives:
            positives = samples.select("time", "item_index", pool=recipe.pool)
            distinct = negatives.source == "uniform"
            items = write_tapes(positives, self.scratch / "tape", len(numbered.items), distinct)
            if items <= negatives.per_positive:
                raise UserError(
                    f"--negatives {negatives.per_positive} are too many, for {self.source} has "
                    f"{items} items to draw from; write fewer"
                )
        if log.split.by == "user" or log.split.starts:
            return replace(recipe, starts=log.split.starts or recipe.starts)
        places = [int(end * (count - 1) + ROUNDING) for end in log.split.ends(tested) if end < 1]
        return replace(recipe, starts=(*times_at(others, places), LAST)[:2])

    def _results(self, work: Callable[[Span], T], numbered: Numbered, what: str) -> Iterator[T]:
        """What ``work`` makes of each block."""
        spans = numbered.spans()
        results = self.each(work, spans)
        yield from tqdm(results, total=len(spans), desc=what, unit="block", leave=False)

    def _learn(self, samples: pl.DataFrame, histories: pl.DataFrame, times_N: NDArray) -> None:
        """Show the encoders what training shows: targets, and the events that they can see.

        Sampled negatives do not count. With them, the item of a positive would on average be rarer
        than that of a negative, since a sample always counts its own.
        """
        if self.log.negatives:
            samples = samples.filter(pl.col("label") == 1)
        once = np.ones(len(samples), np.int64)
        for encoder in self.sample_encoders:
            encoder.observe(samples[encoder.feature.name], once)
        seen = samples.group_by("user_index").agg(pl.col("seq_len").max())
        visible = histories.join(seen, on="user_index").select(
            pl.col("full_item_seq", *self.event_names).list.head(pl.col("seq_len"))
        )
        for encoder in self.event_encoders:
            values = visible[encoder.feature.name].explode()
            encoder.observe(values, np.ones(len(values), np.int64))
        for items in (samples["item_index"], visible["full_item_seq"].explode().drop_nulls()):
            times_N += np.bincount(items.cast(pl.Int64) - 1, minlength=len(times_N))

    def _append(self, path: Path, frame: pl.DataFrame) -> None:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if path not in self.files:
            self.files[path] = self.closing.enter_context(pq.ParquetWriter(path, table.schema))
        self.files[path].write_table(table)
        self.sizes[path] += table.nbytes

    def _require_usable(self, counts: NDArray) -> None:
        for name, samples in zip(SPLITS, counts.sum(1), strict=True):
            if not samples:
                raise UserError(
                    f"{self.source}: no sample falls into {name} when split by "
                    f"{self.log.split.by}; use another split or other shares"
                )
        for name, present in zip(SPLITS, counts > 0, strict=True):
            if self.log.negatives and not present[0]:
                raise UserError(
                    f"{self.source}: no negative could be drawn for the {NAMES[name]} data, because "
                    "the users have every item; name a log with more items"
                )
            if not present.all():
                shares = "" if name == "train" else "; write --split user or other shares"
                raise UserError(
                    f"{self.source}: every label of the {NAMES[name]} data is {int(present.argmax())}; "
                    f"both 0 and 1 are needed{shares} (see --label, --positive, --exposures, --negatives)"
                )

    def _sampling(self, counts: NDArray) -> dict[str, Any]:
        """The card's entry on sampled negatives, if there are any."""
        negatives = self.log.negatives
        if negatives is None:
            return {}
        zeros, ones = counts.sum(0)
        if zeros < negatives.per_positive * ones:
            print(
                f"{negatives.per_positive * ones - zeros:,} of {negatives.per_positive * ones:,} "
                "negatives could not be drawn, because their users have nearly every item"
            )
        said: dict[str, Any] = {"per_positive": negatives.per_positive, "from": negatives.source}
        said |= {"targets": negatives.targets, "rate": float(zeros / self.drawable)}
        if negatives.targets == "all":
            from ..prepared.facts import shares_in_history

            said |= {"in_history": shares_in_history(self.folder, self.log.label)}
        return {"negatives": said}

    def _write_tables(self) -> dict[str, dict[str, Any]]:
        """Write encoded histories and samples, in parts whose sizes do not depend on the blocks.

        Returns:
            The specifications of the samples' features.
        """
        with self.closing:
            for name, most in ROWS.items():
                path = self.scratch / f"{name}.parquet"
                raw = pq.ParquetFile(path)
                width = self.sizes[path] / raw.metadata.num_rows
                fitting = int(max(LEAST, spare(self.memory, self.ids) / COPIES) / width)
                # A power of two, so that most limits give the same files.
                for batch in raw.iter_batches(min(most, 2 ** max(0, fitting.bit_length() - 1))):
                    part = pl.DataFrame(batch).drop("user", strict=False)
                    if name in SPLITS:
                        part = part.with_columns(
                            e.encode(part[e.feature.name]).alias(e.feature.name)
                            for e in self.sample_encoders
                        )
                    else:
                        part = part.with_columns(map(_encoded_lists, self.event_encoders))
                    self._append(self.folder / f"{name}.parquet", part)
        return self.encoders.specs("sample")


def _encoded_lists(encoder: Encoder) -> pl.Expr:
    """The lists of a feature of events as ids."""
    ids = pl.element().map_batches(encoder.encode, pl.Int64, is_elementwise=True)
    return pl.col(encoder.feature.name).list.eval(ids)
