"""What the columns of a table of interactions mean: the keys of the command ``generic``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from ..common.errors import UserError
from . import SEED


def key(help: str, default: Any = None) -> Any:
    """A field of ``Mapping``. The command line derives a flag from it, with this help."""
    return field(default=default, metadata={"help": help})


GROUPS = {  # the first key of each group of flags
    "input": "files",
    "user": "columns",
    "history": "histories as lists in the rows",
    "label": "what is positive",
    "negatives": "negatives of a log that has only positives",
    "item_features": "features",
    "split": "splits",
}


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """What the columns of a table mean; the help of each field says what it is.

    Raises:
        UserError: two keys contradict each other, or one lacks what it needs.
    """

    input: str = key("CSV, TSV or Parquet: a file, a folder or a pattern", MISSING)
    columns: tuple[str, ...] = key("names of all columns, for text files without a header", ())
    separator: str | None = key("what separates the fields of a text file")
    no_quotes: bool = key('" is an ordinary character', False)
    test_input: str | None = key("a table like the input, whose rows are the test split")
    bad_rows: Literal["error", "leave_out"] = key(
        "error (default), or leave_out: rows of the log that cannot be read are counted", "error"
    )
    exposures: str | None = key("table of what was shown; its rows are the samples")
    items: str | None = key("table with a row for each item")
    items_columns: tuple[str, ...] = key("names of its columns, where it has no header", ())
    items_key: str | None = key("its column of the item, where it is not called as --item")
    users: str | None = key("table with a row for each user")
    users_columns: tuple[str, ...] = key("names of its columns, where it has no header", ())
    users_key: str | None = key("its column of the user, where it is not called as --user")
    source: str | None = key("what the card calls the data (the name of the input)")
    licence: str = key("of the data, for the card (your own)", "your own")

    user: str = key("column of the user", MISSING)
    item: str = key("column of the item", MISSING)
    time: str | None = key("column of the time")
    time_format: str | None = key("such as '%d.%m.%Y', where it is not recognised")
    time_unit: Literal["s", "ms", "us", "ns", "unknown"] | None = key(
        "of times that are numbers: s, ms, us, ns or unknown, where their size does not tell it"
    )
    time_range: tuple[str | int | float, ...] = key(
        "first and last moment, as numbers or dates; rows outside are left out", ()
    )
    order: str | None = key(
        "without times: column of the place in the user's sequence, or 'row' for the order of the file"
    )

    history: str | None = key("column with the list of what the user had before the row")
    history_separator: str | None = key("what separates the entries of such a list")
    history_order: Literal["oldest", "newest"] = key("which entry is first (oldest)", "oldest")
    history_padding: str | int | None = key("entry that only fills lists up; it is left out")
    history_time: str | None = key("column with the list of the entries' times")
    history_action: str | None = key(
        "column with the list of what the user did; entries of --history-actions are kept"
    )

    label: str | None = key("column of 0 and 1")
    rating: str | None = key("column of numbers; high ones count as liked")
    positive: int | float | None = key("least rating that counts as liked (4)")
    action: str | None = key("column of what the user did")
    positive_actions: tuple[str | int, ...] = key("actions that count as positive", ())
    history_actions: tuple[str | int, ...] = key(
        "actions that histories hold (the positive ones)", ()
    )

    negatives: int = key("negatives to draw for each positive event (0)", 0)
    negatives_from: Literal["time", "popularity", "uniform"] = key(
        "time: items of events nearest in time (default); popularity: of all events before; "
        "uniform: of all items known by then",
        "time",
    )
    targets: Literal["first", "all"] = key(
        "first: a user's first event with an item is a sample (default); all: repeats are, too",
        "first",
    )
    seed: int = key(f"of what is drawn ({SEED})", SEED)
    sample_users: float = key("share of the users to read, to try things on a part (1)", 1.0)

    item_features: tuple[Any, ...] = key("columns of the items, as NAME or NAME:KIND", ())
    user_features: tuple[Any, ...] = key("columns of the users, as NAME or NAME:KIND", ())
    sample_features: tuple[Any, ...] = key("columns of the samples, as NAME or NAME:KIND", ())
    min_count: int = key("rarer values share an embedding (1)", 1)

    split: Literal["time", "user"] = key("time (default) or user", "time")
    train: float = key("share of the samples for training (0.8)", 0.8)
    valid: float = key("share of the samples for validation (0.1)", 0.1)

    def __post_init__(self) -> None:
        self._check_columns()
        self._check_labels()
        self._check_history()
        self._check_order()
        if self.item_features and self.exposures and not self.items:
            raise UserError(
                "--item-features with --exposures need a table with a row for each item; add --items"
            )
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
        given = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            entry.name: given[entry.name]
            for entry in fields(self)
            if given[entry.name] != entry.default
        }

    def _check_columns(self) -> None:
        if bool(self.time) == bool(self.order):
            raise UserError(
                "name the column of the moments with --time; without times, name that of the place "
                "in the user's sequence with --order, or write --order row if the file is in order"
            )
        if len(self.time_range) not in (0, 2):
            raise UserError(f"--time-range has {len(self.time_range)} entries; write FIRST LAST")
        named: dict[str, str | None] = {"--user": self.user, "--item": self.item}
        named |= {"--time": self.time} if self.time else {"--order": self.order}
        if len(set(named.values())) < 3:
            *flags, last = named
            raise UserError(
                f"{', '.join(flags)} and {last} must name three different columns; got "
                f"{', '.join(map(str, named.values()))}"
            )
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise UserError(f"--columns names {name!r} twice; rename one of them")

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
        labelled = self.label or self.rating or self.positive_actions or self.exposures
        if not (labelled or self.negatives):
            raise UserError(
                "without --label, --rating or --positive-actions every interaction is a click, and "
                "nothing can be learned from clicks alone; name a column, --exposures for what was "
                "shown, or --negatives 4 to draw four negatives for each click"
            )

    def _check_history(self) -> None:
        if self.history:
            if self.exposures:
                raise UserError(
                    "--history and --exposures exclude each other: with --history each row is a sample; "
                    "leave one out"
                )
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
