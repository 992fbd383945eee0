"""Logs in which a row holds several events, against the same events with a row for each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.forms import generic
from engine.datasets.forms.mapping_file import read_mapping
from engine.datasets.prepared.card import FILES, SPLITS
from engine.datasets.writing import interactions

COLUMNS = {"user": "u", "item": "i", "time": "t", "rating": "r", "train": 0.6, "valid": 0.2}


def events(seed: int = 0, count: int = 300) -> pl.DataFrame:
    """Few moments, so that many events share one, in the order of the rows."""
    rng = np.random.default_rng(seed)
    table = pl.DataFrame({
        "u": rng.integers(9, size=count), "i": rng.integers(100, 130, size=count),
        "t": rng.integers(40, size=count), "r": rng.integers(1, 6, size=count),
    })  # fmt: skip
    table = table.sort("u", "t", maintain_order=True)
    return table.with_columns(price=pl.col("i") / 7, device=pl.col("u") % 2)


def write(
    folder: Path, table: pl.DataFrame, name: str = "log.parquet", **flags: Any
) -> dict[str, pl.DataFrame]:
    """The files that a table becomes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    mapping = read_mapping(None, COLUMNS | {"input": str(path)} | flags)
    interactions.write(generic.load(mapping), folder / "out")
    return {name: pl.read_parquet(folder / "out" / name) for name in FILES}


def in_rows(table: pl.DataFrame) -> pl.DataFrame:
    lists = table.group_by("u", "device", maintain_order=True).agg("i", "t", "r", "price")
    return pl.concat(
        [lists, lists.head(1).with_columns(u=99, i=[], t=[], r=[], price=[])],
        how="vertical_relaxed",
    )


def as_text(form: str, values: pl.Series) -> pl.Series:
    lists = [list(entry) for entry in values]
    join = {"json": json.dumps, "python": str}.get(form, lambda v: form.join(map(str, v)))
    return pl.Series([join(entry) for entry in lists])


@pytest.mark.parametrize("form", ["parquet", "json", "python", ",", " ", "|", "\x1d"])
def test_events_in_rows(tmp_path: Path, form: str) -> None:
    """Order within a moment is kept, an empty list is no event, and other columns are repeated."""
    flags = {"item_features": ["price:numeric"], "sample_features": ["device"], "events_in_row": []}
    expected = write(tmp_path / "flat", events(), **flags | {"events_in_row": None})
    table, name = in_rows(events()), "log.parquet"
    if form != "parquet":
        table = table.with_columns(
            as_text(form, table[c]).alias(c) for c in ("i", "t", "r", "price")
        )
        flags, name = flags | {"events_in_row": ["price"]}, "log.csv"
    found = write(tmp_path / "rows", table, name, **flags)
    for file, frame in expected.items():
        assert frame.equals(found[file]), file


def test_the_place_in_the_list_is_the_order_without_times(tmp_path: Path) -> None:
    table = in_rows(events()).with_columns(i=pl.col("i").cast(pl.List(pl.String)).list.join(" "))
    flags = {"time": None, "rating": None, "events_in_row": [], "negatives": 2}
    found = write(tmp_path, table.select("u", "i"), "log.csv", **flags)
    users = pl.read_parquet(tmp_path / "out" / "user_ids.parquet")["user"].to_list()
    items = pl.read_parquet(tmp_path / "out" / "item_ids.parquet")["item"].to_list()
    histories = found["user_info.parquet"]["full_item_seq"].to_list()
    expected = {str(row["u"]): row["i"].split() for row in table.iter_rows(named=True) if row["i"]}
    assert {u: [items[i - 1] for i in h] for u, h in zip(users, histories, strict=True)} == expected
    card = json.loads((tmp_path / "out" / "dataset_card.json").read_text())
    assert card["time_unit"] == "order" and card["mapping"]["order"] == "row"


def test_candidates_are_a_group(tmp_path: Path) -> None:
    """The forms ITEM-LABEL and parallel lists say the same, also of two impressions of one moment."""
    rng = np.random.default_rng(1)
    rows = [
        {"u": int(rng.integers(7)), "t": int(rng.integers(30)), "i": rng.choice(40, 4, replace=False).tolist()}
        for _ in range(200)
    ]  # fmt: skip
    table = pl.DataFrame(rows).with_columns(
        y=pl.Series([rng.permutation([1, 0, 0, 0]).tolist() for _ in rows])
    )
    joined = [
        " ".join(f"N-{i}-{y}" for i, y in zip(r["i"], r["y"], strict=True))
        for r in table.iter_rows(named=True)
    ]
    marks = {"item": None, "rating": None, "candidates": "c"}
    marked = write(
        tmp_path / "marked", table.select("u", "t", c=pl.Series(joined)), "log.csv", **marks
    )
    lists = table.select(
        "u", "t", "y", c=pl.col("i").list.eval("N-" + pl.element().cast(pl.String))
    )
    beside = write(tmp_path / "lists", lists, **marks | {"label": "y"})
    for file, frame in beside.items():
        frame = frame.rename({"y": "label"}) if "y" in frame.columns else frame
        assert frame.equals(marked[file]), file
    samples = pl.concat([beside[f"{split}.parquet"] for split in SPLITS])
    assert len(samples) == 4 * len(rows) - int(
        json.loads((tmp_path / "lists/out/dataset_card.json").read_text())["events_merged"]
    )
    groups = samples.group_by("group_index").agg(
        pl.col("time").n_unique(), pl.col("y").sum(), pl.len()
    )
    assert groups["time"].max() == 1 and groups["len"].max() == 4
    request = pl.int_range(pl.len()).map_elements("r{}".format, pl.String)
    exploded = lists.with_columns(r=request).explode("y", "c")
    flags = {"item": "c", "rating": None, "label": "y", "impression": "r"}
    for by in ("time", "user"):
        joint = write(tmp_path / f"joint_{by}", lists, **marks | {"label": "y", "split": by})
        apart = write(tmp_path / f"apart_{by}", exploded, **flags | {"split": by})
        for split in SPLITS:
            assert len(joint[f"{split}.parquet"]) > 50
            assert apart[f"{split}.parquet"].equals(joint[f"{split}.parquet"]), split


@pytest.mark.parametrize("split", ["time", "user"])
@pytest.mark.parametrize("exposures", [False, True])
def test_an_impression_may_last(tmp_path: Path, exposures: bool, split: str) -> None:
    """Its rows are one group, of one moment, with one history and in one split."""
    rng = np.random.default_rng(2)
    shown = pl.DataFrame({"u": rng.integers(5, size=400), "t": rng.permutation(400)}).with_columns(
        i=pl.Series(rng.permutation(400)), r=pl.col("t") // 7, y=pl.Series(rng.integers(2, size=400))
    )  # fmt: skip
    flags = {"rating": None, "label": "y", "impression": "r", "split": split}
    log = shown
    if exposures:
        shown.drop("y").write_csv(tmp_path / "shown.csv")
        flags |= {"label": None, "exposures": str(tmp_path / "shown.csv")}
        log = shown.filter(pl.col("y") == 1).with_columns(t=pl.col("t") + 1).drop("r")
    files = write(tmp_path / "log", log, "log.csv", **flags)
    splits = {name: files[f"{name}.parquet"] for name in SPLITS}
    samples = pl.concat([frame.with_columns(split=pl.lit(name)) for name, frame in splits.items()])
    same = pl.col("time", "seq_len", "split").n_unique()
    groups = samples.group_by("user_index", "group_index").agg(
        same, pl.col("time").min().alias("first"), pl.len()
    )
    assert groups["time"].max() == groups["seq_len"].max() == groups["split"].max() == 1
    wanted = shown.group_by("u", "r").agg(first=pl.col("t").min(), len=pl.len().cast(pl.UInt32))
    told = ["first", "len"]
    assert (
        groups.select(told)
        .sort(told)
        .equals(wanted.select(told).cast(groups.select(told).schema).sort(told))
    )
    assert samples["seq_len"].n_unique() > 10


def test_ids_of_impressions_do_not_come_back(tmp_path: Path) -> None:
    pages = events().with_columns(page=pl.int_range(pl.len()) % 4)
    with pytest.raises(
        UserError, match=r"--impression: its values come back .* times after others"
    ):
        write(tmp_path, pages, impression="page")


BAD = {
    "unequal": ({"i": "1,2", "t": "5", "r": "1,2"}, {}, "column t, line 3: the value is '5'; write as many entries as i has"),
    "no list": ({"i": "1,2", "t": "5,6", "r": "1;2"}, {}, "hold more than one of the separators"),
    "odd entry": ({"i": "1,2", "t": "5,x", "r": "1,2"}, {}, "column t, line 3: the value is 'x'; write a whole number"),
    "no id": ({"i": "1,,2", "t": "5,6,7", "r": "1,2,3"}, {}, "column i, line 3: the value is missing; write an id"),
    "with candidates": ({}, {"candidates": "c"}, "--events-in-row and --candidates exclude each other"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_events(tmp_path: Path, name: str) -> None:
    row, flags, says = BAD[name]
    table = pl.DataFrame([{"u": "a", "i": "1,2", "t": "3,4", "r": "1,5"}, {"u": "b"} | row])
    with pytest.raises(UserError, match=says):
        write(
            tmp_path, table, "log.csv", **{"events_in_row": [], "train": 0.5, "valid": 0.3} | flags
        )


@pytest.mark.parametrize(
    ("value", "flags", "says"),
    [
        ("N1-1 N2", {}, "column c, line 3: the value is 'N2'; write ITEM-1 or ITEM-0"),
        ("N1-1 N2-7", {}, "the value is 'N2-7'; write ITEM-1 or ITEM-0"),
        ("N1-1 N2-0", {"item_features": ["t"]}, "--item-features with --candidates need --items, a table"),
        ("N1-1 N2-0", {"items": "x.csv", "item_features": ["t"]}, "--items needs --items-key or --item; add it"),
    ],
)  # fmt: skip
def test_refused_candidates(tmp_path: Path, value: str, flags: dict, says: str) -> None:
    table = pl.DataFrame({"u": ["a", "b"], "t": [1, 2], "c": ["N1-1 N2-0", value]})
    with pytest.raises(UserError, match=says):
        write(
            tmp_path, table, "log.csv", **{"item": None, "rating": None, "candidates": "c"} | flags
        )
