"""The command that measures the counting baseline, and the file that keeps it."""

import json
from pathlib import Path

import polars as pl
import pytest

from engine.baseline import record
from engine.baseline.__main__ import main
from engine.baseline.measure import measure
from engine.common.errors import UserError
from engine.datasets.prepared.card import FILES, fingerprint

from ...support.command_line import Outcome, run_here
from .conftest import MakeData


def test_random_labels_are_not_learned(make_data: MakeData) -> None:
    params = make_data(users=200, shown=50, items=300, unit="s")
    found = measure(params, max_len=50)["metrics"]
    assert found.keys() == {record.ALL, record.NEWEST, record.TIMES, record.THEME}
    for metrics in found.values():
        assert metrics["test"]["AUC"] == pytest.approx(0.5, abs=0.04)
        assert metrics["test"]["gAUC"] == pytest.approx(0.5, abs=0.04)


def test_what_the_history_tells_is_learned(make_data: MakeData) -> None:
    params = make_data(users=100, shown=60)
    for split in ("train", "valid", "test"):  # who has had an item wants it again
        path = Path(params[f"{split}_data"])
        lists = pl.read_parquet(params["user_info"])
        rows = pl.read_parquet(path).join(lists, on="user_index", maintain_order="left")
        seen = pl.col("full_item_seq").list.head(pl.col("seq_len")).list
        label = seen.contains(pl.col("item_index")).cast(pl.Int8)
        rows.with_columns(label=label).drop("full_item_seq").write_parquet(path)
    found = measure(params, max_len=200)["metrics"]
    assert found[record.ALL]["test"]["AUC"] > 0.99 > found[record.NEWEST]["test"]["AUC"] + 0.05
    assert measure(params, max_len=20)["metrics"].keys() == {record.ALL, record.THEME}


def test_what_the_running_theme_tells_is_learned(make_data: MakeData) -> None:
    params = make_data(users=150, shown=60)
    users = pl.read_parquet(params["user_info"])["full_item_seq"].to_list()
    table = pl.read_parquet(params["item_info"]).to_dicts()
    kind, tag = (
        [row["kind"] for row in table],
        [row["tags"][0] for row in table],
    )
    for split in ("train", "valid", "test"):  # wanted is the tag of which the running kind has most
        rows = pl.read_parquet(params[f"{split}_data"])
        label = []
        for user, item, length in rows.select("user_index", "item_index", "seq_len").iter_rows():
            history = users[user][:length]
            running = [tag[event] for event in history if kind[event] == kind[history[-1]]]
            label.append(int(2 * running.count(tag[item]) > len(running)))
        path = Path(params[f"{split}_data"])
        rows.with_columns(label=pl.Series(label, dtype=pl.Int8)).write_parquet(path)
    entry = measure(params, max_len=200)
    assert entry["theme"]["name"] == "kind"
    assert entry["metrics"][record.THEME]["test"]["AUC"] > 0.99
    assert (worth := record.worth_of_theme(entry)) is not None and worth > 0.05
    assert f"the kind of the newest one is worth {worth:+.4f}" in record.running_theme(entry)


def run(data: Path, root: Path, *more: str) -> Outcome:
    return run_here(main, "--data", str(data), "--model-root", str(root), *more)


def test_the_command_keeps_what_it_measured(tiny_data: Path, tmp_path: Path) -> None:
    done = run(tiny_data, tmp_path)
    assert done.code == 0, done.stderr
    data_hash = fingerprint(tiny_data / name for name in FILES)
    kept = record.of(tmp_path / tiny_data.name, data_hash, 50)  # max_len of the shipped experiments
    assert kept is not None and f"{kept['metrics'][record.ALL]['test']['AUC']:.4f}" in done.stdout
    assert "a long history" in done.stdout and "sampled negatives" not in done.stdout
    assert record.of(tmp_path / tiny_data.name, data_hash, 20) is None
    assert run(tiny_data, tmp_path, "--max-len", "20", "--rows", "500", "--seed", "1").code == 0
    less = record.of(tmp_path / tiny_data.name, data_hash, 20)
    assert less is not None and 400 < less["samples"] < 600
    assert record.of(tmp_path / tiny_data.name, data_hash, 50) == kept
    assert record.of(tmp_path / tiny_data.name, "other data", 50) is None


def test_one_label_is_rejected(make_data: MakeData, tmp_path: Path) -> None:
    params = make_data()
    path = Path(params["valid_data"])
    pl.read_parquet(path).with_columns(label=pl.lit(1, pl.Int8)).write_parquet(path)
    done = run(path.parent, tmp_path / "out")
    assert done.code == 2 and "valid.parquet: all labels are 1" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [None, 3])
def test_damaged_item_ids_are_named(make_data: MakeData, tmp_path: Path, rows: int | None) -> None:
    folder = Path(make_data()["train_data"]).parent
    path = folder / "item_ids.parquet"
    if rows is None:
        path.write_bytes(b"no table")
    else:
        pl.read_parquet(path).head(rows).write_parquet(path)
    done = run(folder, tmp_path / "out")
    assert done.code == 2 and "item_ids.parquet" in done.stderr
    assert ("3 items, but item_info.parquet has 40" in done.stderr) == (rows == 3)


def test_a_feature_that_most_items_lack_is_no_theme(make_data: MakeData) -> None:
    params = make_data()
    path = Path(params["item_info"]).parent / "item_ids.parquet"
    few = pl.when(pl.col("item_index") > 30).then("kind")
    pl.read_parquet(path).with_columns(kind=few).write_parquet(path)
    entry = measure(params, max_len=20)
    assert "theme" not in entry and entry["metrics"].keys() == {record.ALL}


def test_a_folder_without_data_is_rejected(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "out")
    assert done.code == 2 and "feature_map.json" in done.stderr


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text(json.dumps({"hash": {}})[:-3])
    with pytest.raises(UserError, match=r"counting_baseline\.json"):
        record.of(tmp_path, "hash", 50)
