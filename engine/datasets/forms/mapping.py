"""What the columns of a table of interactions mean, checked for contradictions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from ...common.errors import UserError
from .mapping_keys import Keys

EXCLUSIVE = (  # keys of which one at most may be written
    ("time", "order"),
    ("label", "rating", "action"),
    ("events_in_row", "candidates", "exposures"),
    ("events_in_row", "exposures", "history"),
    ("negatives", "exposures"),
    *((key, "impression") for key in ("events_in_row", "candidates", "negatives")),
    ("partitioned", "test_input", "exposures"),
    ("partitioned", "history"),
    ("history", "event_features"),
)
NEEDS = (  # a key, and those of which one must be written with it
    *((key, ("time",)) for key in ("time_format", "time_unit", "time_range", "exposures")),
    *((f"history_{key}", ("history",)) for key in ("separator", "padding", "time", "action")),
    ("history_time", ("time",)),
    ("history_action", ("history_actions", "positive_actions")),
    ("history_actions", ("action", "history_action")),
    ("positive_actions", ("action",)),
    ("positive", ("rating",)),
    ("list_separator", ("events_in_row", "candidates")),
    ("items", ("items_key", "item")),
    ("users", ("user_features",)),
    ("user_features", ("users",)),
)
WITHOUT_TIMES = {"split": "user", "negatives_from": "popularity"}
VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what the value of a key must be
    "columns": ("each name once", lambda names: len(set(names)) == len(names)),
    "time_range": ("FIRST LAST", lambda bounds: len(bounds) in (0, 2)),
    "negatives": ("0 or more", lambda count: count >= 0),
    "min_count": ("1 or more", lambda count: count >= 1),
    "seed": (f"a number from 0 to {2**64 - 1}", lambda seed: 0 <= seed < 2**64),
    "sample_users": ("a share above 0, up to 1", lambda share: 0 < share <= 1),
    **dict.fromkeys(("train", "valid"), ("a share above 0", lambda share: share > 0)),
}


@dataclass(frozen=True, kw_only=True)
class Mapping(Keys):
    """What the columns of a table mean.

    Raises:
        UserError: two keys contradict each other, or one lacks what it needs.
    """

    def __post_init__(self) -> None:
        for message in self._mistakes():
            raise UserError(message)

    def said(self) -> dict[str, Any]:
        """What a user said, for the card: the keys that have another value than without a word."""
        given = ((entry, getattr(self, entry.name)) for entry in fields(self))
        return {entry.name: value for entry, value in given if value != entry.default}

    @property
    def has_labels(self) -> bool:
        """Whether a column says what is positive."""
        return bool(self.label or self.rating or self.positive_actions)

    def _mistakes(self) -> Iterator[str]:
        said = self.said()
        for keys in EXCLUSIVE:
            if len(several := [_flag(key) for key in keys if key in said]) > 1:
                yield f"{' and '.join(several)} exclude each other; write one of them"
        for key, others in NEEDS:
            if key in said and not said.keys() & others:
                yield f"{_flag(key)} needs {' or '.join(map(_flag, others))}; add it"
        for key, (expects, holds) in VALUES.items():
            if not holds(value := getattr(self, key)):
                yield f"{_flag(key)} is {value!r}; write {expects}"
        for key, other in WITHOUT_TIMES.items():
            if getattr(self, key) == "time" and not self.time:
                yield f"{_flag(key)} time needs --time; write {other}"
        if not (self.time or self.order):
            yield "without --time write --order and the column of the place, or row if the file is in order"
        columns = (
            "user",
            "candidates" if self.candidates else "item",
            "time" if self.time else "order",
        )
        names = [str(getattr(self, key)) for key in columns]
        if len(set(names)) < 3:
            flags = " and ".join(map(_flag, columns))
            yield f"{flags} must name three different columns; got {', '.join(names)}"
        if not (self.has_labels or said.keys() & ("exposures", "candidates", "negatives")):
            yield (
                "every interaction is a click, and nothing can be learned from clicks alone; write --label, "
                "--rating, --positive-actions or --exposures, or --negatives 4 to draw four for each click"
            )
        for key in ("exposures", "candidates"):
            if key in said and self.item_features and not self.items:
                yield f"--item-features with {_flag(key)} need --items, a table with a row for each item"
        if self.train + self.valid >= 1:
            yield f"--train {self.train} and --valid {self.valid} must be together below 1"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
