"""``prepare.py generic --like``: another log in the ids and scales of a prepared data set."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.config.feature_map_file import read_feature_map
from engine.datasets.prepared.card import FILES, SPLITS
from engine.datasets.prepared.check import check

from ....support.command_line import ROOT, Outcome, run_script, snapshot

Command = Callable[..., Outcome]
FLAGS = ("--user", "who", "--item", "what", "--time", "when", "--label", "liked", "--min-count")
FLAGS += ("5", "--item-features", "price", "size", "tags:sequence", "--sample-features")
FLAGS += ("device", "who", "hour.of")
DEVICES = ["web", "phone", "tv", "watch", "radio", "car"]


def log(seed: int, users: range, items: range, devices: int) -> pl.DataFrame:
    """A random log without repeats; ``price``, ``size`` and ``tags`` are those of the item."""
    rng = np.random.default_rng(seed)
    pairs = [(user, item) for user in users for item in items]
    rows = [(*pairs[i], DEVICES[rng.integers(devices)]) for i in rng.permutation(len(pairs))[:700]]
    who, what, device = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            "who": [f"u{user}" for user in who],
            "what": [f"i{item}" for item in what],
            "when": rng.integers(300, size=700),
            "liked": rng.integers(2, size=700),
            "price": [item / 7 for item in what],
            "size": [item % 20 if item < 40 else 100 + item % 3 for item in what],
            "tags": ["|".join("abcdefghijk"[item // 7 : item // 7 + item % 4]) for item in what],
            "device": device,
            "hour.of": rng.integers(24, size=700),
        }
    )


OLD, NEW = log(0, range(20), range(40), 3), log(1, range(10, 30), range(20, 70), 5)
NEW = NEW.with_columns(pl.col("when") + 1000)


@pytest.fixture
def old(tmp_path: Path, command: Command) -> Path:
    """A prepared data set; the folder where commands run has the raw logs, too."""
    OLD.write_csv(tmp_path / "old.csv")
    NEW.write_csv(tmp_path / "new.csv")
    flags = (*FLAGS, "--time-range", "0", "300")
    made = command("generic", "--input", "old.csv", *flags, "--output", "old/mine")
    assert made.code == 0, made.stderr
    return tmp_path / "old" / "mine"


def like(command: Command, output: str, *flags: str, base: str = "old/mine") -> Path:
    """Prepare ``new.csv``, or the input among the flags, like the old data set."""
    given = ("--input", "new.csv", *flags, "--output", output)
    made = command("generic", "--like", base, *given)
    assert made.code == 0, made.stderr
    assert not check(Path(output)).errors
    return Path(output).resolve()


def samples(folder: Path, raw: pl.DataFrame, splits: tuple[str, ...] = SPLITS) -> pl.DataFrame:
    """Samples with the features of their items; raw values are named ``raw <column>``."""
    frame = pl.concat(pl.read_parquet(folder / f"{name}.parquet") for name in splits)
    for name, key in (("item_info", "item"), ("item_ids", "item"), ("user_ids", "user")):
        more = pl.read_parquet(folder / f"{name}.parquet")
        frame = frame.join(more, on=f"{key}_index")
    keys = ["raw who", "raw what"]
    found = frame.join(
        raw.rename("raw {}".format), left_on=["user", "item"], right_on=keys, coalesce=False
    )
    assert len(found) == len(frame) and (len(frame) == len(raw) or splits != SPLITS)
    return found


def ids(frame: pl.DataFrame, column: str, feature: str | None = None) -> dict[Any, Any]:
    """The id of each raw value of a column; a value has one id."""
    pairs = set(frame[f"raw {column}", feature or column].rows())
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset_card.json").read_text())


@pytest.mark.parametrize(
    "flags", [(), ("--grow",), ("--sample-features", "hour.of", "device", "who")]
)
def test_the_same_log_again_gives_the_same_bytes(
    flags: tuple[str, ...], old: Path, command: Command
) -> None:
    new = like(command, "new/mine", "--input", "old.csv", *flags)
    for name in (*FILES, "feature_map.json", "item_ids.parquet", "user_ids.parquet"):
        assert (new / name).read_bytes() == (old / name).read_bytes(), name
    assert snapshot(new / "encoders") == snapshot(old / "encoders")
    assert card(new)["like"] == {"dataset_id": "mine", "hash": card(old)["hash"]}
    assert card(new).get("grown") == ({} if "--grow" in flags else None)


def test_known_values_keep_ids_and_scales_and_unseen_ones_are_rare(
    old: Path, command: Command
) -> None:
    new = like(command, "new")
    assert read_feature_map(new / "feature_map.json") == read_feature_map(old / "feature_map.json")
    before, after = samples(old, OLD), samples(new, NEW)
    assert ids(before, "device") == {"phone": 2, "tv": 3, "web": 4}
    for name in ("device", "who", "hour.of", "size", "what"):
        feature = {"hour.of": "hour_of", "what": "item_id"}.get(name)
        known = ids(before, name, feature)
        assert ids(after, name, feature) == {
            value: known.get(value, 1) for value in ids(after, name, feature)
        }
    assert set(ids(after, "size")) > set(ids(before, "size"))
    price = {x["raw price"]: x["price"] for x in before.iter_rows(named=True)}
    line = np.polynomial.Polynomial.fit(list(price), list(price.values()), 1)
    assert np.allclose(after["price"], line(after["raw price"].to_numpy()), atol=1e-5)
    items, all_items = (pl.read_parquet(f / "item_info.parquet") for f in (old, new))
    assert all_items.head(41).equals(items) and len(all_items) > len(items)
    names = pl.read_parquet(new / "item_ids.parquet")
    assert names.head(40).equals(pl.read_parquet(old / "item_ids.parquet"))
    assert set(names["item"][40:]) == set(NEW["what"]) - set(OLD["what"])
    listed = before["raw tags", "tags"].rows()
    letters = {a: x for tags, xs in listed for a, x in zip(tags.split("|"), xs, strict=False) if a}
    assert "k" not in letters
    for tags, found in after["raw tags", "tags"].rows():
        wanted = [letters.get(letter, 1) for letter in tags.split("|") if letter]
        assert found == wanted + [0] * (3 - len(wanted))


def shown(folder: Path, raw: pl.DataFrame) -> dict[str, Counter[str]]:
    """How often the training data show each device and, in histories as well, each item."""
    train = samples(folder, raw, ("train",))
    histories = pl.read_parquet(folder / "user_info.parquet")["full_item_seq"].to_list()
    names = [None, *pl.read_parquet(folder / "item_ids.parquet")["item"]]
    items = Counter(train["raw what"])
    for user, length in train.group_by("user_index").agg(pl.col("seq_len").max()).rows():
        items.update(names[i] for i in histories[user][:length])
    return {"device": Counter(train["raw device"]), "what": items}


def test_grow_gives_ids_to_what_is_frequent_and_moves_none(old: Path, command: Command) -> None:
    """The data set that grew can be followed in turn."""
    new = like(command, "new", "--grow", "--min-count", "20")
    before, after = samples(old, OLD), samples(new, NEW)
    sizes, grown = (read_feature_map(f / "feature_map.json")[0] for f in (old, new))
    for name, feature in (("device", "device"), ("what", "item_id")):
        known = {v: i for v, i in ids(before, name, feature).items() if i > 1}
        seen = set(before[f"raw {name}"])
        often = {value for value, count in shown(new, NEW)[name].items() if count >= 20}
        fresh = sorted(often - seen)
        assert fresh and (set(after[f"raw {name}"]) - seen - often or name == "device")
        every = known | {value: 2 + len(known) + i for i, value in enumerate(fresh)}
        assert ids(after, name, feature) == {v: every.get(v, 1) for v in set(after[f"raw {name}"])}
        assert grown[feature]["vocab_size"] == sizes[feature]["vocab_size"] + len(fresh)
        assert card(new)["grown"][feature] == len(fresh)
    later = log(2, range(30), range(60, 90), 6).with_columns(pl.col("price").cast(pl.Int64))
    later.write_csv("later.csv")
    third = like(command, "third", "--grow", "--input", "later.csv", base="new")
    assert read_feature_map(third / "feature_map.json")[0]["price"]["type"] == "numeric"
    for name, feature in (("device", "device"), ("what", "item_id")):
        known, now = ids(after, name, feature), ids(samples(third, later), name, feature)
        assert len(now) > len(now.keys() & known) > 0
        assert all(now[value] == known[value] for value in now.keys() & known)
    for name in ("item_ids", "item_info"):
        first, more = (pl.read_parquet(f / f"{name}.parquet") for f in (new, third))
        assert more.head(len(first)).equals(first) and len(more) > len(first)


def test_a_value_has_one_id_however_it_is_written(old: Path, command: Command) -> None:
    """As a text, a whole number or a fraction, alone or in a list."""
    number = pl.col("size")
    base = OLD.with_columns(tags=pl.format("{}|{}", number, number + 1))
    base.write_csv("old.csv")
    made = command("generic", "--input", "old.csv", *FLAGS, "--output", "texts")
    assert made.code == 0, made.stderr
    base = base.with_columns(what=pl.format("new{}", "what"))
    pair = pl.concat_list(number, number + 1)
    base.with_columns(tags=pair).write_parquet("whole.parquet")
    fractions = base.with_columns(number.cast(pl.Float64), tags=pair.cast(pl.List(pl.Float64)))
    fractions.write_parquet("parts.parquet")
    base.with_columns(tags=pl.format("{}.0|{}", number, number + 1)).write_csv("mixed.csv")
    for name in ("whole.parquet", "parts.parquet", "mixed.csv"):
        new = like(command, f"new_{name}", "--grow", "--input", name, base="texts")
        assert card(new)["grown"].keys() == {"item_id"}, name
        info = pl.read_parquet(new / "item_info.parquet").select("size", "tags", "price")
        assert info[1:41].equals(info[41:]), name


def test_known_items_have_the_ids_of_values_that_have_grown(old: Path, command: Command) -> None:
    """A value too rare for an id of its own, which new items make frequent."""
    size = pl.col("size")
    base = OLD.with_columns(pl.when(pl.col("what") == "i7").then(77).otherwise(size).alias("size"))
    base.write_csv("old.csv")
    flags = ("--grow", "--min-count", "25")
    made = command("generic", "--input", "old.csv", *FLAGS, *flags[1:], "--output", "rare")
    assert made.code == 0, made.stderr
    NEW.with_columns(pl.when(size < 100).then(size).otherwise(77).alias("size")).write_csv(
        "new.csv"
    )
    new = like(command, "grown", *flags, base="rare")
    before, after = (pl.read_parquet(f / "item_info.parquet") for f in (Path("rare"), new))
    values = pl.read_parquet(new / "item_ids.parquet")["size"]
    ids = dict(zip(values, after["size"][1:], strict=True))
    assert after["size"][1:].to_list() == [ids[value] for value in values]
    old_ids = dict(zip(values, before["size"][1:], strict=False))
    assert old_ids["77"] == 1 < ids["77"] and "77" in values[40:]
    assert all(ids[value] == number for value, number in old_ids.items() if number > 1)


def test_items_that_a_table_of_items_lacks(old: Path, command: Command) -> None:
    """Where all new items lack, they have rows all the same."""
    table = OLD.select("what", "price").unique("what")
    table.write_csv("items.csv")
    made = command(
        "generic", "--input", "old.csv", *FLAGS[:8], "--items", "items.csv", "--item-features",
        "price", "--output", "tabled",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    new = like(command, "new", base="tabled")
    info = pl.read_parquet(new / "item_info.parquet")
    assert info.head(41).equals(pl.read_parquet("tabled/item_info.parquet"))
    assert set(info.slice(41)["item_id", "price"].rows()) == {(1, 0.0)}


def test_negatives_are_items_of_the_new_log(old: Path, command: Command) -> None:
    """So their rate is that of the new log by itself."""
    flags = (*FLAGS[:6], "--negatives", "2", "--negatives-from", "uniform")
    for name in ("old", "new"):
        made = command("generic", "--input", f"{name}.csv", *flags, "--output", f"drawn_{name}")
        assert made.code == 0, made.stderr
    new = like(command, "new", base="drawn_old")
    assert card(new)["negatives"] == card(Path("drawn_new"))["negatives"]
    items = pl.read_parquet(new / "item_ids.parquet")
    shown = pl.concat(pl.read_parquet(new / f"{name}.parquet") for name in SPLITS)
    assert set(shown.join(items, on="item_index")["item"]) == set(NEW["what"])


Broken = tuple[Callable[[Path], object], tuple[str, ...], tuple[str, ...]]


def no_mapping(folder: Path) -> None:
    path = folder / "dataset_card.json"
    path.write_text(json.dumps({k: v for k, v in card(folder).items() if k != "mapping"}))


def fewer_items(folder: Path) -> None:
    path = folder / "item_ids.parquet"
    pl.read_parquet(path).head(7).write_parquet(path)


LIKE = ("--like", "old/mine", "--input", "new.csv")
REFUSED: dict[str, Broken] = {
    "grow alone": (
        lambda folder: None,
        ("--input", "new.csv", *FLAGS, "--grow"),
        ("--grow has no meaning without --like",),
    ),
    "no input": (lambda folder: None, LIKE[:2], ("--input is missing",)),
    "no folder": (shutil.rmtree, LIKE, ("old/mine is no data set of", "name another")),
    "no mapping": (
        no_mapping,
        LIKE,
        ("old/mine is no data set of", "whose card has the mapping"),
    ),
    "other items": (
        fewer_items,
        LIKE,
        ("old/mine: item_info.parquet and item_ids.parquet have other items",),
    ),
    "cut ids": (
        lambda folder: (folder / "item_ids.parquet").write_bytes(b"PAR1"),
        LIKE,
        ("old/mine/item_ids.parquet cannot be read",),
    ),
    "another kind": (
        lambda folder: None,
        (*LIKE, "--item-features", "price", "size:numeric", "tags:sequence"),
        ("feature size is item numeric here and item categorical in old/mine",),
    ),
    "a feature less": (
        lambda folder: None,
        (*LIKE, "--item-features", "size"),
        ("feature price is missing here and item numeric in old/mine", "leave the flags"),
    ),
    "a feature more": (
        lambda folder: None,
        (*LIKE, "--sample-features", "device", "who", "hour.of", "when:numeric"),
        ("feature when is sample numeric here and missing in old/mine",),
    ),
    "no column": (
        lambda folder: NEW.drop("device").write_csv("new.csv"),
        LIKE,
        ("new.csv: column 'device' is missing",),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_and_writes_nothing(name: str, old: Path, command: Command) -> None:
    change, flags, says = REFUSED[name]
    change(old)
    before = snapshot(Path.cwd())
    outcome = command("generic", *flags, "--output", "out")
    assert outcome.code == 2 and len(outcome.stderr.splitlines()) == 1
    assert all(part in outcome.stderr for part in says), outcome.stderr
    assert snapshot(Path.cwd()) == before


def test_the_command_line_replaces_the_data_set_that_it_follows(old: Path) -> None:
    script, folder = ROOT / "data" / "prepare.py", old.parent.parent
    flags = ("--like", "old/mine", "--grow", "--input", "new.csv", "--output", "old/mine")
    before, size = card(old), len(pl.read_parquet(old / "item_info.parquet"))
    outcome = run_script(script, "generic", *flags, "--overwrite", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    assert card(old)["like"]["hash"] == before["hash"] != card(old)["hash"]
    assert len(pl.read_parquet(old / "item_info.parquet")) > size
    assert "--expid TWIN_MoS_mine" in outcome.stdout


def test_a_share_of_the_users_is_of_one_log_alone(command: Command, tmp_path: Path) -> None:
    OLD.write_csv(tmp_path / "old.csv")
    some = ("--input", "old.csv", *FLAGS, "--sample-users", "0.5", "--output", "some")
    assert command("generic", *some).code == 0
    assert command("generic", "--like", "some", "--input", "old.csv", "--output", "all").code == 0
    assert card(tmp_path / "some")["users"] < card(tmp_path / "all")["users"] == 20
