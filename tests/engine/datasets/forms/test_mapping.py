"""Keys that contradict each other, or lack what they need, are refused."""

import re

import pytest

from engine.common.errors import UserError
from engine.datasets.forms.mapping_file import read_mapping

LOG = {"input": "log.csv", "user": "u", "item": "i", "time": "t", "negatives": 4}
REFUSED = [
    ({"order": "place"}, "--time and --order exclude each other; write one of them"),
    ({"label": "y", "action": "a"}, "--label and --action exclude each other"),
    ({"events_in_row": [], "candidates": "c"}, "--events-in-row and --candidates exclude"),
    ({"events_in_row": [], "history": "h"}, "--events-in-row and --history exclude"),
    ({"exposures": "e.csv"}, "--negatives and --exposures exclude"),
    ({"impression": "r"}, "--negatives and --impression exclude each other"),
    ({"partitioned": True, "history": "h"}, "--partitioned and --history exclude"),
    ({"history": "h", "event_features": ["a:numeric"]}, "--history and --event-features exclude"),
    ({"partitioned": True, "test_input": "e.csv"}, "--partitioned and --test-input exclude"),
    ({"history_order": "newest", "history_padding": 0}, "--history-padding needs --history; add"),
    ({"history_actions": ["a"]}, "--history-actions needs --action or --history-action; add it"),
    ({"history": "h", "history_action": "a"}, "--history-action needs --history-actions or"),
    ({"history": "h", "history_time": "a", "time": None, "order": "row"}, "--history-time needs --time"),
    ({"time": None, "order": "row", "time_unit": "s"}, "--time-unit needs --time; add it"),
    ({"positive_actions": [1]}, "--positive-actions needs --action; add it"),
    ({"list_separator": "|"}, "--list-separator needs --events-in-row or --candidates"),
    ({"users": "u.csv"}, "--users needs --user-features; add it"),
    ({"user_features": ["age"]}, "--user-features needs --users; add it"),
    ({"time": None}, "without --time write --order and the column of the place"),
    ({"time": None, "order": "row", "split": "time"}, "--split time needs --time; write user"),
    ({"time": None, "order": "row", "negatives_from": "time"}, "--negatives-from time needs --time"),
    ({"time": None, "order": "u"}, "--user and --item and --order must name three different columns"),
    ({"negatives": 0}, "every interaction is a click"),
    ({"candidates": "c", "item_features": ["x"]}, "--item-features with --candidates need --items"),
    ({"columns": ["u", "i", "i"]}, "--columns is ('u', 'i', 'i'); write each name once"),
    ({"time_range": [1]}, "--time-range is (1,); write FIRST LAST"),
    ({"negatives": -1}, "--negatives is -1; write 0 or more"),
    ({"sample_users": 0.0}, "--sample-users is 0.0; write a share above 0, up to 1"),
    ({"valid": 0.0}, "--valid is 0.0; write a share above 0"),
    ({"train": 0.95}, "--train 0.95 and --valid 0.1 must be together below 1"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "says"), REFUSED)
def test_contradictions_are_refused(keys: dict, says: str) -> None:
    assert read_mapping(None, LOG).negatives == 4
    with pytest.raises(UserError, match=re.escape(says)):
        read_mapping(None, LOG | keys)


def test_what_goes_together() -> None:
    """Of several keys that a key needs, one is enough; an empty list is a value, too."""
    for keys in (
        {"history": "h", "candidates": "c", "items": "i.csv", "items_key": "k"},
        {"history": "h", "history_action": "a", "history_actions": ["x"]},
        {"action": "a", "history_actions": ["x"]},
        {"events_in_row": [], "list_separator": "|", "time": None},
    ):
        said = read_mapping(None, LOG | keys).said()
        assert all(name in said for name, value in keys.items() if value is not None)
