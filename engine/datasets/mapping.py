"""What the columns of a table of interactions mean, said by flags or by a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from ..common.errors import UserError, did_you_mean
from ..config.convert import WRONG, convert, describe
from ..config.read import read_yaml


@dataclass(frozen=True)
class Mapping:
    """What the columns of a table mean.

    Attributes:
        input: file, folder or pattern of the interactions, see ``source.Source``.
        separator, no_quotes: how text files are written, see ``source.Source``.
        user, item, time: columns. Ids may be anything; times are numbers or dates.
        time_format: how times are written as texts, in strftime's letters, where it cannot be
            guessed.
        label: a column of 0 and 1.
        rating: a column of numbers, instead of ``label``; an interaction is positive from
            ``positive`` (4) on. Without either, every interaction is positive.
        exposures: file or folder of what was shown, with the same ``user``, ``item`` and ``time``
            columns. Its rows are the samples then, see ``interactions.Log``.
        items: file or folder with one row for each item, which has the column ``item``.
        item_features: columns of ``items`` or, without it, of the interactions.
        sample_features: columns of the rows that become samples.
        min_count: how often an id or a category must occur in training to have its own embedding.
        split, train, valid: see ``interactions.Split``.
    """

    input: str
    user: str
    item: str
    time: str
    separator: str | None = None
    no_quotes: bool = False
    time_format: str | None = None
    label: str | None = None
    rating: str | None = None
    positive: int | float | None = None  # the card shows it as it is written
    exposures: str | None = None
    items: str | None = None
    item_features: list[Any] = field(default_factory=list)
    sample_features: list[Any] = field(default_factory=list)
    min_count: int = 1
    split: Literal["time", "user"] = "time"
    train: float = 0.8
    valid: float = 0.1

    def __post_init__(self) -> None:
        columns = (self.user, self.item, self.time)
        if len(set(columns)) < 3:
            names = ", ".join(columns)
            raise UserError(
                f"--user, --item and --time must name three different columns; got {names}"
            )
        if self.label and self.rating:
            raise UserError("--label and --rating exclude each other; write one of them")
        if self.positive is not None and not self.rating:
            raise UserError(f"--positive {self.positive} has no meaning without --rating; add it")
        if not (self.label or self.rating or self.exposures):
            raise UserError(
                "without --label or --rating every interaction is a click, and nothing can be learned "
                "from clicks alone; name a column, or --exposures for what was shown"
            )
        if self.item_features and self.exposures and not self.items:
            raise UserError(
                "--item-features with --exposures need a table with a row for each item; add --items"
            )
        if self.min_count < 1:
            raise UserError(f"--min-count {self.min_count} is too small; write 1 or more")
        if min(self.train, self.valid) <= 0 or self.train + self.valid >= 1:
            raise UserError(
                "--train and --valid must be shares above 0 and together below 1; got "
                f"{self.train} and {self.valid}"
            )


PATHS = ("input", "exposures", "items")


def typed(where: str, given: dict[str, Any], form: type) -> dict[str, Any]:
    """Values for the fields of a dataclass, each as the type of its field, and no value that is None.

    Raises:
        UserError: a key is no field, or a value is of another kind.
    """
    hints, values = get_type_hints(form), {}
    for key, value in given.items():
        if key not in hints:
            raise UserError(f"{where}: the key {key!r} is unknown{did_you_mean(key, hints)}")
        try:
            if value is not None:
                values[key] = convert(value, hints[key])
        except WRONG:
            raise UserError(f"{where}: {key} is {value!r}; write {describe(hints[key])}") from None
    return values


def as_entry(feature: Any) -> dict[str, Any]:
    """Fields of ``features.Feature``, of which there is a ``name``, a ``column`` and maybe others.

    Args:
        feature: ``name``, ``name:kind`` or a mapping with ``name``.

    Raises:
        UserError: there is no name.
    """
    if isinstance(feature, str):
        name, _, kind = feature.partition(":")
        feature = {"name": name} | ({"kind": kind} if kind else {})
    if not isinstance(feature, dict) or not isinstance(feature.get("name"), str):
        raise UserError(
            f"feature {feature!r} has no name; write a column, column:kind, or "
            "{name: ..., kind: ...}"
        )
    # A dot cannot be in the name of a torch module, and each feature has a module.
    return {"column": feature["name"]} | feature | {"name": feature["name"].replace(".", "_")}


def read_mapping(
    file: str | None, flags: dict[str, Any], like: dict[str, Any] | None = None
) -> Mapping:
    """The mapping of a YAML file and of flags; a flag beats the file.

    Paths in the file start at its folder.

    Args:
        like: what holds unless the file or a flag says otherwise.

    Raises:
        UserError: a key is unknown or missing.
    """
    given = typed("the card", like or {}, Mapping)
    if file is not None:
        given |= typed(file, read_yaml(Path(file)), Mapping)
        given |= {key: str(Path(file).parent / given[key]) for key in PATHS if key in given}
    given |= typed("the command line", flags, Mapping)
    for key in ("input", "user", "item", "time"):
        if key not in given:
            raise UserError(f"--{key} is missing; the command needs input, user, item and time")
    return Mapping(**given)
