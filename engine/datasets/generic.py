"""Any table of interactions as a data set: the user only says which column is what."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ..common.errors import UserError, did_you_mean
from .features import ENCODERS, FIRST, Feature, item_table
from .interactions import ItemTable, Log, Split
from .mapping import Mapping, typed
from .source import ROW, Source, Unit, readable, require_unique

ITEM_ID = "item_id"  # the feature that every item has
RESERVED = {"row", "user", "item", "time", "label", "positive", "split", ITEM_ID}
RESERVED |= {"user_index", "item_index", "seq_len"}
POSITIVE = 4.0  # the least rating that counts, unless the mapping says otherwise


def load(mapping: Mapping, source: str | None = None, licence: str = "your own") -> Log:
    """The log that a mapping describes, with every value of it checked.

    Args:
        source: what the data set is, for its card; the name of the input by default.

    Raises:
        UserError: names the file, the column and the row.
    """
    table = _open(mapping.input, mapping)
    shown = _open(mapping.exposures, mapping) if mapping.exposures else table
    unit = max(source.time_unit(mapping.time) for source in (table, shown))  # "us" < "ns"
    events = _moments(table, mapping, unit) | {"label": _label(table, mapping)}
    features = _features(shown, mapping.sample_features, mapping)
    context = {feature.name: shown.feature(feature) for feature in features}
    item_table, item_names = _item_table(table, mapping)
    for name in sorted(item_names & context.keys()):
        raise UserError(
            f"feature {name} is named for items and for samples; give one of them another name"
        )
    if shown is not table:
        samples = _moments(shown, mapping, unit) | {"label": pl.lit(0, pl.Int8)} | context
        dates = {s.has_dates(mapping.time, mapping.time_format) for s in (table, shown)}
        if len(dates) > 1:
            raise UserError(
                f"column {mapping.time} holds dates in one of {table.path} and {shown.path}, and "
                "numbers in the other; bring them into one form"
            )
        shown.check()
    table.check()
    if shown is table:
        frame = table.rows().select(row=ROW, **events, **context)
        frame = frame.with_columns(positive=pl.col("label") == 1)
    else:
        clicks = table.rows().select(row=ROW, **events).filter(pl.col("label") == 1)
        clicks = clicks.with_columns(label=pl.lit(None, pl.Int8), positive=True)
        exposed = shown.rows().select(row=ROW, **samples, positive=pl.lit(False))
        frame = pl.concat([clicks, exposed], how="diagonal_relaxed")
    return Log(
        events=frame,
        item_table=item_table,
        label=mapping.label if mapping.label and mapping.label not in RESERVED else "label",
        split=Split(mapping.split, mapping.train, mapping.valid),
        source=source or Path(mapping.input).name,
        licence=licence,
        sample_features=features,
        exposures=shown is not table,
        about={"mapping": {k: v for k, v in asdict(mapping).items() if v not in (None, [])}},
    )


def _open(path: str, mapping: Mapping) -> Source:
    return Source(path, mapping.separator, quotes=not mapping.no_quotes)


def _moments(table: Source, mapping: Mapping, unit: Unit) -> dict[str, pl.Expr]:
    """Who did something, to which item, and when."""
    return {
        "user": table.identity(mapping.user),
        "item": table.identity(mapping.item),
        "time": table.time(mapping.time, mapping.time_format, unit),
    }


def _label(table: Source, mapping: Mapping) -> pl.Expr:
    if mapping.label:
        return table.label(mapping.label)
    if mapping.rating:
        least = POSITIVE if mapping.positive is None else mapping.positive
        return (table.number(mapping.rating) >= least).cast(pl.Int8)
    return pl.lit(1, pl.Int8)


def _features(table: Source, entries: list[Any], mapping: Mapping) -> list[Feature]:
    features = [_feature(table, entry, mapping) for entry in entries]
    names = [feature.name for feature in features]
    own = table.path == Path(mapping.input)
    for feature in features:
        if own and feature.source_column in (mapping.label, mapping.rating):
            raise UserError(
                f"feature {feature.name} is the label, which cannot be a feature; leave it out"
            )
        if names.count(feature.name) > 1:
            raise UserError(f"feature {feature.name} is named twice; write it once")
    if features:
        kinds = ", ".join(f"{feature.name} {feature.kind}" for feature in features)
        print(f"features of {table.path}: {kinds}", flush=True)
    return features


def _feature(table: Source, entry: Any, mapping: Mapping) -> Feature:
    """A feature from ``name``, ``name:kind`` or a mapping with ``name`` and fields of ``Feature``."""
    if isinstance(entry, str):
        name, _, kind = entry.partition(":")
        entry = {"name": name} | ({"kind": kind} if kind else {})
    if not isinstance(entry, dict) or "name" not in entry:
        raise UserError(
            f"feature {entry!r} has no name; write a column, column:kind, or {{name: ..., kind: ...}}"
        )
    given: dict[str, Any] = {"kind": "", "min_count": mapping.min_count}
    feature = Feature(**given | typed(f"feature {entry['name']}", entry, Feature))
    if min(feature.max_len, feature.min_count) < 1:
        raise UserError(
            f"feature {feature.name}: max_len and min_count must be 1 or more; got "
            f"{feature.max_len} and {feature.min_count}"
        )
    # A dot cannot be in the name of a torch module, and each feature has a module.
    feature = replace(feature, name=feature.name.replace(".", "_"), column=feature.source_column)
    if feature.name in RESERVED:
        raise UserError(
            f"feature {feature.name} has a name that is taken, as are {', '.join(sorted(RESERVED))}; "
            f"rename the column, or write {{name: another, column: {feature.name}}} in a mapping file"
        )
    feature = replace(feature, kind=feature.kind or table.guess(feature.source_column))
    if feature.kind not in ENCODERS:
        raise UserError(
            f"feature {feature.name}: the kind {feature.kind!r} is none of {', '.join(ENCODERS)}"
            f"{did_you_mean(feature.kind, ENCODERS)}"
        )
    return feature


def _item_table(table: Source, mapping: Mapping) -> tuple[ItemTable, set[str]]:
    """What makes the item table, and the names of its features.

    Features are read from a table of items or, without one, from the first row of each item.
    """
    if mapping.exposures and mapping.item_features and not mapping.items:
        raise UserError(
            "--item-features with --exposures need --items, a table with a row for each item; add it"
        )
    described = _open(mapping.items, mapping) if mapping.items else table
    features = _features(described, mapping.item_features, mapping)
    columns = {feature.name: described.feature(feature) for feature in features}
    key = "item" if mapping.items else "row"
    columns[key] = described.identity(mapping.item) if mapping.items else pl.col(ROW)
    if mapping.items:
        described.check()
        with readable(described.path):
            ids = described.rows().select(columns["item"]).collect(engine="streaming").to_series()
        require_unique(described.path, "item", ids)

    def make(
        items: pl.DataFrame, times_N: NDArray
    ) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
        with readable(described.path):
            rows = described.rows().select(**columns)
            known = rows.join(items.lazy().select(key), on=key, how="semi")
            described_items = known.collect(engine="streaming")
        if mapping.items:
            _report_missing(items, described_items, described.path)
        raw = items.join(described_items, on=key, how="left", maintain_order="left")
        ids = Feature(ITEM_ID, "categorical", min_count=mapping.min_count)
        table, specs = item_table(raw.rename({"item": ITEM_ID}), [ids, *features], times_N)
        if specs[ITEM_ID]["vocab_size"] == FIRST:
            raise UserError(
                f"--min-count {mapping.min_count} is too large, for no item occurs so often in the "
                "training data; write a smaller one"
            )
        return table, specs

    return make, {feature.name for feature in features}


def _report_missing(items: pl.DataFrame, known: pl.DataFrame, path: Path) -> None:
    """Say how many items a table of items lacks."""
    missing = items.join(known, on="item", how="anti")["item"]
    if len(missing) == len(items):
        raise UserError(
            f"{path} has none of the items of the interactions, such as {missing[0]!r}; check that "
            "both tables have the same ids"
        )
    if len(missing):
        print(
            f"{len(missing):,} of {len(items):,} items, such as {missing[0]!r}, are not in {path}; "
            "their features are unknown"
        )
