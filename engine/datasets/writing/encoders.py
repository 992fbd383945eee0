"""The encoders of a data set, which its folder keeps, so that other rows can be encoded like it.

``encoders/encoders.json`` describes each feature and what its encoder learned. A vocabulary is a
Parquet file beside it, with the columns ``value`` and ``id``.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.files import read_json
from ...common.schema import ABSENT, Count, Name, NotBelow0, Schema, Size, check, one_of
from ...config.feature_map_file import read_feature_map
from ..prepared.card import MEND
from ..prepared.layout import ENCODERS
from ..prepared.stored import read_stored
from .features import EVENT, CategoricalEncoder, Encoder, Feature

FILE = "encoders.json"
# The row that holds a feature, and what FuxiCTR's specification says of it.
SOURCES: dict[str, dict[str, Any]] = {"item": {"source": "item"}, "sample": {}, "event": {}}


class Learned(Schema):
    """What the encoder of a ``Feature`` learned."""

    source: Annotated[str, one_of(*SOURCES)]
    vocabulary: Name = ABSENT
    longest: Size = ABSENT
    width: Count = ABSENT
    edges: list[float] = ABSENT
    mean: float = ABSENT
    deviation: NotBelow0 = ABSENT


class Encoders:
    """The encoders of a data set, new ones or loaded ones.

    Args:
        folder: the data set that loaded ones come from. New items follow those of its item table.

    Attributes:
        by_source: the encoders of the features of ``item``, ``sample`` and ``event``.
        themes: for each item the raw values of its categories, see ``Encoder.theme``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.themes = folder, pl.DataFrame()
        self.by_source: dict[str, list[Encoder]] = {source: [] for source in SOURCES}

    def of(self, source: str, features: list[Feature]) -> list[Encoder]:
        """The encoders of all features of a source. Loaded ones stay in their order."""
        if self.folder is None:
            self.by_source[source] = [feature.encoder(source) for feature in features]
        named = {feature.name: feature for feature in features}
        for encoder in self.by_source[source]:
            encoder.feature = named[encoder.feature.name]
        return self.by_source[source]

    def specs(self, source: str) -> dict[str, dict[str, Any]]:
        """FuxiCTR's specification of the features of a source."""
        return {e.feature.name: SOURCES[source] | e.spec() for e in self.by_source[source]}

    def event_cols(self) -> list[dict[str, Any]]:
        """The features of events as a configuration names them."""
        specs = self.specs("event").items()
        return [
            {"name": name.removeprefix(EVENT), "vocab_size": spec["vocab_size"]}
            for name, spec in specs
        ]

    def item_table(
        self, items: pl.DataFrame, features: list[Feature], times_N: NDArray
    ) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
        """The item table of a data set, and FuxiCTR's specification of its features.

        Args:
            items: a raw column for each feature. Its rows follow those of the item table that
                loaded encoders come with or, for new ones, the padding.
            features: what to make of the columns; the first is the item's id.
            times_N: how often each item occurs in the training data.
        """
        known = ids = pl.DataFrame()
        if self.folder is not None:
            known, ids = (read_stored(self.folder, name) for name in ("item_info", "item_ids"))
        columns: dict[str, pl.Series] = {}
        for encoder in self.of("item", features):
            name = encoder.feature.name
            encoder.observe(items[name], times_N)
            encoded = encoder.encode(items[name])
            before = _padding(encoded) if self.folder is None else known[name]
            if name in ids.columns and encoder.feature.kind == "categorical":
                # A known item may have a value that had no id, and has one now.
                before = pl.concat([before[:1], encoder.encode(ids[name])])
            columns[name] = pl.concat([before, encoded])
        _, *others = (
            (e.feature.name, e.theme(items[e.feature.name])) for e in self.by_source["item"]
        )
        new = pl.DataFrame({name: theme for name, theme in others if theme is not None})
        self.themes = pl.concat([ids, new], how="diagonal_relaxed").select(new.columns)
        table = pl.DataFrame(columns)
        index = pl.int_range(pl.len(), dtype=pl.Int64).alias("item_index")
        return table.select(index, pl.all()), self.specs("item")

    def grown(self) -> dict[str, int]:
        """How many values got ids that they did not have when the encoders were loaded."""
        every = [
            e for es in self.by_source.values() for e in es if isinstance(e, CategoricalEncoder)
        ]
        new = {e.feature.name: len(e.vocabulary()) - len(e.known) for e in every}
        return {name: count for name, count in new.items() if count}

    def save(self, folder: Path) -> None:
        """Write the encoders, if there are any, into the folder of a data set."""
        entries: list[dict[str, Any]] = []
        for source, encoders in self.by_source.items():
            for encoder in encoders:
                (folder / ENCODERS).mkdir(exist_ok=True)
                entry = {"source": source} | asdict(encoder.feature)
                entry |= {name: getattr(encoder, name) for name in encoder.STATE}
                if isinstance(encoder, CategoricalEncoder):
                    entry["vocabulary"] = f"{len(entries)}.parquet"
                    encoder.vocabulary().write_parquet(folder / ENCODERS / entry["vocabulary"])
                entries.append(entry)
        if entries:
            (folder / ENCODERS / FILE).write_text(json.dumps(entries, indent=2))


def load(folder: Path, grow: bool = False) -> Encoders:
    """The encoders that a data set keeps; they encode as they did when it was prepared.

    Args:
        folder: a prepared data set.
        grow: whether ``observe`` still gives ids to new values, after the known ones.

    Raises:
        UserError: the data set keeps no encoders, or they are damaged.
    """
    path = folder / ENCODERS / FILE
    if not path.exists():
        raise UserError(
            f"{folder} keeps no encoders, for there is no {path}; name a data set that "
            "`prepare.py generic` wrote, or prepare this one again"
        )
    loaded = Encoders(folder)
    prepared, _ = read_feature_map(folder / "feature_map.json")
    try:
        entries = read_json(path, list[Learned], MEND)
        features = check(path, entries, list[Feature], MEND)
        for feature, entry in zip(features, entries, strict=True):
            encoder = _restored(path, feature, entry)
            encoder.fixed, encoder.grows = True, grow
            loaded.by_source[entry["source"]].append(encoder)
        specs = loaded.specs("item") | loaded.specs("sample")
        for name in specs | prepared:
            if specs.get(name, {"type": "meta"}) != prepared.get(name):
                raise ValueError(f"{name} is not as in feature_map.json")
    except (KeyError, ValueError) as error:
        reason = f"an entry lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: {reason}; {MEND}") from None
    return loaded


def digest(folder: Path) -> str:
    """A digest of how a data set encodes values, which data sets prepared like it share; empty without
    encoders."""
    if not (folder / ENCODERS / FILE).exists():
        return ""
    found = hashlib.sha256()
    for source, encoders in load(folder).by_source.items():
        for encoder in encoders:
            state = {name: getattr(encoder, name) for name in encoder.STATE}
            found.update(f"{source} {encoder.feature.name} {encoder.feature.kind} {state}".encode())
            if isinstance(encoder, CategoricalEncoder):
                values = encoder.known["value"].cast(pl.String)
                found.update(values.str.join("\n").item().encode())
    return found.hexdigest()[:16]


def _restored(path: Path, feature: Feature, entry: dict[str, Any]) -> Encoder:
    """The encoder of a feature that an entry of ``encoders.json`` describes."""
    encoder = feature.encoder(entry["source"])
    for name in encoder.STATE:
        setattr(encoder, name, entry[name])
    if isinstance(encoder, CategoricalEncoder):
        file = path.parent / entry["vocabulary"]
        try:
            vocabulary = pl.read_parquet(file, glob=False).sort("id")
            encoder.known = vocabulary.select("value")
        except (OSError, pl.exceptions.PolarsError):
            raise ValueError(f"{file.name} cannot be read") from None
        if not encoder.vocabulary().equals(vocabulary):
            raise ValueError(f"{file.name} lacks an id, or has one twice")
    return encoder


def _padding(encoded: pl.Series) -> pl.Series:
    """The zero, or the list of zeros, of the padding item."""
    zero = [0] * len(encoded[0]) if isinstance(encoded.dtype, pl.List) else 0
    return pl.Series([zero], dtype=encoded.dtype)
