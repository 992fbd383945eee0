"""What the rows of a log show of their users: lists whose entries are no items are refused."""

from pathlib import Path

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.forms import generic
from engine.datasets.forms.mapping_file import read_mapping

ITEMS = ["408", "172", "9"]


def histories(folder: Path, lists: list, items: list[str], **keys: object) -> list[list[str]]:
    """The histories of a log with these lists, one in each row."""
    count = len(lists)
    table = pl.DataFrame({"u": range(count), "i": items[:count], "t": range(count), "seen": lists})
    table = table.with_columns(y=pl.int_range(pl.len()) % 2)
    table.write_parquet(folder / "log.parquet")
    mapping = {"input": str(folder / "log.parquet"), "user": "u", "item": "i", "time": "t"}
    log = generic.load(read_mapping(None, mapping | {"label": "y", "history": "seen"} | keys))
    return log.events.collect()["history"].to_list()


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("end", [":1505:7370:1107:0", ":shoes"])
def test_entries_with_more_than_an_item_are_refused(
    tmp_path: Path, end: str, as_list: bool
) -> None:
    """``item:category:brand:day:action`` would be an item of its own, which no row is about."""
    lists: list = [[], [f"408{end}"], [f"172{end}", f"408{end}", "0"]]
    keys = {"history_padding": 0} | ({} if as_list else {"history_separator": "#"})
    lists = lists if as_list else ["#".join(entries) for entries in lists]
    says = (
        f"column seen: entries such as '408{end}', '172{end}' hold more than an item such as '408'"
    )
    with pytest.raises(UserError, match=says):
        histories(tmp_path, lists, ITEMS, **keys)


def test_colons_in_the_ids_of_items_are_no_mistake(tmp_path: Path) -> None:
    lists = [["track:7"], ["track:9", "track:7"], []]
    assert histories(tmp_path, lists, [f"track:{item}" for item in ITEMS]) == lists
    lists = [["a:b"], ["7", "a:b"], []]
    assert histories(tmp_path, lists, ITEMS) == lists
