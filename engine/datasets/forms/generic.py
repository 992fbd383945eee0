"""Any table of interactions as a data set: the user only says which column is what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ..raw import moments, values
from ..raw.raw_files import PART, TEST, Form
from ..raw.source import ROW, Source
from ..writing.features import Feature
from ..writing.like import Prepared
from ..writing.log import Log
from ..writing.negatives import Negatives
from ..writing.samples import Split
from .described import ITEM_ID, RESERVED, Described, item_rows, require_distinct, with_users
from .mapping import Mapping
from .mapping_keys import ROW_ORDER
from .shown import shown_lists
from .unfolded import items_of, labels_of, unfolded

POSITIVE = 4.0  # the least rating that counts, unless the mapping says otherwise
Columns = dict[str, pl.Expr]


def load(mapping: Mapping, like: Prepared | None = None) -> Log:
    """The log that a mapping describes, with every value of it checked.

    Args:
        like: the data set that the log is encoded like.

    Raises:
        UserError: names the file, the column and the row.
    """
    quoted = not mapping.no_quotes
    form = Form(mapping.separator, quoted, mapping.columns, mapping.partitioned)
    lenient = mapping.bad_rows == "leave_out"
    table = unfolded(Source(mapping.input, form, mapping.test_input, lenient), mapping)
    shown = Source(mapping.exposures, form, lenient=lenient) if mapping.exposures else table
    tables = [table] if shown is table else [table, shown]
    columns, unit = _moments(tables, mapping)
    label, positive = _label(table, mapping)
    if mapping.history:
        columns[0] |= shown_lists(table, mapping, columns[0]["time"], unit)
        positive = pl.lit(False)
    context = Described(shown, mapping.sample_features, mapping)
    own_items = Described(table, () if mapping.items else mapping.item_features, mapping)
    items = _described(mapping, "item") or own_items
    people = _described(mapping, "user")
    features = [*context.features, *(people.features if people else ())]
    require_distinct([*features, *items.features])
    ids = Feature(ITEM_ID, "categorical", min_count=mapping.min_count)
    if like is not None:
        like.require_same(item=[ids, *items.features], sample=features)
    left_out = sum((Counter(source.check()) for source in tables), Counter[str]())
    own = context.columns if shown is table else {}
    frame = table.rows().select(row=ROW, **columns[0], label=label, positive=positive, **own)
    if shown is not table:
        clicks = frame.filter("positive").drop("label")
        no = {"label": pl.lit(0, pl.Int8), "positive": pl.lit(False)}
        samples = shown.rows().select(row=ROW, **columns[1], **no, **context.columns)
        frame = pl.concat([clicks, samples], how="diagonal_relaxed")
    if mapping.sample_users < 1:
        chosen = pl.col("user").hash(mapping.seed) < int(mapping.sample_users * 2**64)
        frame = frame.filter(chosen)
    if people:
        frame = with_users(frame, people)
    negatives = Negatives(mapping.negatives, mapping.negatives_from, mapping.targets)
    about: dict[str, Any] = {"source": mapping.source or Path(mapping.input).name}
    about |= {"licence": mapping.licence, "mapping": mapping.said(), "left_out": left_out}
    return Log(
        events=frame,
        item_table=partial(item_rows, items, ids),
        label=mapping.label if mapping.label and mapping.label not in RESERVED else "label",
        split=Split(mapping.split, mapping.train, mapping.valid),
        sample_features=features,
        like=like,
        exposures=shown is not table,
        time_unit=unit,
        negatives=negatives if mapping.negatives else None,
        seed=mapping.seed,
        about=about,
    )


def _described(mapping: Mapping, what: Literal["item", "user"]) -> Described | None:
    """The table of items or users, if a mapping names one, with every value of it checked."""
    path, entries = getattr(mapping, f"{what}s"), getattr(mapping, f"{what}_features")
    if path is None:
        return None
    columns, key = getattr(mapping, f"{what}s_columns"), getattr(mapping, f"{what}s_key")
    table = Source(path, Form(mapping.separator, not mapping.no_quotes, columns))
    described = Described(table, entries, mapping, key or getattr(mapping, what))
    table.check()
    return described


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
            "item": items_of(table, mapping),
            "time": time,
        }
        for table, time in zip(tables, times, strict=True)
    ]
    if mapping.test_input:
        columns[0]["test"] = pl.col(TEST)
    if mapping.candidates:
        columns[0]["group"] = pl.col(ROW)
    if mapping.partitioned:
        columns[0][PART] = pl.col(PART)
    return columns, unit


def _label(table: Source, mapping: Mapping) -> tuple[pl.Expr, pl.Expr]:
    """1 for a positive interaction, otherwise 0; and whether the interaction joins the history."""
    if mapping.label:
        label = values.label(table, mapping.label)
    elif mapping.rating:
        least = POSITIVE if mapping.positive is None else mapping.positive
        label = (values.number(table, mapping.rating) >= least).cast(pl.Int8)
    elif mapping.action:
        chosen = (*mapping.positive_actions, *mapping.history_actions)
        done = values.action(table, mapping.action, chosen)
        label = values.one_of(done, mapping.positive_actions).cast(pl.Int8)
        if mapping.positive_actions and not (mapping.negatives or mapping.exposures):
            print(
                f"rows with other actions than {', '.join(map(str, mapping.positive_actions))} are label 0"
            )
        if mapping.history_actions:
            return label, values.one_of(done, mapping.history_actions)
    elif mapping.candidates:
        label = labels_of(table, mapping.candidates)
    else:
        label = pl.lit(1, pl.Int8)
    return label, label == 1
