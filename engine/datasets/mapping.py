"""What the columns of a table of interactions mean, said by flags or by a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..common.errors import UserError, did_you_mean
from ..config.read import read_yaml


@dataclass(frozen=True)
class Mapping:
    """What the columns of a table mean.

    Attributes:
        input: file, folder or pattern of the interactions, see ``source.Source``.
        separator, no_quotes: of text files, see ``source.Source``.
        user, item, time: columns. Ids may be anything; times numbers or dates.
        time_format: of times that are texts, in strftime's letters, where it cannot be guessed.
        label: column of 0 and 1; or
        rating: column of numbers; an interaction is positive from ``positive`` (4) on. Without
            either, every interaction is positive.
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
    positive: float | None = None
    exposures: str | None = None
    items: str | None = None
    item_features: list[Any] = field(default_factory=list)
    sample_features: list[Any] = field(default_factory=list)
    min_count: int = 1
    split: str = "time"
    train: float = 0.8
    valid: float = 0.1

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            value = getattr(self, name)
            wrong = not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
            if value is not None and wrong:
                raise UserError(f"{name}: is {value!r}; write {NAMES[kind]}")
        if len({self.user, self.item, self.time}) < 3:
            raise UserError(
                f"--user {self.user} --item {self.item} --time {self.time}: are three columns"
            )
        if self.label and self.rating:
            raise UserError("--label and --rating: write one of them")
        if self.positive is not None and not self.rating:
            raise UserError(f"--positive {self.positive:g}: goes with --rating")
        if self.min_count < 1:
            raise UserError(f"--min-count {self.min_count}: write 1 or more")
        if not (self.label or self.rating or self.exposures):
            raise UserError(
                "without --label or --rating every interaction is a click, and nothing can be learned "
                "from clicks alone; name a column, or --exposures for what was shown"
            )
        if self.split not in ("time", "user"):
            raise UserError(f"--split {self.split}: write time or user")
        if not (self.train > 0 and self.valid > 0 and self.train + self.valid < 1):
            raise UserError(
                f"--train {self.train} --valid {self.valid}: shares are above 0, and together below 1"
            )


KEYS = tuple(f.name for f in fields(Mapping))
NUMBERS, LISTS = ("positive", "train", "valid"), ("item_features", "sample_features")
NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    int | float: "a number",
    list: "a list",
}
KINDS: dict[str, Any] = dict.fromkeys(KEYS, str) | {"min_count": int, "no_quotes": bool}
KINDS |= dict.fromkeys(NUMBERS, int | float) | dict.fromkeys(LISTS, list)


def read_mapping(file: str | None, flags: dict[str, Any]) -> Mapping:
    """The mapping of a YAML file (paths in it start at its folder) and of flags, which win.

    Raises:
        UserError: a key is unknown or missing.
    """
    given: dict[str, Any] = {}
    if file is not None:
        given = {k: v for k, v in read_yaml(Path(file)).items() if v is not None}
        for key in given:
            if key not in KEYS:
                raise UserError(f"{file}: unknown key {key!r}{did_you_mean(key, KEYS)}")
        for key in ("input", "exposures", "items"):
            if given.get(key) is not None:
                given[key] = str(Path(file).parent / str(given[key]))
    given |= {key: value for key, value in flags.items() if value is not None}
    for key in ("input", "user", "item", "time"):
        if given.get(key) is None:
            where = f"{file}: key {key!r}" if file else f"--{key}"
            raise UserError(f"{where} is missing; the command needs input, user, item and time")
    return Mapping(**given)
