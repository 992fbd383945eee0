"""A prepared data set with rows to score as its test split, and with what happened since."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..common.errors import UserError
from ..config.feature_map_file import read_feature_map
from ..datasets.forms.generic import load, text_form
from ..datasets.forms.mapping import Mapping
from ..datasets.forms.mapping_file import mapping_like, read_mapping
from ..datasets.prepared.card import CARD, SECOND, card_beside
from ..datasets.prepared.stored import read_stored
from ..datasets.raw.source import Source
from ..datasets.writing.encoders import Encoders
from ..datasets.writing.like import Prepared
from ..datasets.writing.log import Log
from ..loader.times import TIMES

# Keys of a mapping that rows without labels, and events that are no samples, cannot have.
LABELS = {"label", "rating", "positive", "action", "positive_actions", "history_actions"}
LABELS |= {"candidates", "events_in_row", "list_separator", "impression"}
OF_SAMPLES = {"sample_features", "users", "users_columns", "users_key", "user_features"}
OF_SAMPLES |= {"impression"}


def main_histories(folder: Path, length_U: pl.Series) -> pl.DataFrame:
    """``user, user_index`` of each user: of several histories the longest, or else the newest.

    Args:
        folder: a prepared data set.
        length_U: the length of each history.
    """
    ids = read_stored(folder, "user_ids").cast({"user_index": pl.Int64})
    ids = ids.with_columns(length=length_U.gather(ids["user_index"])).sort("length", "user_index")
    return ids.unique("user", keep="last", maintain_order=True).select("user", "user_index")


class Table(NamedTuple):
    """A table of rows or events that is encoded as a data set is.

    Attributes:
        mapping: what its columns mean.
        log: see ``generic.load``.
        encoders: of the data set.
        events: those of the log, with encoded features of samples or events, and times in the unit of
            the data set.
    """

    mapping: Mapping
    log: Log
    encoders: Encoders
    events: pl.DataFrame


class Extended:
    """Rows to score as a test split, beside the histories and items that they need.

    Args:
        folder: a data set of ``prepare.py generic``.
        rows: a table with the log's columns of users, items, times and features, but no labels.
        events: a log of what happened since, in the form of the log that was prepared.
        keys: of the mapping, where these tables are not as that log was.
        scratch: an empty folder, for the files.

    Attributes:
        files: where the files are, as keys of a configuration.
        table: the rows as they are, with their numbers in the column ``ROW``.
        scored: the numbers of those that are samples, in the order of these.

    Raises:
        UserError: a table lacks a column or has a bad value; the message names it.
    """

    def __init__(
        self, folder: Path, rows: Path, events: Path | None, keys: dict[str, Any], scratch: Path
    ) -> None:
        self.folder, self.scratch, self.keys = folder, scratch, keys
        self.stored = read_stored(folder, "user_info")
        self.lists = [name for name in self.stored.columns if name != "user_index"]
        unit = card_beside(folder / "train.parquet").get("time_unit")
        self.unit = unit if TIMES in self.lists and unit != "order" else None
        asked = self._read(rows, ("item", "sample"), {*LABELS, "event_features"})
        form = text_form(asked.mapping, asked.mapping.columns)
        self.table = Source(rows, form).frame.collect()
        since = [self._read(events, ("item", "event"), OF_SAMPLES)] if events is not None else []
        tables = [*since, asked]
        items, users = self._write_items(tables), self._users(tables)
        *new, samples = (t.events.join(items, on="item").join(users, on="user") for t in tables)
        histories = self._write_histories(users, *new)
        self.scored = self._write_rows(asked.log, samples.sort("row"), histories)
        shutil.copy(folder / CARD, scratch)
        names = {"test_data": "test", "user_info": "user_info", "item_info": "item_info"}
        self.files = {key: str(scratch / f"{name}.parquet") for key, name in names.items()}

    def _read(self, path: Path, sources: tuple[str, ...], lacks: set[str]) -> Table:
        """A table with the features of some sources, whose mapping lacks some keys of the data set's."""
        like = Prepared(self.folder, sources=sources)
        own = mapping_like(like)
        own = {k: v for k, v in own.items() if k not in lacks and not k.startswith("history")}
        # Nothing is drawn, but with negatives a mapping needs no labels.
        mapping = read_mapping(None, {"input": str(path), "negatives": 1} | self.keys, own)
        log, encoders = load(mapping, like), like.encoders()
        events = log.events.collect(engine="streaming")
        if self.unit not in (None, log.time_unit):
            if not {log.time_unit, self.unit} <= SECOND.keys():
                raise UserError(
                    f"{path}: its times are in the unit {log.time_unit}, but those of {self.folder} are "
                    f"in {self.unit}; write them alike"
                )
            time = pl.col("time") * SECOND[self.unit] // SECOND[log.time_unit]
            events = events.with_columns(time)
        features = {"sample": log.sample_features, "event": log.event_features}
        used = (e for source, own in features.items() if own for e in encoders.of(source, own))
        encoded = [e.encode(events[e.feature.name]).alias(e.feature.name) for e in used]
        return Table(mapping, log, encoders, events.with_columns(encoded))

    def _write_items(self, tables: list[Table]) -> pl.DataFrame:
        """Write the item table with the new items behind; returns ``item, item_index`` of all."""
        info = read_stored(self.folder, "item_info")
        items = read_stored(self.folder, "item_ids", ["item"])
        known = len(info)
        for table in tables:
            first = table.events.group_by("item").agg(pl.col("row").min()).sort("item")
            new = first.join(items, on="item", how="anti", maintain_order="left")
            if len(new):
                times_N = np.zeros(len(new), np.int64)
                own, _ = table.log.item_table(new, times_N, table.encoders)
                info = pl.concat([info, own[known:]])
                items = pl.concat([items, new.select("item")])
        index = pl.int_range(pl.len(), dtype=pl.Int64).alias("item_index")
        info.with_columns(index).write_parquet(self.scratch / "item_info.parquet")
        return items.with_row_index("item_index", 1).cast({"item_index": pl.Int64})

    def _users(self, tables: list[Table]) -> pl.DataFrame:
        """``user, user_index`` of all users, see ``main_histories``."""
        known = main_histories(self.folder, self.stored["full_item_seq"].list.len())
        named = pl.concat([table.events.select("user") for table in tables]).unique(
            maintain_order=True
        )
        new = named.join(known, on="user", how="anti", maintain_order="left")
        index = pl.int_range(len(self.stored), len(self.stored) + pl.len(), dtype=pl.Int64)
        return pl.concat([known, new.with_columns(user_index=index)])

    def _write_histories(self, users: pl.DataFrame, *tables: pl.DataFrame) -> pl.DataFrame:
        """Write all histories, with new events at their ends or, where times are known, in order.

        Args:
            users: see ``_users``.
            tables: of events since, with ``item_index`` and ``user_index``; there may be none.
        """
        fresh = users.filter(pl.col("user_index") >= len(self.stored)).select("user_index")
        stored = pl.concat([self.stored, fresh], how="diagonal").sort("user_index")
        for events in tables:
            new = events.filter("positive").sort("time", "row")
            new = new.rename({"item_index": "full_item_seq", "time": TIMES})
            changed = pl.col("user_index").is_in(new["user_index"].implode())
            old = stored.filter(changed).explode(self.lists).drop_nulls("full_item_seq")
            both = pl.concat([old, new.select(old.columns).cast(old.schema)])
            if self.unit is not None:
                event = ["user_index", TIMES, "full_item_seq"]
                both = both.unique(event, keep="first", maintain_order=True)
                both = both.sort("user_index", TIMES, maintain_order=True)
            grown = both.group_by("user_index", maintain_order=True).agg(self.lists)
            stored = pl.concat([stored.filter(~changed), grown]).sort("user_index")
        stored = stored.with_columns(pl.col(self.lists).fill_null([]))
        stored.write_parquet(self.scratch / "user_info.parquet")
        return stored

    def _write_rows(self, log: Log, rows: pl.DataFrame, histories: pl.DataFrame) -> pl.Series:
        """Write the rows as samples, of which each has the events before its moment as history."""
        user_N, time_N = rows["user_index"].to_numpy(), rows["time"].to_numpy()
        length_N = histories["full_item_seq"].list.len().to_numpy()[user_N].astype(np.int64)
        if self.unit is not None:
            order = np.argsort(user_N, kind="stable")
            for places in np.split(order, np.flatnonzero(np.diff(user_N[order])) + 1):
                times = histories[TIMES][int(user_N[places[0]])].to_numpy()
                length_N[places] = np.searchsorted(times, time_N[places])
        place = pl.int_range(pl.len(), dtype=pl.Int64)
        names = [feature.name for feature in log.sample_features]
        label = read_feature_map(self.folder / "feature_map.json")[1]
        samples = rows.select("user_index", "item_index", "time", *names, group_user="user_index")
        samples = samples.with_columns(
            pl.lit(0).alias(label), pl.Series("seq_len", length_N), group_index=place
        )
        samples.write_parquet(self.scratch / "test.parquet")
        return rows["row"]
