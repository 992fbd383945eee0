"""Public logs by their names: files with the true schema and its traps, against plain loops."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.datasets.forms.mapping_file import ready_names
from engine.datasets.prepared.card import SPLITS

from ....support.command_line import Outcome
from ....support.public_logs import write_amazon_reviews, write_lfm, write_taobao, write_yambda

Command = Callable[..., Outcome]


def prepared(command: Command, *arguments: str) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """The card and the files that a command writes."""
    outcome = command(*arguments, "--output", "out")
    assert outcome.code == 0, outcome.stderr
    frames = {file.stem: pl.read_parquet(file) for file in Path("out").glob("*.parquet")}
    return json.loads(Path("out/dataset_card.json").read_text()), frames


def assert_histories(
    frames: dict[str, pl.DataFrame], events: Iterable[tuple[Any, Any, int]]
) -> None:
    """Every user has his events, each once, in the order of time."""
    users = frames["user_ids"]["user"].to_list()
    items = frames["item_ids"]["item"].to_list()
    expected: dict[str, dict[tuple, None]] = {}
    for user, item, moment in sorted(dict.fromkeys(events), key=lambda event: event[2]):
        expected.setdefault(str(user), {})[moment, str(item)] = None
    times, lists = (
        frames["user_info"][name].to_list() for name in ("full_time_seq", "full_item_seq")
    )
    for user, moments, history in zip(users, times, lists, strict=True):
        found = [(t, items[i - 1]) for t, i in zip(moments, history, strict=True)]
        wanted = expected.pop(user, {})
        assert sorted(found) == sorted(wanted) and moments == sorted(moments), user
    assert not expected


def assert_sampled(
    card: dict[str, Any], frames: dict[str, pl.DataFrame], per_positive: int
) -> None:
    samples = pl.concat([frames[split] for split in SPLITS])
    assert samples["label"].mean() == pytest.approx(1 / (1 + per_positive), abs=0.02)
    assert card["negatives"]["per_positive"] == per_positive and card["negatives"]["from"] == "time"


def test_taobao(tmp_path: Path, command: Command) -> None:
    rows = write_taobao(tmp_path / "raw")
    card, frames = prepared(command, "taobao", "--input", "raw")
    assert_histories(frames, ((u, i, t) for u, i, _, _, t in rows))
    assert_sampled(card, frames, 4)
    assert (
        card["time_unit"] == "s" and card["events"] == len(rows) + 1 and "Tianchi" in card["source"]
    )
    assert frames["item_info"]["category_id"].max() <= 9


def test_taobao_with_flags(tmp_path: Path, command: Command) -> None:
    """Flags beat the mapping, and purchases alone can be what is to be predicted."""
    rows = write_taobao(tmp_path / "raw")
    flags = (
        "--positive-actions",
        "buy",
        "--history-actions",
        "pv,buy",
        "--negatives",
        "2",
        "--min-count",
        "3",
    )
    card, frames = prepared(command, "taobao", "--input", "raw/UserBehavior.csv", *flags)
    assert_histories(frames, ((u, i, t) for u, i, _, a, t in rows if a in ("pv", "buy")))
    assert_sampled(card, frames, 2)
    bought = {(str(u), str(2268 + i - 2268), t) for u, i, _, a, t in rows if a == "buy"}
    shown = pl.concat([frames[split] for split in SPLITS]).filter(pl.col("label") == 1)
    shown = shown.join(frames["user_ids"], on="user_index").join(
        frames["item_ids"], on="item_index"
    )
    assert set(shown.select("user", "item", "time").rows()) <= bought
    assert card["mapping"]["min_count"] == 3


def test_lfm(tmp_path: Path, command: Command) -> None:
    rows = write_lfm(tmp_path / "raw")
    card, frames = prepared(command, "lfm", "--input", "raw")
    assert_histories(frames, ((u, track, t) for u, _, _, track, t in rows))
    assert_sampled(card, frames, 4)
    assert card["vocab_sizes"]["artist_id"] == 2 + 9 and card["vocab_sizes"]["album_id"] == 2 + 20


@pytest.mark.parametrize("header", [True, False])
def test_amazon_reviews(tmp_path: Path, command: Command, header: bool) -> None:
    rows = write_amazon_reviews(tmp_path / "raw", header)
    card, frames = prepared(command, "amazon_reviews", "--input", "raw")
    assert_histories(frames, ((u, i, t) for u, i, _, t in rows))
    assert_sampled(card, frames, 4)
    assert card["time_unit"] == "ms"


@pytest.mark.parametrize("sequential", [False, True])
def test_yambda(tmp_path: Path, command: Command, sequential: bool) -> None:
    flat = write_yambda(tmp_path / "raw", sequential)
    card, frames = prepared(
        command, "yambda", "--input", "raw", *(["--events-in-row"] if sequential else [])
    )
    liked = flat.filter(pl.col("played_ratio_pct") >= 50)
    assert_histories(frames, liked.select("uid", "item_id", "timestamp").rows())
    assert_sampled(card, frames, 4)
    assert card["time_unit"] == "s"
    assert frames["item_info"]["track_length_seconds"].n_unique() > 40


def test_a_missing_file_is_named(command: Command) -> None:
    Path("raw").mkdir()
    outcome = command("taobao", "--input", "raw", "--output", "out")
    assert outcome.code == 2 and "raw/UserBehavior.csv does not exist" in outcome.stderr
    assert not Path("out").exists()


def test_every_name_is_on_the_page() -> None:
    from ....support.command_line import ROOT

    page = (ROOT / "data" / "README.md").read_text()
    assert all(f"prepare.py {name} --input" in page for name in ready_names())
