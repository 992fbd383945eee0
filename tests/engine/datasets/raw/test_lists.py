"""Columns of lists in every form, and their entries as rows."""

import json
from pathlib import Path

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.raw.lists import PLACE, Entries, lists, parallel
from engine.datasets.raw.source import ROW, Source
from engine.datasets.raw.values import identity, whole

FLAG = "--history-separator"
LISTS = [["12", "7", "7"], [], ["-9200000000000000001"], ["3", "12"]]


def source(folder: Path, endings: str = "csv", **columns: list) -> Source:
    """A table with the columns, and ids of its rows."""
    table = pl.DataFrame({"id": range(len(next(iter(columns.values())))), **columns})
    path = folder / f"table.{endings}"
    getattr(table, f"write_{endings}")(path)
    found = Source(path)
    identity(found, "id")  # rows with an id are not blank
    return found


def read(table: Source, separator: str | None = None, column: str = "seen") -> list:
    values = lists(table, column, separator, FLAG)
    table.check()
    return table.rows().select(values.alias("values")).collect()["values"].to_list()


def python_list(entries: list[str]) -> str:
    return str([int(entry) for entry in entries])


@pytest.mark.parametrize(
    "form",
    [*",;|# \x1d", ", ", "  ", str, json.dumps, python_list, lambda entries: f"{entries}\n"],
)
def test_texts_of_every_form_are_the_same_lists(tmp_path: Path, form) -> None:
    texts = [form.join(entries) if isinstance(form, str) else form(entries) for entries in LISTS]
    assert read(source(tmp_path, seen=texts)) == LISTS


def test_lists_of_parquet_keep_their_type_and_missing_ones_are_empty(tmp_path: Path) -> None:
    values = [[-(2**63), 2**63 - 1], [], None, [0]]
    assert read(source(tmp_path, "parquet", seen=values)) == [v or [] for v in values]
    assert read(source(tmp_path, "parquet", seen=["a,b", "", None])) == [["a", "b"], [], []]


def test_entries_may_be_quoted_missing_or_end_with_a_separator(tmp_path: Path) -> None:
    quoted = ["['a,b', \"it's\"]", '["x", null, None]', "[]", "['null',]"]
    expected = [["a,b", "it's"], ["x", None, None], [], ["null"]]
    assert read(source(tmp_path, seen=quoted)) == expected
    assert read(source(tmp_path, seen=["a|b|", "|c", "d||e"])) == [
        ["a", "b"],
        [None, "c"],
        ["d", None, "e"],
    ]


@pytest.mark.parametrize(
    ("texts", "separator", "expected"),
    [
        (["red shoe|hat", "cap"], "|", [["red shoe", "hat"], ["cap"]]),
        (["1", "2"], ",", [["1"], ["2"]]),
        (["1\x1d\x1d2", "3,4"], "\\x1d", [["1", None, "2"], ["3,4"]]),
        (["1::2", ""], "::", [["1", "2"], []]),
    ],
)
def test_a_named_separator_is_taken(
    tmp_path: Path, texts: list[str], separator: str, expected: list[list[str]]
) -> None:
    assert read(source(tmp_path, seen=texts), separator) == expected


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["red shoe|hat", "cap"], "more than one of the separators"),
        (["1,2;3", "cap"], "more than one of the separators"),
        (["1", "2"], "none of the separators"),
    ],
)
def test_an_unclear_separator_is_asked_for(tmp_path: Path, texts: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read(source(tmp_path, seen=texts))
    assert FLAG in str(error.value) and repr(texts[0]) in str(error.value)


@pytest.mark.parametrize(
    "text", ["[1, 2", "3", "['a' 'b']", "[1, [2]]", "[1 ... 9]", "['\\u4e2d']"]
)
def test_a_value_that_is_no_list_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"column seen, line 3: the value is .*write a list such"):
        read(source(tmp_path, seen=["[1, 2]", text]))


def test_a_column_without_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Int64, which is no list"):
        read(source(tmp_path, "parquet", seen=[1, 2]))
    with pytest.raises(UserError, match="which is no list"):
        read(source(tmp_path, "parquet", seen=[[[1]], [[2]]]))


def test_entries_are_rows_and_name_the_row_that_is_wrong(tmp_path: Path) -> None:
    items, times = ["a,b", "", "c"], [[1, 2], [], [None]]
    table = source(tmp_path, "parquet", items=items, times=times)
    entries = Entries(table, parallel(table, ["items", "times"], None, FLAG))
    columns = {"item": identity(entries, "items"), "time": whole(entries, "times")}
    table.check()
    with pytest.raises(
        UserError, match=r"column times, row 2 .*: the value is missing; write a wh"
    ):
        entries.check()
    rows = entries.rows().select(ROW, PLACE, "id", **columns).collect().rows()
    assert rows == [(0, 0, 0, "a", 1), (0, 1, 0, "b", 2), (2, 0, 2, "c", None)]


def test_unequal_lists_are_refused_with_their_row(tmp_path: Path) -> None:
    table = source(tmp_path, items=["a,b", "c,d"], times=["1,2", "3"])
    parallel(table, ["items", "times"], ",", FLAG)
    with pytest.raises(UserError, match=r"column times, line 3: .*as many entries as items has"):
        table.check()
