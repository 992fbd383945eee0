"""Histories as lists in the rows: what each row of a log shows of its user."""

from collections.abc import Callable

import polars as pl

from ...common.errors import UserError
from ..raw import moments, values
from ..raw.lists import Entries, parallel
from ..raw.source import EXAMPLES, PLACE, SAMPLE, Parse, Source, examples
from .mapping import Mapping

FLAG = "--history-separator"
CARRIER = "#carrier"  # whether a row has the list of its row in the file


def shown_lists(
    table: Source, mapping: Mapping, own: dict[str, pl.Expr], unit: str
) -> dict[str, pl.Expr]:
    """What the rows of a table show of their users: ``history`` and, if named, ``history_time``.

    Entries are ids and moments, oldest first. Of a row that became several, the first has them,
    and any that follows a bad one, which may be left out.

    Args:
        table: has read its other columns already.
        own: the ``item`` and the ``time`` of a row.
        unit: of the times.

    Raises:
        UserError: the lists have other times or items than the rows. What is wrong in one row
            ``check`` finds.
    """
    item, moment, action = mapping.history, mapping.history_time, mapping.history_action
    assert item
    columns = [column for column in (item, moment, action) if column]
    table.require(*columns)
    carrier = pl.col(PLACE) == 0 if PLACE in table.schema else pl.lit(True)
    if table.lenient:
        carrier |= pl.any_horizontal(bad for _, bad, _ in table.checks).shift(1)
    frame, carrier = table.frame.with_columns(carrier.alias(CARRIER)), pl.col(CARRIER)
    table.frame = frame.with_columns(pl.when(carrier).then(pl.col(columns)))
    lists = parallel(table, columns, mapping.history_separator, FLAG)
    kind = table.kind(item)
    lists[item] = _each(lists[item], values.as_id(getattr(kind, "inner", kind)))
    if mapping.history_padding is not None:
        padding = str(mapping.history_padding)
        lists = _where(lists, item, lambda entry: entry.fill_null("") != padding)
    if action:
        kept = mapping.history_actions or mapping.positive_actions
        lists = _where(lists, action, lambda entry: values.one_of(entry.cast(pl.String), kept))
    _require_items(table, item, lists[item], own["item"])
    expects = "an id in each place, or name what fills empty places with --history-padding"
    table.checks.append((item, lists[item].list.contains(None), expects))
    found = {"history": lists[item]}
    if moment:
        found["history_time"] = _times(table, moment, lists[moment], mapping, unit)
    if mapping.history_order == "newest":
        found = {name: values.list.reverse() for name, values in found.items()}
    if moment:
        times = found["history_time"]
        falling, late = times.list.diff().list.min() < 0, times.list.max() > own["time"]
        order = "times that do not fall, or --history-order newest if the newest entry is first"
        table.checks.append((moment, falling.fill_null(False), order))
        future = f"times up to that of the row in column {mapping.time}, for later ones tell what follows"
        table.checks.append((moment, late.fill_null(False), future))
    return {name: pl.when(carrier).then(values) for name, values in found.items()}


def _require_items(table: Source, column: str, lists: pl.Expr, item: pl.Expr) -> None:
    """Reject lists with entries such as ``item:category:time`` beside rows whose items are plain."""
    rows = table.frame.select(entries=lists.list.head(EXAMPLES), item=item).head(SAMPLE)
    first = table.collect(rows)  # a look into whole lists would read the whole table
    entries, items = first["entries"].explode().drop_nulls(), first["item"]
    if len(entries) and entries.str.contains(":").all() and not items.str.contains(":").any():
        raise table.wrong(
            column,
            f": entries such as {examples(entries)} hold more than an item such as {examples(items)}; "
            "write the items alone, and times or actions as lists in columns of their own",
        )


def _times(table: Source, column: str, lists: pl.Expr, mapping: Mapping, unit: str) -> pl.Expr:
    """The moments in lists, which must be in the unit of the rows' moments."""
    entries = [Entries(table, {column: lists})]
    parse, expects, own = moments.times(entries, column, mapping.time_format, mapping.time_unit)
    if own != unit:
        raise UserError(
            f"{table.path}: the times in column {column} are read as {own}, and those in column "
            f"{mapping.time} as {unit}; bring both into one unit"
        )
    times = _each(lists, parse)
    table.checks.append((column, times.list.contains(None), f"{expects} in each place"))
    return times


def _each(lists: pl.Expr, parse: Parse) -> pl.Expr:
    return lists.list.eval(parse(pl.element()))


def _where(
    lists: dict[str, pl.Expr], name: str, keep: Callable[[pl.Expr], pl.Expr]
) -> dict[str, pl.Expr]:
    """Parallel lists without the places where an entry of the list ``name`` is not to be kept."""
    places = lists[name].list.eval(keep(pl.element()).arg_true())
    return {name: values.list.gather(places) for name, values in lists.items()}
