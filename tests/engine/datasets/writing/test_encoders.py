"""Encoders that a folder keeps: they encode as before, and grow without moving an id."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.config.feature_map_file import write_feature_map
from engine.datasets.writing.encoders import Encoders, load
from engine.datasets.writing.features import Feature

FEATURES = [
    Feature("text", "categorical", min_count=2),
    Feature("number", "categorical", column="no. of it"),
    Feature("a/b", "sequence", max_len=3),
    Feature("price", "numeric"),
    Feature("vector", "embedding"),
]
ITEMS = pl.DataFrame(
    {
        "text": ["b", "b", "ä", "ä", "rare", None],
        "number": [2**62 + 1, 2**62, -5, -5, None, 2**62],
        "a/b": [["x"], ["z", "x"], None, [], ["z"], ["x", "z"]],
        "price": [0.1, 1e9 / 7, None, 5.0, float("inf"), 3.0],
        "vector": [[0.5, 1.0], None, [2.0, -1.0], [], [1.0, 1.0], [0.0, 3.0]],
    },
    strict=False,
)
PLACES = ["web", "app", None, "web"]


def write(folder: Path, encoders: Encoders, items: pl.DataFrame, places: list) -> pl.DataFrame:
    """Encode items and samples, and keep what a data set keeps of them; returns the item table."""
    folder.mkdir()
    ones = np.ones(len(items), np.int64)
    table, specs = encoders.item_table(items, FEATURES, ones)
    for encoder in encoders.of("sample", [Feature("place", "categorical")]):
        encoder.observe(pl.Series(places, dtype=pl.String), np.ones(len(places), np.int64))
    table.write_parquet(folder / "item_info.parquet")
    encoders.themes.write_parquet(folder / "item_ids.parquet")
    encoders.save(folder)
    specs |= {"seq_len": {"type": "meta"}} | encoders.specs("sample")
    write_feature_map(folder / "feature_map.json", "x", specs, "label")
    return table


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    write(tmp_path / "kept", Encoders(), ITEMS, PLACES)
    return tmp_path / "kept"


def test_loaded_encoders_encode_as_they_did(kept: Path) -> None:
    """Whatever they see, and with a description that is the same when it is written again."""
    table = pl.read_parquet(kept / "item_info.parquet")
    loaded = load(kept)
    again = write(kept.parent / "again", loaded, ITEMS.reverse(), ["other"] * 9)
    assert again.head(7).equals(table) and again["item_index"].to_list() == list(range(13))
    assert again.slice(7).reverse().drop("item_index").equals(table.slice(1).drop("item_index"))
    for file in (kept / "encoders").iterdir():
        assert file.read_bytes() == (kept.parent / "again" / "encoders" / file.name).read_bytes()
    place = load(kept).by_source["sample"][0]
    assert place.encode(pl.Series(["app", "web", "other", None])).to_list() == [2, 3, 1, 1]


def test_themes_are_raw_values(kept: Path) -> None:
    """Also of values too rare for an id; of a sequence the first. Those of new items follow."""
    loaded = load(kept)
    write(kept.parent / "again", loaded, ITEMS.reverse(), ["web"])
    assert loaded.themes.columns == ["number", "a/b"]  # neither the id nor a number or a vector
    number = ITEMS["number"].to_list()
    assert loaded.themes["number"].to_list() == number + number[::-1]
    first = [tags[0] if tags else None for tags in ITEMS["a/b"].to_list()]
    assert loaded.themes["a/b"].to_list() == first + first[::-1]


def test_values_that_a_loaded_encoder_has_not_seen(kept: Path) -> None:
    text, number, tags, price, vector = load(kept).by_source["item"]
    assert text.encode(pl.Series(["rare", "ä", "new", "b"])).to_list() == [1, 3, 1, 2]
    assert number.encode(pl.Series([2**62 + 1, 2**62, 7])).to_list() == [4, 3, 1]
    long = tags.encode(pl.Series([["new", "z", "x", "z"], ["z"]])).to_list()
    assert long == [[1, 3], [3, 0]]  # no list of the training data was longer than 2
    seen = np.array([0.1, 1e9 / 7, 5.0, 3.0])
    scaled = price.encode(pl.Series([1e12])).to_numpy()
    assert scaled == pytest.approx((1e12 - seen.mean()) / seen.std())
    with pytest.raises(UserError, match="vectors of 2 and of 3"):
        vector.encode(pl.Series([[1.0, 2.0, 3.0]]))


def test_growing_appends_ids_and_moves_none(kept: Path) -> None:
    """Also a second time, and values that are not frequent enough get none."""
    news = ITEMS.with_columns(
        pl.Series("text", ["a", "a", "zz", "b", "z", "z"]),
        pl.Series("number", [0, 9, 9, None, -5, 2**62]),
        pl.Series("a/b", [["y", "x", "z"], ["x"], None, ["a"], ["z"], ["x"]]),
        price=pl.col("price") * 100,
    )
    encoders, folder = load(kept, grow=True), kept.parent / "grown"
    table = write(folder, encoders, news, ["tv", "app", "radio"])
    assert encoders.grown() == {"text": 2, "number": 2, "a/b": 2, "place": 2}
    assert table["text"].to_list()[7:] == [4, 4, 1, 2, 5, 5]
    assert table["number"].to_list()[7:] == [5, 6, 6, 1, 2, 3]
    assert table["a/b"].to_list()[7:] == [[5, 2], [2, 0], [0, 0], [4, 0], [3, 0], [2, 0]]
    assert table.head(7).equals(pl.read_parquet(kept / "item_info.parquet"))
    assert load(folder).by_source["item"][3].mean == load(kept).by_source["item"][3].mean
    again = load(folder, grow=True)
    write(kept.parent / "again", again, news.with_columns(text=pl.lit("B")), ["radio", "app"])
    place = load(kept.parent / "again").by_source["sample"][0]
    assert again.grown() == {"text": 1}
    assert place.encode(pl.Series(["app", "web", "radio", "tv"])).to_list() == [2, 3, 4, 5]
    text = load(kept.parent / "again").by_source["item"][0]
    assert text.encode(pl.Series(["B", "a", "b", "z"])).to_list() == [6, 4, 2, 5]


def test_no_new_item_at_all(kept: Path) -> None:
    table, specs = load(kept).item_table(ITEMS.clear(), FEATURES, np.zeros(0, np.int64))
    assert table.equals(pl.read_parquet(kept / "item_info.parquet"))
    assert specs["a/b"]["max_len"] == 2 and specs["vector"]["embedding_dim"] == 2


def edited(edit: Callable[[list], object]) -> Callable[[Path], object]:
    """A change of ``encoders.json``."""

    def change(folder: Path) -> None:
        path = folder / "encoders" / "encoders.json"
        entries = json.loads(path.read_text())
        edit(entries)
        path.write_text(json.dumps(entries))

    return change


def shuffled(folder: Path) -> None:
    path = folder / "encoders" / "0.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(pl.col("id") + 1).write_parquet(path)


DAMAGED: dict[str, Callable[[Path], object]] = {
    "no text": lambda folder: (folder / "encoders" / "encoders.json").write_text("{"),
    "no list": lambda folder: (folder / "encoders" / "encoders.json").write_text("7"),
    "no vocabulary": lambda folder: (folder / "encoders" / "1.parquet").unlink(),
    "cut vocabulary": lambda folder: (folder / "encoders" / "1.parquet").write_bytes(b"PAR1"),
    "ids with a gap": shuffled,
    "a feature less": edited(lambda entries: entries.pop()),
    "an unknown kind": edited(lambda entries: entries[0].update(kind="ordinal")),
    "no kind": edited(lambda entries: entries[0].pop("kind")),
    "no scale": edited(lambda entries: entries[3].update(mean=None)),
    "another length": edited(lambda entries: entries[2].update(longest=3)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_folder_is_refused(name: str, kept: Path) -> None:
    DAMAGED[name](kept)
    with pytest.raises(UserError, match=r"encoders/encoders\.json(, \[|: ).+; prepare the data"):
        load(kept)


def test_a_folder_without_encoders(kept: Path) -> None:
    shutil.rmtree(kept / "encoders")
    with pytest.raises(UserError, match=r"keeps no encoders.*prepare\.py generic"):
        load(kept)
