"""Logs in which a row holds several events: all events of a user, or the candidates that it was shown."""

import polars as pl

from ..raw import values
from ..raw.lists import Entries, parallel
from ..raw.source import Source
from .mapping import Mapping
from .mapping_file import as_entry
from .mapping_keys import ROW_ORDER

FLAG = "--list-separator"
CANDIDATE = r"^(.*\S)\s*[-:]([01])$"  # an item and its label


def unfolded(table: Source, mapping: Mapping) -> Source:
    """A table with a row for each event; candidates of one row keep its ``ROW``."""
    columns = [mapping.candidates or mapping.item, mapping.label, mapping.rating, mapping.action]
    if mapping.events_in_row is not None:
        columns += [mapping.time, *mapping.events_in_row]
        columns += [mapping.order] if mapping.order != ROW_ORDER else []
        features = (*mapping.item_features, *mapping.sample_features, *mapping.event_features)
        for entry in map(as_entry, features):
            inside = isinstance(table.schema.get(entry["column"]), pl.List)
            if inside and entry.get("kind") not in ("sequence", "embedding"):
                columns.append(entry["column"])
    elif not mapping.candidates:
        return table
    names = [column for column in dict.fromkeys(columns) if column]
    lists = parallel(table, names, mapping.list_separator, FLAG)
    return Entries(table, lists, grouped=mapping.candidates is not None)


def items_of(table: Source, mapping: Mapping) -> pl.Expr:
    """The items of a log."""
    if mapping.candidates and not mapping.has_labels:
        return _candidate(table, mapping.candidates, 1)
    return values.identity(table, mapping.candidates or mapping.item)


def labels_of(table: Source, column: str) -> pl.Expr:
    """The labels of candidates such as ``N1-1``."""
    return _candidate(table, column, 2).cast(pl.Int8)


def _candidate(table: Source, column: str, part: int) -> pl.Expr:
    expects = "ITEM-1 or ITEM-0, or name the column of the labels with --label"
    return table.read(column, lambda raw: raw.cast(pl.String).str.extract(CANDIDATE, part), expects)
