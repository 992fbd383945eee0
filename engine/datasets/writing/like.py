"""A prepared data set that another log is encoded like: its mapping, its items, its encoders."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from ...common.errors import UserError
from ..prepared.card import card_beside
from ..prepared.stored import read_stored
from .encoders import SOURCES, Encoders, load
from .features import Feature


class Prepared:
    """A data set of ``prepare.py generic``, as the preparation of another log needs it.

    Args:
        folder: of the data set.
        grow: whether new items and values get ids of their own, after all known ones.
        sources: of the features that the other log is to have.

    Attributes:
        card: of the data set.
        kinds: where a feature of a name comes from, ``item``, ``sample`` or ``event``, and its kind.
        items: column ``item``; row i is the item of index i + 1.

    Raises:
        UserError: the data set keeps no encoders, or a file is missing or damaged.
    """

    def __init__(
        self, folder: Path, grow: bool = False, sources: Collection[str] = SOURCES
    ) -> None:
        self.folder, self.grow = folder, grow
        self.card = card_beside(folder / "train.parquet")
        if "mapping" not in self.card:
            raise UserError(
                f"{folder} is no data set of `prepare.py generic`, whose card has the mapping "
                "of its columns; name another folder"
            )
        by_source = self.encoders().by_source
        self.kinds = {e.feature.name: (s, e.feature.kind) for s in sources for e in by_source[s]}
        self.items = read_stored(folder, "item_ids", ["item"])
        if len(read_stored(folder, "item_info", ["item_index"])) != 1 + len(self.items):
            raise UserError(
                f"{folder}: item_info.parquet and item_ids.parquet have other items; prepare the data "
                "again"
            )

    def encoders(self) -> Encoders:
        """Its encoders, as they were when it was prepared."""
        return load(self.folder, self.grow)

    def with_items(self, items: pl.DataFrame) -> pl.DataFrame:
        """The items of the data set, and after them those of ``items`` that it does not have."""
        new = items.join(self.items, on="item", how="anti", maintain_order="left")
        print(f"{len(new):,} items are not in {self.folder}", flush=True)
        return pl.concat([self.items, new], how="diagonal")

    def described(self, encoders: Encoders) -> dict[str, Any]:
        """What the card of a data set says that is like this one and has these encoders."""
        about = {"like": {key: self.card[key] for key in ("dataset_id", "hash")}}
        return about | ({"grown": encoders.grown()} if self.grow else {})

    def require_same(self, **features: list[Feature]) -> None:
        """Reject other features than those of the data set.

        Args:
            features: of ``item``, ``sample`` and ``event``.

        Raises:
            UserError: names the first feature that differs.
        """
        kinds = {f.name: (source, f.kind) for source in features for f in features[source]}
        for name in self.kinds | kinds:
            here, there = (" ".join(k.get(name, ["missing"])) for k in (kinds, self.kinds))
            if here != there:
                raise UserError(
                    f"feature {name} is {here} here and {there} in {self.folder}, but --like needs "
                    "the same features; leave the flags of features out, or write NAME:KIND"
                )
