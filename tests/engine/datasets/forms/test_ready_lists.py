"""Public logs whose rows show histories as lists, with the mappings that come with the project."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl

from engine.datasets.prepared.card import SPLITS

from ....support.command_line import Outcome
from ....support.public_logs import LEAST, write_amazon_reviews, write_mind, write_taobao_mm

# ---------------------------------------------------------------- Taobao-MM


def test_taobao_mm(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    parts = write_taobao_mm(tmp_path / "raw")
    made = command("taobao_mm", "--input", str(tmp_path / "raw"), "--output", "out")
    assert made.code == 0, made.stderr
    files = {path.stem: pl.read_parquet(path) for path in Path("out").glob("*.parquet")}
    users, items = files["user_ids"]["user"], ["", *files["item_ids"]["item"]]
    lists = [[items[i] for i in row] for row in files["user_info"]["full_item_seq"]]
    found = {
        split: [
            (users[r["user_index"]], items[r["item_index"]], r["label_0"], lists[r["user_index"]])
            for r in files[split].iter_rows(named=True)
            if r["seq_len"] == len(lists[r["user_index"]])
        ]
        for split in SPLITS
    }
    expected = {
        part: [
            (str(r["129_1"]), str(r["205"]), r["label_0"][1], [str(i) for i in r["150_2_180"]])
            for r in table.iter_rows(named=True)
        ]
        for part, table in parts.items()
    }
    assert sorted(found["test"]) == sorted(expected["test"])
    assert sorted(found["train"] + found["valid"]) == sorted(expected["train"])
    assert len(files["user_info"]) == 33 + 32  # train and test have lists of their own
    assert files["test"]["group_user"].n_unique() == 32
    card = json.loads(Path("out", "dataset_card.json").read_text())
    assert card["users"] == 33 and card["time_unit"] == "order"
    assert str(LEAST) in items and str(LEAST) in users
    assert card["vocab_sizes"]["item_code_2"] == 3  # padding, missing, and the value 1
    lacking = {
        users[r["user_index"]]
        for r in files["train"].iter_rows(named=True)
        if r["user_code_5"] == 1
    }
    assert lacking == {"7"}


# ---------------------------------------------------------------- MIND


def test_mind(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    parts = write_mind(tmp_path / "raw")
    made = command("mind", "--input", str(tmp_path / "raw"), "--output", "out")
    assert made.code == 0, made.stderr
    files = {path.stem: pl.read_parquet(path) for path in Path("out").glob("*.parquet")}
    users, items = files["user_ids"]["user"], ["", *files["item_ids"]["item"]]
    lists = files["user_info"]["full_item_seq"].to_list()
    found: dict[str, list[tuple]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for row in files[split].iter_rows(named=True):
            user, shown = users[row["user_index"]], lists[row["user_index"]][: row["seq_len"]]
            sample = (user, items[row["item_index"]], row["label"], [items[i] for i in shown])
            found[split].append((*sample, row["group_index"]))
    learned, tested = parts.values()
    for expected, made_of in (
        (learned, found["train"] + found["valid"]),
        (tested, found["test"]),
    ):
        assert sorted(s[:4] for s in made_of) == sorted(s[:4] for s in expected)
        impressions: dict[int, set[str]] = {}
        for sample in made_of:
            impressions.setdefault(sample[4], set()).add(sample[1])
        given: dict[int, set[str]] = {}
        for sample in expected:
            given.setdefault(sample[4], set()).add(sample[1])
        assert sorted(map(sorted, impressions.values())) == sorted(map(sorted, given.values()))
    assert len(files["user_info"]) == len({s[0] for s in learned + tested})
    assert files["train"]["time"].max() < files["valid"]["time"].min()
    categories = dict(zip(items[1:], files["item_info"]["category"][1:], strict=True))
    assert len(set(categories.values())) == 4
    assert all(
        (categories[a] == categories[b]) == (int(a[1:]) % 4 == int(b[1:]) % 4)
        for a in categories
        for b in categories
    )


# ---------------------------------------------------------------- Amazon Reviews with histories


def test_amazon_reviews_with_histories(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    rows = sorted(write_amazon_reviews(tmp_path / "raw", True), key=lambda row: row[3])
    before: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {"train": [], "test": []}
    expected: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for n, (user, item, rating, time) in enumerate(rows):
        seen = before.setdefault(user, [])
        part = "test" if n > 0.8 * len(rows) else "train"
        lines[part].append(f"{user},{item},{rating},{time},{' '.join(seen)}")
        expected[user, item] = (part, [*seen])
        seen.append(item)
    for part, text in lines.items():
        header = ["user_id,parent_asin,rating,timestamp,history"]
        (tmp_path / "raw" / f"Toys.{part}.csv").write_text("\n".join([*header, *text]) + "\n")
    flags = ["--columns", "user_id,parent_asin,rating,timestamp,history", "--history", "history"]
    flags += ["--input", "raw/Toys.train.csv", "--test-input", "raw/Toys.test.csv"]
    made = command("amazon_reviews", *flags, "--output", "out")
    assert made.code == 0, made.stderr
    files = {path.stem: pl.read_parquet(path) for path in Path("out").glob("*.parquet")}
    users, items = files["user_ids"]["user"], ["", *files["item_ids"]["item"]]
    lists = files["user_info"]["full_item_seq"].to_list()
    assert len(lists) == len(before)
    for split in SPLITS:
        for row in files[split].iter_rows(named=True):
            user, item = users[row["user_index"]], items[row["item_index"]]
            shown = [items[i] for i in lists[row["user_index"]][: row["seq_len"]]]
            if row["label"]:
                assert expected.pop((user, item)) == ("test" if split == "test" else "train", shown)
            else:
                assert item not in before[user]
    assert not expected
