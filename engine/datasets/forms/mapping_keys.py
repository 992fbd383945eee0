"""The keys that say what the columns of a table of interactions mean, each with its help."""

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

from .. import SEED


def key(help: str, default: Any = None) -> Any:
    """A field of ``Keys``. The command line derives a flag from it, with this help."""
    return field(default=default, metadata={"help": help})


ROW_ORDER = "row"  # as the key ``order``: the order of the file
GROUPS = {  # the first key of each group of flags
    "input": "files",
    "user": "columns",
    "events_in_row": "several events in a row",
    "history": "histories as lists in the rows",
    "label": "what is positive",
    "negatives": "negatives of a log that has only positives",
    "item_features": "features",
    "split": "splits",
}


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What the columns of a table mean; the help of each field says what it is."""

    input: str = key("CSV, TSV or Parquet: a file, a folder or a pattern", MISSING)
    columns: tuple[str, ...] = key("names of all columns, for text files without a header", ())
    separator: str | None = key("what separates the fields of text files, where it is not seen")
    no_quotes: bool = key('" is an ordinary character', False)
    partitioned: bool = key("each file or folder of the input holds all events of its users", False)
    test_input: str | None = key("a table like the input, whose rows are the test split")
    bad_rows: Literal["error", "leave_out"] = key("error (default) or leave_out", "error")
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
    item: str = key("column of the item; not needed with --candidates", "")
    time: str | None = key("column of the time")
    time_format: str | None = key("such as '%d.%m.%Y', where it is not recognised")
    time_unit: Literal["s", "ms", "us", "ns", "unknown"] | None = key(
        "of times that are numbers: s, ms, us, ns or unknown, where their size does not tell it"
    )
    time_range: tuple[str | int | float, ...] = key("first and last moment that are read", ())
    order: str | None = key("without times: column of the place, or row: the order of the file")
    impression: str | None = key("column with the id of the request; its rows are one group")

    events_in_row: tuple[str, ...] | None = key(
        "a row holds all events of a user, as lists in the columns of events and in those named here"
    )
    candidates: str | None = key("column with what a row showed, such as ITEM-1 ITEM-0")
    list_separator: str | None = key("what separates the entries of such lists")

    history: str | None = key("column with the list of what the user had before the row")
    history_separator: str | None = key("what separates the entries of such a list")
    history_order: Literal["oldest", "newest"] = key("which entry is first (oldest)", "oldest")
    history_padding: str | int | None = key("entry that only fills lists up; it is left out")
    history_time: str | None = key("column with the list of the entries' times")
    history_action: str | None = key("column with the list of what the user did at each entry")

    label: str | None = key("column of 0 and 1")
    rating: str | None = key("column of numbers; high ones count as liked")
    positive: int | float | None = key("least rating that counts as liked (4)")
    action: str | None = key("column of what the user did")
    positive_actions: tuple[str | int, ...] = key("actions that count as positive", ())
    history_actions: tuple[str | int, ...] = key("actions in histories (the positive ones)", ())

    negatives: int = key("negatives to draw for each positive event (0)", 0)
    negatives_from: Literal["time", "popularity", "uniform"] = key(
        "time: events that follow (default); popularity: events before; uniform: all items", "time"
    )
    targets: Literal["first", "all"] = key("a user's first events with items, or all", "first")
    seed: int = key(f"of what is drawn ({SEED})", SEED)
    sample_users: float = key("share of the users to read, to try things on a part (1)", 1.0)

    item_features: tuple[Any, ...] = key("columns of the items, as NAME or NAME:KIND", ())
    user_features: tuple[Any, ...] = key("columns of the users, as NAME or NAME:KIND", ())
    sample_features: tuple[Any, ...] = key("columns of the samples, as NAME or NAME:KIND", ())
    event_features: tuple[Any, ...] = key(
        "columns of the events in histories, as NAME:categorical or NAME:numeric", ()
    )
    min_count: int = key("rarer values share an embedding (1)", 1)

    split: Literal["time", "user"] = key("time (default) or user", "time")
    train: float = key("share of the samples for training (0.8)", 0.8)
    valid: float = key("share of the samples for validation (0.1)", 0.1)
