"""What describes the items, users and samples of a table: features, and the tables that hold them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ...common.errors import UserError
from ...config.feature_columns import OF_MODULES
from ..prepared.layout import META
from ..raw import lists, values
from ..raw.source import ROW, Source, require_unique
from ..writing.encoders import Encoders
from ..writing.features import EVENT, FIRST, Feature
from ..writing.histories import LISTS
from ..writing.samples import CARRIED, REQUEST
from .mapping import Mapping
from .mapping_file import as_entry, typed

ITEM_ID = "item_id"  # the feature that every item has
RESERVED = {"row", "user", "item", "label", "positive", "split", ITEM_ID, *META, *CARRIED, *LISTS}
TAKEN = RESERVED | {"block", "part", "ends", "clicked", "visit", "chance", "owner", "pool", "index"}
TAKEN |= {f"{EVENT}time_gap", REQUEST}  # the loader computes the first


class Described:
    """Features, and the columns of a table that hold them.

    Args:
        table: a table of items or users; or the interactions, which describe their items and
            samples.
        entries: the features as a mapping names them.
        mapping: of the interactions.
        key: the column of the ids in a table of items or users.
        of_events: whether they describe the events of histories, and not a sample. Then they may be what
            the user did, and their columns are called ``event_NAME``.

    Attributes:
        features: what to make of the columns.
        columns: how to read them. Beside them, ``key`` is the id in a table of items or users, and
            ``row`` the row of interactions.
    """

    def __init__(
        self,
        table: Source,
        entries: Sequence[Any],
        mapping: Mapping,
        key: str | None = None,
        of_events: bool = False,
    ) -> None:
        self.table, self.keyed = table, key is not None
        self.features = [_feature(table, entry, mapping, of_events) for entry in entries]
        if self.features:
            kinds = ", ".join(f"{feature.name} {feature.kind}" for feature in self.features)
            print(f"features of {table.path}: {kinds}", flush=True)
        self.columns = {feature.name: _values(table, feature) for feature in self.features}
        self.key = pl.col(ROW) if key is None else values.identity(table, key)

    def rows(self, what: str, known: pl.LazyFrame, some: bool = True) -> pl.DataFrame:
        """The rows of some users or items, with their ids in the column ``what``.

        Args:
            known: has the ids in ``what`` or, if the table is the interactions, in ``row``.
            some: whether the table must have one of them.

        Raises:
            UserError: the table has two rows for an id, or has none of the ids.
        """
        name = what if self.keyed else "row"
        rows = self.table.rows().select(**{name: self.key}, **self.columns)
        rows = rows.join(known.select(name), on=name, how="semi").unique(maintain_order=True)
        found = self.table.collect(rows)
        if self.keyed:
            ids = known.collect(engine="streaming")
            require_unique(self.table.path, what, found[what])
            missing = ids.join(found, on=what, how="anti")[what]
            lacks = f"{self.table.path} lacks {len(missing):,} of {len(ids):,} {what}s of the interactions"
            if some and len(missing) == len(ids):
                raise UserError(
                    f"{lacks}, such as {missing[0]!r}; check that both have the same ids"
                )
            if len(missing):
                print(f"{lacks}, such as {missing[0]!r}; their features are unknown")
        return found


def item_rows(
    described: Described, ids: Feature, items: pl.DataFrame, times_N: NDArray, encoders: Encoders
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """The item table and the features' specifications, see ``log.Log``.

    Args:
        described: a table of items; or the interactions, where an item's features are those of its
            earliest row.
        ids: the feature that is the item itself.
    """
    known = described.rows("item", items.lazy(), some=encoders.folder is None)
    key = known.columns[0]
    raw = items.join(known, on=key, how="left", maintain_order="left").rename({"item": ITEM_ID})
    table, specs = encoders.item_table(raw, [ids, *described.features], times_N)
    if specs[ITEM_ID]["vocab_size"] == FIRST:
        raise UserError(
            f"--min-count {ids.min_count} is too large, for no item occurs so often in the "
            "training data; write a smaller one"
        )
    return table, specs


def with_users(events: pl.LazyFrame, described: Described) -> pl.LazyFrame:
    """Events with the features of their users, which are those of the samples."""
    users = described.rows("user", events.select("user").unique())
    return events.join(users.lazy(), on="user", how="left")


def require_distinct(features: Iterable[Feature]) -> None:
    """Reject two features of one name."""
    names = [feature.name for feature in features]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"feature {name} is named twice; leave one out, or rename it")


def _event_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a feature of events, with the name of its column."""
    if (kind := entry.get("kind")) not in ("categorical", "numeric"):
        said, column = f"is {kind!r}" if kind else "has no kind", entry["column"]
        raise UserError(
            f"--event-features: {column} {said}; write {column}:categorical or {column}:numeric"
        )
    return entry | {"name": f"{EVENT}{entry['name']}"}


def _feature(table: Source, entry: Any, mapping: Mapping, of_event: bool) -> Feature:
    """A feature from ``name``, ``name:kind`` or a mapping with ``name`` and fields of ``Feature``."""
    entry = _event_entry(as_entry(entry)) if of_event else as_entry(entry)
    name = entry["name"]
    given = {"min_count": mapping.min_count} | typed(f"feature {name}", entry, Feature)
    told = (mapping.label, mapping.rating, mapping.action, mapping.candidates)
    if table.path == Path(mapping.input) and given["column"] in told and not of_event:
        raise UserError(f"feature {name} is the label or tells it; leave it out")
    if name in (*TAKEN, *OF_MODULES.split(), mapping.label):
        raise UserError(
            f"feature {name} has a name that is taken, as are {', '.join(sorted(TAKEN))}; "
            f"rename the column, or write {{name: another, column: {name}}} in a mapping file"
        )
    if "kind" not in given:
        given["kind"] = values.guess(table, given["column"])
    if "missing" in given and given["kind"] != "categorical":
        raise UserError(f"feature {name} is {given['kind']}, and `missing` is for categorical ones")
    return Feature(**given)


def _values(table: Source, feature: Feature) -> pl.Expr:
    if feature.kind == "sequence" and table.kind(feature.column) == pl.String:
        value = lists.lists(table, feature.column, feature.separator)
    else:
        value = values.feature(table, feature.column, feature.kind)
    if feature.kind == "sequence":  # 1 and 1.0 are one value here, too
        return value.list.eval(values.as_id(pl.String())(pl.element()))
    if feature.missing is None:
        return value
    return pl.when(value != str(feature.missing)).then(value)
