"""Logs in which a row holds several events: all events of a user, or the candidates that it was shown."""

from __future__ import annotations

import polars as pl

from ..forms.mapping import Mapping
from ..forms.mapping_file import as_entry
from ..forms.mapping_keys import ROW_ORDER
from . import values
from .lists import Entries, parallel
from .source import ROW, Source

FLAG = "--list-separator"
FILE_ROW = "#file row"  # the row of the table that an event stands in
CANDIDATE = r"^(.*\S)\s*[-:]([01])$"  # an item and its label


class Events(Entries):
    """One row for each event of a table that has a row for each user.

    Attributes:
        frame: ``ROW`` numbers the events, in the order of the file and of each list.
    """

    located_by = FILE_ROW

    def __init__(self, table: Source, mapping: Mapping) -> None:
        columns = [mapping.item, mapping.time, mapping.label, mapping.rating, mapping.action]
        columns += [mapping.order if mapping.order != ROW_ORDER else None]
        columns += mapping.events_in_row or ()
        for entry in map(as_entry, (*mapping.item_features, *mapping.sample_features)):
            inside = isinstance(table.schema.get(entry["column"]), pl.List)
            if inside and entry.get("kind") not in ("sequence", "embedding"):
                columns.append(entry["column"])
        names = [column for column in dict.fromkeys(columns) if column]
        super().__init__(table, parallel(table, names, mapping.list_separator, FLAG))
        self._start(self.frame.rename({ROW: FILE_ROW}).with_row_index(ROW), table.parts)


class Candidates(Entries):
    """One row for each candidate; those of one row of the table have its ``ROW``."""

    def __init__(self, table: Source, mapping: Mapping) -> None:
        assert mapping.candidates
        told = (mapping.candidates, mapping.label, mapping.rating, mapping.action)
        names = [column for column in told if column]
        super().__init__(table, parallel(table, names, mapping.list_separator, FLAG))


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
