"""``data/prepare.py check``: what is wrong with a prepared folder, all of it at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.datasets.prepared import layout
from engine.datasets.prepared.card import CARD, SPLITS
from engine.datasets.prepared.check import Report, check

from ....support import stand_ins
from ....support.command_line import Outcome

Edit = Callable[[pl.DataFrame], pl.DataFrame]


def edited(data: Path, folder: Path, edits: dict[str, Edit]) -> Report:
    """The report on a copy of the tiny data with some files edited."""
    shutil.copytree(data, folder)
    for name, edit in edits.items():
        path = folder / f"{name}.parquet"
        edit(pl.read_parquet(path)).write_parquet(path)
    return check(folder, renew=bool(edits))


def test_good_data_passes(tiny_data: Path, tmp_path: Path) -> None:
    report = edited(tiny_data, tmp_path / "data", {})
    assert not report.errors and not report.warnings
    text = str(report)
    assert "60 users, 300 items" in text and text.endswith("0 errors, 0 warnings")
    assert "clicks of test in histories of train and valid: 0" in text


def test_every_broken_file_is_named(tiny_data: Path, tmp_path: Path) -> None:
    """Not the first one only."""
    report = edited(
        tiny_data,
        tmp_path / "data",
        {
            "train": lambda t: t.with_columns(seq_len=pl.col("seq_len") + 1000),
            "valid": lambda t: t.drop("is_click"),
            "test": lambda t: t.head(0),
        },
    )
    assert len(report.errors) == 3 and not report.facts
    for error, says in zip(
        report.errors,
        ("train.parquet, column seq_len, row 0", "'is_click' is missing", "has no samples"),
        strict=True,
    ):
        assert says in error


def test_changed_files_are_noticed(tiny_data: Path, tmp_path: Path) -> None:
    """And the card can be written anew, if the change is meant; it keeps what was not measured."""
    folder = tmp_path / tiny_data.name
    edited(tiny_data, folder, {})
    path = folder / "train.parquet"
    pl.read_parquet(path).reverse().write_parquet(path)
    report, old = check(folder), json.loads((folder / CARD).read_text())
    assert len(report.errors) == 1 and "they were changed since" in report.errors[0]
    assert not check(folder, renew=True).errors
    assert not check(folder).errors
    new = json.loads((folder / CARD).read_text())
    assert [key for key in old if old[key] != new[key]] == ["hash"] and old.keys() == new.keys()


def test_samples_in_two_splits_are_counted(tiny_data: Path, tmp_path: Path) -> None:
    """An item that is shown again with another outcome is natural."""
    key = pl.struct("user_index", "item_index", "seq_len")
    train = pl.read_parquet(tiny_data / "train.parquet").filter(~key.is_duplicated())[:30]
    report = edited(tiny_data, tmp_path / "data", {"test": lambda _: train})
    assert any("30 samples of test.parquet stand in train.parquet" in w for w in report.warnings)
    card = tmp_path / "data" / CARD
    drawn = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.01}
    card.write_text(json.dumps(json.loads(card.read_text()) | {"negatives": drawn}))
    natural = check(tmp_path / "data")  # drawn for two positives of one moment
    assert not [w for w in natural.warnings if "by heart" in w]
    other = train.with_columns(is_click=1 - pl.col("is_click"))
    again = edited(tiny_data, tmp_path / "again", {"test": lambda _: other})
    assert any("test samples in train too: 30 " in fact for fact in again.facts)
    assert not [w for w in again.warnings if "by heart" in w]


def test_files_copied_by_hand(tmp_path: Path) -> None:
    """Without a feature map, the configuration says what the columns are."""
    data = tmp_path / "Ebnerd_small_x1"
    layout.write(stand_ins.generate(data.name, 1e-4), data)
    for name in ("feature_map.json", "dataset_card.json"):
        (data / name).unlink()
    assert not check(data).errors
    train = pl.read_parquet(data / "train.parquet")
    train.drop("topics").write_parquet(data / "train.parquet")
    assert "column 'topics' is missing" in check(data).errors[0]


def test_a_path_with_brackets_is_no_pattern(tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log[1]*" / "data"
    shutil.copytree(tiny_data, folder)
    assert check(folder).errors == check(tiny_data).errors


def test_a_column_that_is_there_twice_is_named(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    file = tmp_path / "data" / "test.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("seq_len", table["seq_len"]), file)
    assert f"{file} has two columns 'seq_len'" in check(tmp_path / "data").errors[0]


def test_clicks_of_the_test_in_earlier_histories(tiny_data: Path, tmp_path: Path) -> None:
    """A training sample whose history is too long shows what its user clicks in the test."""
    test = pl.read_parquet(tiny_data / "test.parquet").filter(
        (pl.col("is_click") == 1) & (pl.col("seq_len") > 3)
    )
    user, item, place = test["user_index"][0], test["item_index"][0], test["seq_len"][0] - 2

    def show(users: pl.DataFrame) -> pl.DataFrame:
        histories = users["full_item_seq"].to_list()
        histories[user][place] = item
        return users.with_columns(pl.Series("full_item_seq", histories))

    def too_late(train: pl.DataFrame) -> pl.DataFrame:
        later = pl.col("user_index") == user
        return train.with_columns(seq_len=pl.when(later).then(place + 1).otherwise("seq_len"))

    def earlier(table: pl.DataFrame) -> pl.DataFrame:
        mine = (pl.col("user_index") == user) & (pl.col("item_index") == item)
        return table.with_columns(seq_len=pl.when(mine).then(place).otherwise("seq_len"))

    report = edited(
        tiny_data, tmp_path / "data", {"user_info": show, "train": too_late, "test": earlier}
    )
    leaks = [w for w in report.warnings if "after their own moment" in w]
    assert len(leaks) == 1 and "of test.parquet stand in histories that train and valid" in leaks[0]


def test_a_history_with_the_click_itself(tiny_data: Path, tmp_path: Path) -> None:
    """The classic mistake: the clicked item is the newest item of its own history."""
    users = pl.read_parquet(tiny_data / "user_info.parquet")["full_item_seq"].to_list()

    def newest(table: pl.DataFrame) -> pl.DataFrame:
        rows = zip(
            table["user_index"],
            table["seq_len"],
            table["item_index"],
            table["is_click"],
            strict=True,
        )
        items = [users[u][s - 1] if s and y else i for u, s, i, y in rows]
        return table.with_columns(pl.Series("item_index", items))

    report = edited(tiny_data, tmp_path / "data", dict.fromkeys(SPLITS, newest))
    assert any("the history holds the click that is to be predicted" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("folder", "says"),
    [("nothing", "nothing has no feature_map.json"), ("empty", "has no feature_map.json")],
)
def test_what_is_no_data_set(
    tmp_path: Path, command: Callable[..., Outcome], folder: str, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = command("check", folder)
    assert outcome.code == 2 and says in outcome.stderr


def test_exit_code_of_bad_data(
    tiny_data: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    (tmp_path / "data" / "test.parquet").unlink()
    outcome = command("check", "data")
    assert (
        outcome.code == 2
        and "error: " in outcome.stdout
        and "test.parquet does not exist" in outcome.stdout
    )
    assert outcome.stdout.endswith("1 error, 0 warnings\n")
