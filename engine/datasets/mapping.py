"""What the columns of a table of interactions mean, checked for contradictions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..common.errors import UserError
from .mapping_keys import Keys


@dataclass(frozen=True, kw_only=True)
class Mapping(Keys):
    """What the columns of a table mean.

    Raises:
        UserError: two keys contradict each other, or one lacks what it needs.
    """

    def __post_init__(self) -> None:
        self._check_columns()
        self._check_rows()
        self._check_labels()
        self._check_history()
        self._check_order()
        several = "--exposures" if self.exposures else "--candidates" if self.candidates else None
        if self.item_features and several and not self.items:
            raise UserError(
                f"--item-features with {several} need a table with a row for each item; add --items"
            )
        if self.items and not (self.items_key or self.item):
            raise UserError("--items needs --items-key, its column of the item; add it")
        if bool(self.users) != bool(self.user_features):
            raise UserError("--users and --user-features need each other; write both")
        if self.min_count < 1:
            raise UserError(f"--min-count {self.min_count} is too small; write 1 or more")
        if not 0 < self.sample_users <= 1:
            raise UserError(
                f"--sample-users {self.sample_users} is no share; write a number above 0, up to 1"
            )
        if min(self.train, self.valid) <= 0 or self.train + self.valid >= 1:
            raise UserError(
                "--train and --valid must be shares above 0 and together below 1; got "
                f"{self.train} and {self.valid}"
            )

    def said(self) -> dict[str, Any]:
        """What a user said, for the card: the keys that have another value than without a word."""
        given = ((entry, getattr(self, entry.name)) for entry in fields(self))
        return {entry.name: value for entry, value in given if value != entry.default}

    @property
    def has_labels(self) -> bool:
        """Whether a column says what is positive."""
        return bool(self.label or self.rating or self.positive_actions)

    def _check_columns(self) -> None:
        if bool(self.time) == bool(self.order):
            raise UserError(
                "name the column of the moments with --time; without times, name that of the place "
                "in the user's sequence with --order, or write --order row if the file is in order"
            )
        if len(self.time_range) not in (0, 2):
            raise UserError(f"--time-range has {len(self.time_range)} entries; write FIRST LAST")
        named = {"--user": self.user}
        named |= {"--candidates": self.candidates} if self.candidates else {"--item": self.item}
        named |= {"--time": self.time} if self.time else {"--order": str(self.order)}
        if len(set(named.values())) < 3:
            *flags, last = named
            raise UserError(
                f"{', '.join(flags)} and {last} must name three different columns; got "
                f"{', '.join(named.values())}"
            )
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise UserError(f"--columns names {name!r} twice; rename one of them")

    def _check_rows(self) -> None:
        """One row is one event, unless one key says that it holds several."""
        inside = {
            "--events-in-row": self.events_in_row is not None,
            "--candidates": self.candidates,
            "--exposures": self.exposures,
        }
        said = [flag for flag, value in inside.items() if value]
        if self.history and said != ["--candidates"]:
            said += ["--history"]
        if len(said) > 1:
            raise UserError(f"{said[0]} and {said[1]} exclude each other; write one of them")
        several = [name for name in ("test_input", "exposures", "history") if getattr(self, name)]
        if self.partitioned and several:
            flag = several[0].replace("_", "-")
            raise UserError(
                f"--partitioned and --{flag} exclude each other; leave --partitioned out"
            )
        if self.list_separator and not (self.candidates or self.events_in_row is not None):
            raise UserError(
                "--list-separator has no meaning without --events-in-row or --candidates; add one"
            )

    def _check_labels(self) -> None:
        said = [name for name in ("label", "rating", "action") if getattr(self, name)]
        if len(said) > 1:
            raise UserError(f"--{said[0]} and --{said[1]} exclude each other; write one of them")
        if self.positive is not None and not self.rating:
            raise UserError(f"--positive {self.positive} has no meaning without --rating; add it")
        if self.positive_actions and not self.action:
            raise UserError("--positive-actions have no meaning without --action; add it")
        if self.history_actions and not (self.action or self.history_action):
            raise UserError("--history-actions have no meaning without --action; add it")
        if self.negatives < 0:
            raise UserError(f"--negatives {self.negatives} is below 0; write 0 or more")
        if self.negatives and self.exposures:
            raise UserError(
                "--negatives and --exposures exclude each other: what was shown and not clicked is "
                "negative already; leave one out"
            )
        if not (self.has_labels or self.exposures or self.candidates or self.negatives):
            raise UserError(
                "without --label, --rating or --positive-actions every interaction is a click, and "
                "nothing can be learned from clicks alone; name a column, --exposures for what was "
                "shown, or --negatives 4 to draw four negatives for each click"
            )

    def _check_history(self) -> None:
        if self.history:
            if self.history_time and not self.time:
                raise UserError("--history-time needs --time, to be compared with; leave it out")
            if self.history_action and not (self.history_actions or self.positive_actions):
                raise UserError(
                    "--history-action needs --history-actions, the actions whose entries are kept"
                )
            return
        for name in ("separator", "padding", "time", "action"):
            if getattr(self, f"history_{name}") is not None:
                raise UserError(
                    f"--history-{name} has no meaning without --history; name the column of lists"
                )

    def _check_order(self) -> None:
        """Without times there is no moment at which all users can be cut."""
        if self.time:
            return
        if self.split == "time":
            raise UserError("--split time needs --time; write --split user")
        if self.negatives_from == "time" and self.negatives:
            raise UserError("--negatives-from time needs --time; write popularity or uniform")
        if self.time_format or self.time_unit or self.time_range:
            raise UserError(
                "--time-format, --time-unit and --time-range have no meaning without --time; add it"
            )
        if self.exposures:
            raise UserError(
                "--exposures needs --time, because its rows and the clicks are put in one order"
            )
