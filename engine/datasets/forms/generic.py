"""Any table of interactions as a data set: the user only says which column is what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import polars as pl

from ..raw import moments, values
from ..raw.raw_files import PART, TEST, Form
from ..raw.source import ROW, Source
from ..writing import chance
from ..writing.features import Feature
from ..writing.like import Prepared
from ..writing.log import Log
from ..writing.negatives import Negatives
from ..writing.samples import REQUEST, Split
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
    form = replace(text_form(mapping, mapping.columns), partitioned=mapping.partitioned)
    lenient = mapping.bad_rows == "leave_out"
    table = unfolded(Source(mapping.input, form, mapping.test_input, lenient), mapping)
    shown = Source(mapping.exposures, form, lenient=lenient) if mapping.exposures else table
    tables = [table] if shown is table else [table, shown]
    columns, unit = _moments(tables, mapping, varied=like is None)
    label, positive = _label(table, mapping)
    if mapping.history:
        columns[0] |= shown_lists(table, mapping, columns[0], unit)
        positive = pl.lit(False)
    context = Described(shown, mapping.sample_features, mapping)
    of_events = Described(table, mapping.event_features, mapping, of_events=True)
    own_items = Described(table, () if mapping.items else mapping.item_features, mapping)
    items = _described(mapping, "item") or own_items
    people = _described(mapping, "user")
    features = [*context.features, *(people.features if people else ())]
    require_distinct([*features, *items.features, *of_events.features])
    ids = Feature(ITEM_ID, "categorical", min_count=mapping.min_count)
    if like is not None:
        own = {"item": [ids, *items.features], "sample": features, "event": of_events.features}
        like.require_same(**own)
    left_out = sum((Counter(source.check()) for source in tables), Counter[str]())
    columns[-1] |= {"label": pl.lit(0, pl.Int8), "positive": pl.lit(False)}
    columns[0] |= of_events.columns | {"label": label, "positive": positive}
    columns[-1] |= context.columns
    frames = [t.rows().select(row=ROW, **own) for t, own in zip(tables, columns, strict=True)]
    if shown is not table:
        frames[0] = frames[0].filter("positive").drop("label")
    frame = pl.concat(frames, how="diagonal_relaxed")
    if mapping.sample_users < 1:
        frame = frame.filter(_chosen(mapping.seed, mapping.sample_users))
    if people:
        frame = with_users(frame, people)
    negatives = Negatives(mapping.negatives, mapping.negatives_from, mapping.targets)
    name = mapping.source or Path(mapping.input).name
    about = {"source": name, "licence": mapping.licence, "mapping": mapping.said()}
    return Log(
        events=frame,
        item_table=partial(item_rows, items, ids),
        label=mapping.label if mapping.label and mapping.label not in RESERVED else "label",
        split=Split(mapping.split, mapping.train, mapping.valid),
        sample_features=features,
        event_features=of_events.features,
        like=like,
        exposures=shown is not table,
        time_unit=unit,
        negatives=negatives if mapping.negatives else None,
        seed=mapping.seed,
        about=about | {"left_out": left_out},
    )


def text_form(mapping: Mapping, columns: tuple[str, ...]) -> Form:
    """How the texts of a table of a mapping are written.

    Args:
        columns: its names of columns, where it has no header.
    """
    return Form(mapping.separator, not mapping.no_quotes, columns)


def _chosen(seed: int, share: float) -> pl.Expr:
    """Whether a row is of the share of users that is read, for ever the same ones."""

    def chosen(users: pl.Series) -> pl.Series:
        numbers = [crc32(user.encode()) for user in users.fill_null("")]
        return pl.Series(chance.uniform(chance.keys(seed, np.array(numbers)), 0) < share)

    return pl.col("user").map_batches(chosen, pl.Boolean, is_elementwise=True)


def _described(mapping: Mapping, what: Literal["item", "user"]) -> Described | None:
    """The table of items or users, if a mapping names one, with every value of it checked."""
    path, entries = getattr(mapping, f"{what}s"), getattr(mapping, f"{what}_features")
    if path is None:
        return None
    columns, key = getattr(mapping, f"{what}s_columns"), getattr(mapping, f"{what}s_key")
    table = Source(path, text_form(mapping, columns))
    described = Described(table, entries, mapping, key or getattr(mapping, what))
    table.check()
    return described


def _moments(tables: Sequence[Source], mapping: Mapping, varied: bool) -> tuple[list[Columns], str]:
    """Who did something, to which item, and when, in each table; and the unit of the times."""
    if mapping.time:
        form = (mapping.time_format, mapping.time_unit, mapping.time_range)
        parse, expects, unit = moments.times(tables, mapping.time, *form, varied)
        times = [table.read(mapping.time, parse, expects) for table in tables]
    elif mapping.order == ROW_ORDER:
        times, unit = [pl.col(ROW).cast(pl.Int64)], "order"
    else:
        times, unit = [values.whole(tables[0], str(mapping.order))], "order"
    columns: list[Columns] = []
    for table, time in zip(tables, times, strict=True):
        user = values.identity(table, mapping.user)
        columns.append({"user": user, "item": items_of(table, mapping), "time": time})
    if mapping.test_input:
        columns[0]["test"] = pl.col(TEST)
    if mapping.candidates:
        columns[0]["group"] = pl.col(ROW)
    if mapping.impression:  # of the samples, which are in the last table
        columns[-1][REQUEST] = values.identity(tables[-1], mapping.impression)
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
            said = ", ".join(map(str, mapping.positive_actions))
            print(f"rows with other actions than {said} are label 0")
        if mapping.history_actions:
            return label, values.one_of(done, mapping.history_actions)
    elif mapping.candidates:
        label = labels_of(table, mapping.candidates)
    else:
        label = pl.lit(1, pl.Int8)
    return label, label == 1
