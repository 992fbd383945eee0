"""Any table of interactions as a data set: the user only says which column is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ..common.errors import UserError
from . import lists, moments, values
from .encoders import Encoders
from .features import FIRST, Feature
from .interactions import Log, Split
from .layout import META
from .like import Prepared
from .mapping import Mapping, as_entry, typed
from .negatives import Negatives
from .raw_files import TEST, Form, readable
from .source import ROW, Source, require_unique

ITEM_ID = "item_id"  # the feature that every item has
RESERVED = {"row", "user", "item", "time", "label", "positive", "split", "group", "test", ITEM_ID}
RESERVED |= {"history", "history_time", *META}
ROW_ORDER = "row"  # as the key ``order``: the order of the file
POSITIVE = 4.0  # the least rating that counts, unless the mapping says otherwise
Columns = dict[str, pl.Expr]


def load(
    mapping: Mapping, about: dict[str, Any] | None = None, like: Prepared | None = None
) -> Log:
    """The log that a mapping describes, with every value of it checked.

    Args:
        about: where the data comes from, see ``interactions.Log``; by default the user's own.
        like: the data set that the log is encoded like.

    Raises:
        UserError: names the file, the column and the row.
    """
    form = Form(mapping.separator, not mapping.no_quotes)
    opened = partial(Source, form=form)
    lenient = mapping.bad_rows == "leave_out"
    logged = partial(Source, form=replace(form, columns=mapping.columns), lenient=lenient)
    table = logged(mapping.input, test=mapping.test_input)
    shown = logged(mapping.exposures) if mapping.exposures else table
    described = opened(mapping.items) if mapping.items else table
    people = opened(mapping.users) if mapping.users else table
    (events, *exposed), unit = _moments([table, *([shown] if shown is not table else [])], mapping)
    label, positive = _label(table, mapping)
    if mapping.history:
        events |= lists.shown(table, mapping, events["time"], unit)
        positive = pl.lit(False)
    features, context = _features(shown, mapping.sample_features, mapping)
    user_features, user_columns = _features(people, mapping.user_features, mapping)
    item_features, item_columns = _features(described, mapping.item_features, mapping)
    sample_features = [*features, *user_features]
    names = [feature.name for feature in (*sample_features, *item_features)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"feature {name} is named twice; leave one out, or rename it")
    ids = Feature(ITEM_ID, "categorical", min_count=mapping.min_count)
    if like is not None:
        like.require_same(item=[ids, *item_features], sample=sample_features)
    if mapping.items:
        item_columns["item"] = values.identity(described, mapping.item)
        described.check()
    else:
        item_columns["row"] = pl.col(ROW)
    if shown is not table:
        shown.check()
    table.check()
    own = context if shown is table else {}
    frame = table.rows().select(row=ROW, **events, label=label, positive=positive, **own)
    if shown is not table:
        clicks = frame.filter("positive").drop("label")
        no = {"label": pl.lit(0, pl.Int8), "positive": pl.lit(False)}
        samples = shown.rows().select(row=ROW, **exposed[0], **no, **context)
        frame = pl.concat([clicks, samples], how="diagonal_relaxed")
    if mapping.sample_users < 1:
        chosen = pl.col("user").hash(mapping.seed) < int(mapping.sample_users * 2**64)
        frame = frame.filter(chosen)
    if mapping.users:
        user_columns["user"] = values.identity(people, mapping.user)
        people.check()
        frame = frame.join(_unique(people, "user", user_columns).lazy(), on="user", how="left")
    about = about or {"source": Path(mapping.input).name, "licence": "your own"}
    negatives = Negatives(mapping.negatives, mapping.negatives_from, mapping.targets)
    return Log(
        events=frame,
        item_table=partial(_item_table, described, [ids, *item_features], item_columns),
        label=mapping.label if mapping.label and mapping.label not in RESERVED else "label",
        split=Split(mapping.split, mapping.train, mapping.valid),
        sample_features=sample_features,
        like=like,
        exposures=shown is not table,
        time_unit=unit,
        negatives=negatives if mapping.negatives else None,
        seed=mapping.seed,
        about=about
        | {"mapping": {k: v for k, v in asdict(mapping).items() if v not in (None, ())}},
    )


def _moments(tables: Sequence[Source], mapping: Mapping) -> tuple[list[Columns], str]:
    """Who did something, to which item, and when, in each table; and the unit of the times."""
    if mapping.time:
        times, unit = moments.times(
            tables, mapping.time, mapping.time_format, mapping.time_unit, mapping.time_range
        )
    elif mapping.order and mapping.order != ROW_ORDER:
        times, unit = [values.whole(table, mapping.order) for table in tables], "order"
    else:
        times, unit = [pl.col(ROW).cast(pl.Int64) for _ in tables], "order"
    columns = [
        {
            "user": values.identity(table, mapping.user),
            "item": values.identity(table, mapping.item),
            "time": time,
        }
        for table, time in zip(tables, times, strict=True)
    ]
    if mapping.test_input:
        columns[0]["test"] = pl.col(TEST)
    return columns, unit


def _label(table: Source, mapping: Mapping) -> tuple[pl.Expr, pl.Expr]:
    """1 for a positive interaction, otherwise 0; and whether the interaction joins the history."""
    if mapping.label:
        label = values.label(table, mapping.label)
    elif mapping.rating:
        least = POSITIVE if mapping.positive is None else mapping.positive
        label = (values.number(table, mapping.rating) >= least).cast(pl.Int8)
    elif mapping.action:
        done = table.read(mapping.action, lambda raw: raw.cast(pl.String), "an action")
        label = values.one_of(done, mapping.positive_actions).cast(pl.Int8)
        if mapping.history_actions:
            return label, values.one_of(done, mapping.history_actions)
    else:
        label = pl.lit(1, pl.Int8)
    return label, label == 1


def _features(
    table: Source, entries: Sequence[Any], mapping: Mapping
) -> tuple[list[Feature], Columns]:
    """The features that a mapping names, and the columns of the table that hold them."""
    features = [_feature(table, entry, mapping) for entry in entries]
    if features:
        kinds = ", ".join(f"{feature.name} {feature.kind}" for feature in features)
        print(f"features of {table.path}: {kinds}", flush=True)
    return features, {f.name: values.feature(table, f.column, f.kind) for f in features}


def _feature(table: Source, entry: Any, mapping: Mapping) -> Feature:
    """A feature from ``name``, ``name:kind`` or a mapping with ``name`` and fields of ``Feature``."""
    entry = as_entry(entry)
    name = entry["name"]
    given = {"min_count": mapping.min_count} | typed(f"feature {name}", entry, Feature)
    if name in RESERVED:
        raise UserError(
            f"feature {name} has a name that is taken, as are {', '.join(sorted(RESERVED))}; "
            f"rename the column, or write {{name: another, column: {name}}} in a mapping file"
        )
    if table.path == Path(mapping.input) and given["column"] in (mapping.label, mapping.rating):
        raise UserError(f"feature {name} is the label, which cannot be a feature; leave it out")
    if "kind" not in given:
        given["kind"] = values.guess(table, given["column"])
    return Feature(**given)


def _item_table(
    described: Source,
    features: list[Feature],
    columns: Columns,
    items: pl.DataFrame,
    times_N: NDArray,
    encoders: Encoders,
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """The item table and the features' specifications, see ``interactions.Log``.

    Args:
        described: a table of items or, without one, the interactions. There an item's features are
            those of its earliest row.
        features: what to make of the columns, with that of the id in front.
        columns: how to read the features from ``described``. Beside them, ``item`` is the id in a
            table of items, and ``row`` is the row of the interactions.
    """
    key = "item" if "item" in columns else "row"
    with readable(described.path):
        rows = described.rows().select(**columns)
        known = rows.join(items.lazy().select(key), on=key, how="semi").collect(engine="streaming")
    if key == "item":
        require_unique(described.path, "item", known["item"])
        missing = items.join(known, on="item", how="anti")["item"]
        lacks = (
            f"{described.path} lacks {len(missing):,} of {len(items):,} items of the interactions"
        )
        if len(missing) == len(items) and encoders.folder is None:
            raise UserError(f"{lacks}, such as {missing[0]!r}; check that both have the same ids")
        if len(missing):
            print(f"{lacks}, such as {missing[0]!r}; their features are unknown")
    raw = items.join(known, on=key, how="left", maintain_order="left").rename({"item": ITEM_ID})
    table, specs = encoders.item_table(raw, features, times_N)
    if specs[ITEM_ID]["vocab_size"] == FIRST:
        raise UserError(
            f"--min-count {features[0].min_count} is too large, for no item occurs so often in the "
            "training data; write a smaller one"
        )
    return table, specs


def _unique(table: Source, key: str, columns: Columns) -> pl.DataFrame:
    """A table with one row for each value of a key; rows that are equal are one."""
    with readable(table.path):
        rows = table.rows().select(**columns).unique().collect(engine="streaming")
    require_unique(table.path, key, rows[key])
    return rows
