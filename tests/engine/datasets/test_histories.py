"""Lists in the rows against plain loops: what is stored of them, and what each row reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.histories import LIST, REPEATED, SEEN, stored_events
from engine.datasets.source import PLACE


def random_rows(seed: int, timed: bool) -> list[dict[str, Any]]:
    """Growing lists, windows, lists that return and empty ones; some rows have two candidates."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in "abcdefgh":
        whole = [f"i{i}" for i in rng.integers(6, size=12)]
        for _ in range(10):
            start, end = sorted(rng.integers(13, size=2)) if user < "d" else (0, rng.integers(13))
            times = list(range(start, end)) if rng.random() < 0.9 else [99] * (end - start)
            number = len(rows)
            for candidate in range(1 + (user == "b")):
                row = {"user": user, "row": number, "label": int(rng.integers(2))}
                row |= {"item": f"i{rng.integers(6)}", "history": whole[start:end]}
                row |= {"history_time": times} if timed else {}
                rows.append(row | {"first": candidate == 0})
    return rows


def stored(rows: list[dict[str, Any]], folder: Path) -> pl.DataFrame:
    frame = pl.DataFrame(rows).sample(fraction=1.0, shuffle=True, seed=0)
    frame = frame.with_columns(
        pl.when("first").then(pl.col("^history.*$")), pl.col("label").cast(pl.Int8)
    )
    return stored_events(frame.drop("first").lazy(), "a test", folder).collect()


@pytest.mark.parametrize("timed", [False, True])
def test_every_row_reads_its_list_and_no_list_is_stored_twice(tmp_path: Path, timed: bool) -> None:
    rows = random_rows(3, timed)
    events = stored(rows, tmp_path)
    entries = events.filter(pl.col(PLACE).is_not_null()).sort("user", LIST, PLACE)
    assert entries["positive"].all() and entries["label"].null_count() == len(entries)
    lists: dict[Any, list] = {}
    for entry in entries.iter_rows(named=True):
        read = (entry["item"], entry["history_time"]) if timed else entry["item"]
        lists.setdefault((entry["user"], entry[LIST]), []).append(read)

    samples = events.filter(pl.col(PLACE).is_null()).sort("row", "item").to_dicts()
    given = sorted(rows, key=lambda r: (r["row"], r["item"]))
    expected: dict[str, set[tuple]] = {}
    for sample, row in zip(samples, given, strict=True):
        shown = row["history"]
        seen = list(zip(shown, row["history_time"], strict=True)) if timed else shown
        assert lists.get((row["user"], sample[LIST]), [])[: sample[SEEN]] == seen
        assert sample["label"] == row["label"] and sample["item"] == row["item"]
        assert sample[REPEATED] == ((row["item"] in shown) if row["label"] else None)
        expected.setdefault(row["user"], set()).add(tuple(seen))
    for user, shown in expected.items():
        longest = [s for s in shown if s and not any(o[: len(s)] == s for o in shown - {s})]
        if not timed:  # lists of unlike times may be stored although another one begins with them
            assert sorted(map(list, longest)) == sorted(
                v for (u, _), v in lists.items() if u == user
            )


def test_growing_lists_are_one_list(tmp_path: Path) -> None:
    rows = [
        {"user": "a", "item": f"i{n}", "row": n, "label": 1, "first": True}
        | {"history": [f"i{i}" for i in range(n)]}
        for n in range(20)
    ]
    events = stored(rows, tmp_path)
    assert events.filter(pl.col(PLACE).is_not_null())["item"].to_list() == [
        f"i{n}" for n in range(19)
    ]
    assert events[LIST].n_unique() == 1


@pytest.mark.parametrize("end", [0, -1])
def test_lists_that_hold_the_answer_are_refused(tmp_path: Path, end: int) -> None:
    def rows(honest: int) -> list[dict[str, Any]]:
        found = []
        for n in range(20):
            shown = [f"{n}", "x", "y"] if end == 0 else ["x", "y", f"{n}"]
            row = {"user": "a", "item": f"{n}", "row": n, "label": 1, "first": True}
            found.append(row | {"history": shown if n >= honest else ["x", "y"]})
        return found

    (tmp_path / "honest").mkdir()
    stored(rows(10), tmp_path / "honest")
    with pytest.raises(UserError, match=r"11 of 20 clicked rows .* the list holds the answer"):
        stored(rows(9), tmp_path)
