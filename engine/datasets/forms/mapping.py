"""What the columns of a table of interactions mean, checked for contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ...common.errors import UserError
from .mapping_keys import Keys


@dataclass(frozen=True, kw_only=True)
class Mapping(Keys):
    """What the columns of a table mean.

    Raises:
        UserError: two keys contradict each other, or one lacks what it needs.
    """

    def __post_init__(self) -> None:
        for checks in (
            self._columns,
            self._rows,
            self._labels,
            self._history,
            self._order,
            self._rest,
        ):
            for message in checks():
                raise UserError(message)

    def said(self) -> dict[str, Any]:
        """What a user said, for the card: the keys that have another value than without a word."""
        given = ((entry, getattr(self, entry.name)) for entry in fields(self))
        return {entry.name: value for entry, value in given if value != entry.default}

    @property
    def has_labels(self) -> bool:
        """Whether a column says what is positive."""
        return bool(self.label or self.rating or self.positive_actions)

    def _columns(self) -> Iterator[str]:
        if bool(self.time) == bool(self.order):
            yield (
                "name the column of the moments with --time; without times, name that of the place "
                "in the user's sequence with --order, or write --order row if the file is in order"
            )
        if len(self.time_range) not in (0, 2):
            yield f"--time-range has {len(self.time_range)} entries; write FIRST LAST"
        named = {"--user": self.user}
        named |= {"--candidates": self.candidates} if self.candidates else {"--item": self.item}
        named |= {"--time": self.time} if self.time else {"--order": str(self.order)}
        if len(set(named.values())) < 3:
            *flags, last = named
            which = f"{', '.join(flags)} and {last}"
            yield f"{which} must name three different columns; got {', '.join(named.values())}"
        for name in self.columns:
            if self.columns.count(name) > 1:
                yield f"--columns names {name!r} twice; rename one of them"

    def _rows(self) -> Iterator[str]:
        """One row is one event, unless one key says that it holds several."""
        lists = self.events_in_row is not None
        several = {"--events-in-row": lists, "--candidates": self.candidates}
        said = [
            flag for flag, value in (several | {"--exposures": self.exposures}).items() if value
        ]
        if self.history and said != ["--candidates"]:
            said += ["--history"]
        if len(said) > 1:
            yield f"{said[0]} and {said[1]} exclude each other; write one of them"
        pairs = [("partitioned", name) for name in ("test_input", "exposures", "history")]
        for pair in (*pairs, ("test_input", "exposures")):
            if all(getattr(self, name) for name in pair):
                first, second = (name.replace("_", "-") for name in pair)
                yield f"--{first} and --{second} exclude each other; leave --{first} out"
        if self.list_separator and not any(several.values()):
            yield "--list-separator needs --events-in-row or --candidates; add one"
        if (
            self.item_features
            and said[:1] in (["--exposures"], ["--candidates"])
            and not self.items
        ):
            yield f"--item-features with {said[0]} need a table with a row for each item; add --items"

    def _labels(self) -> Iterator[str]:
        said = [name for name in ("label", "rating", "action") if getattr(self, name)]
        if len(said) > 1:
            yield f"--{said[0]} and --{said[1]} exclude each other; write one of them"
        if self.positive is not None and not self.rating:
            yield f"--positive {self.positive} has no meaning without --rating; add it"
        if self.positive_actions and not self.action:
            yield "--positive-actions have no meaning without --action; add it"
        if self.history_actions and not (self.action or self.history_action):
            yield "--history-actions have no meaning without --action; add it"
        if self.negatives < 0:
            yield f"--negatives {self.negatives} is below 0; write 0 or more"
        if self.negatives and self.exposures:
            yield "--negatives and --exposures exclude each other; what was not clicked is negative"
        if not (self.has_labels or self.exposures or self.candidates or self.negatives):
            yield (
                "without --label, --rating or --positive-actions every interaction is a click, and "
                "nothing can be learned from clicks alone; name a column, --exposures for what was "
                "shown, or --negatives 4 to draw four negatives for each click"
            )

    def _history(self) -> Iterator[str]:
        if self.history_time and self.history and not self.time:
            yield "--history-time needs --time, to be compared with; leave it out"
        if self.history_action and not (self.history_actions or self.positive_actions):
            yield "--history-action needs --history-actions, the actions whose entries are kept"
        for name in ("separator", "padding", "time", "action"):
            if getattr(self, f"history_{name}") is not None and not self.history:
                yield f"--history-{name} has no meaning without --history; name the column of lists"

    def _order(self) -> Iterator[str]:
        """Without times there is no moment at which all users can be cut."""
        if self.time:
            return
        if self.split == "time":
            yield "--split time needs --time; write --split user"
        if self.negatives_from == "time" and self.negatives:
            yield "--negatives-from time needs --time; write popularity or uniform"
        if self.time_format or self.time_unit or self.time_range:
            yield "--time-format, --time-unit and --time-range have no meaning without --time; add it"
        if self.exposures:
            yield "--exposures needs --time, because its rows and the clicks are put in one order"

    def _rest(self) -> Iterator[str]:
        if self.items and not (self.items_key or self.item):
            yield "--items needs --items-key, its column of the item; add it"
        if bool(self.users) != bool(self.user_features):
            yield "--users and --user-features need each other; write both"
        if self.min_count < 1:
            yield f"--min-count {self.min_count} is too small; write 1 or more"
        if not 0 <= self.seed < 2**64:
            yield f"--seed {self.seed} is out of range; write a number from 0 to {2**64 - 1}"
        if not 0 < self.sample_users <= 1:
            yield f"--sample-users {self.sample_users} is no share; write a number above 0, up to 1"
        if min(self.train, self.valid) <= 0 or self.train + self.valid >= 1:
            shares = f"{self.train} and {self.valid}"
            yield f"--train and --valid must be shares above 0 and together below 1; got {shares}"
