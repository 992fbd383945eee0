"""Sampled negatives against plain loops: who may be drawn, from where, and how often."""

from bisect import bisect_left
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.prepared.card import SPLITS
from engine.datasets.writing import by_time, chance, interactions, negatives, numbering
from engine.datasets.writing.encoders import Encoders
from engine.datasets.writing.features import Feature
from engine.datasets.writing.log import Log
from engine.datasets.writing.negatives import NONE, Barred, Negatives, Tape, write_tapes
from engine.datasets.writing.samples import Split
from model_zoo.training.metrics import auc

Event = tuple[int, int, int]  # user, item, time


def random_events(seed: int, events: int, users: int, items: int, moments: int) -> list[Event]:
    """Popular items are frequent, users repeat items, and moments hold several events."""
    rng = np.random.default_rng(seed)
    item = (rng.random(events) ** 2 * items).astype(int)
    columns = rng.integers(users, size=events), item, np.sort(rng.integers(moments, size=events))
    return sorted(set(zip(*(map(int, column) for column in columns), strict=True)))


def write(
    events: list[Event], output: Path, how: Negatives, min_count: int = 1, **options: Any
) -> dict[str, Any]:
    """Prepare a log of positives."""

    def table(
        items: pl.DataFrame, times_N: np.ndarray, encoders: Encoders
    ) -> tuple[pl.DataFrame, dict]:
        return encoders.item_table(
            items.rename({"item": "item_id"}),
            [Feature("item_id", "categorical", min_count=min_count)],
            times_N,
        )

    frame = pl.DataFrame(events, ["user", "item", "time"], orient="row").with_row_index("row")
    frame = frame.with_columns(label=pl.lit(1, pl.Int8), positive=True)
    frame = frame.sample(fraction=1, shuffle=True, seed=0)
    about = {"source": "a test", "licence": "none"}
    options = {
        "split": Split("user" if options.get("time_unit") == "order" else "time", 0.6, 0.2)
    } | options
    return interactions.write(
        Log(frame.lazy(), table, "click", about=about, negatives=how, **options), output
    )


def read(folder: Path) -> list[list[dict]]:
    """The rows of each group, with raw ids."""
    items = dict(pl.read_parquet(folder / "item_ids.parquet").iter_rows())
    users = dict(pl.read_parquet(folder / "user_ids.parquet").iter_rows())
    groups: dict[int, list[dict]] = {}
    for split in SPLITS:
        for row in pl.read_parquet(folder / f"{split}.parquet").iter_rows(named=True):
            row |= {
                "user": users[row["user_index"]],
                "item": items[row["item_index"]],
                "split": split,
            }
            groups.setdefault(row["group_index"], []).append(row)
    assert sorted(groups) == list(range(len(groups)))
    return [groups[i] for i in sorted(groups)]


def first_events(events: list[Event]) -> set[Event]:
    seen: set[tuple[int, int]] = set()
    return {
        e
        for e in sorted(events, key=lambda e: e[2])
        if e[:2] not in seen and not seen.add(e[:2])  # type: ignore[func-returns-value]
    }


@pytest.mark.parametrize("targets", ["first", "all"])
@pytest.mark.parametrize("source", ["time", "popularity", "uniform"])
def test_what_may_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, targets: Any
) -> None:
    """Each positive and its negatives share all but the item; none stands twice or was the user's."""
    monkeypatch.setattr(negatives, "LEAST", 60)  # the log is small, so that this is the window
    monkeypatch.setattr(by_time, "SLICE", 40)  # the tape is sorted in many slices
    monkeypatch.setattr(by_time, "SAMPLE", 1)
    events = random_events(0, 900, users=30, items=200, moments=300)
    card = write(events, tmp_path / "data", Negatives(3, source, targets), time_unit="s")
    positives = first_events(events) if targets == "first" else set(events)
    tape = sorted(positives, key=lambda e: (e[2], *e))
    times = [e[2] for e in tape]
    found, near = set(), 0
    for rows in read(tmp_path / "data"):
        (positive,) = (row for row in rows if row["click"] == 1)
        user, time = positive["user"], positive["time"]
        found.add((user, positive["item"], time))
        drawn = [row["item"] for row in rows if row["click"] == 0]
        assert len(drawn) == len(set(drawn)) == 3
        for name in ("user", "time", "seq_len", "split"):
            assert {row[name] for row in rows} == {positive[name]}
        if targets == "first":
            assert not {(user, item) for item in drawn} & {e[:2] for e in events}
        else:
            assert not {(user, item, time) for item in drawn} & set(events)
        before = [e[1] for e in tape if e[2] < time]
        if source == "time" and 100 < len(before) < len(tape) - 100:  # else the window grew
            low = int(np.searchsorted(times, time))
            own = {e[1] for e in events if e[0] == user and targets == "first"}
            free = [e[1] for e in tape[low : low + 60] if e[1] not in own]
            if len(free) > 25 and len(set(free)) > 8:
                assert set(drawn) <= set(free)
                near += 1
        elif source == "popularity" and len(before) > 300:
            assert set(drawn) <= set(before)
        elif source == "uniform" and len(before) > 300:
            assert set(drawn) <= {e[1] for e in tape if e[2] <= time}
    assert found == positives and (near > 100 or source != "time")
    assert ("in_history" in card["negatives"]) == (targets == "all")
    card["negatives"].pop("in_history", None)
    assert card["negatives"] | {"rate": 0} == {
        "per_positive": 3, "from": source, "targets": targets, "rate": 0,
    }  # fmt: skip
    if targets == "first":
        items = len({e[1] for e in events})
        had = Counter(user for user, _ in {e[:2] for e in events})
        could = sum(items - had[user] for user, *_ in positives)
        assert card["negatives"]["rate"] == pytest.approx(3 * len(positives) / could)


def write_tape(folder: Path, time_T: Any, item_T: Any, source: str = "time") -> Tape:
    """The tape of one pool."""
    positives = pl.DataFrame({"time": time_T, "item_index": item_T, "pool": 0})
    write_tapes(positives.lazy(), folder, max(item_T), source == "uniform")
    return Tape(folder / "pool=0", source, timed=True)


@pytest.mark.parametrize("source", ["time", "popularity", "uniform"])
def test_how_often_items_are_drawn(tmp_path: Path, source: Any) -> None:
    """In proportion to their events or, uniformly, all alike."""
    rng = np.random.default_rng(1)
    item_T = rng.choice([1, 1, 1, 1, 2, 2, 3, 9], size=5000)
    tape = write_tape(tmp_path, np.arange(5000), item_T, source)
    key_P = chance.keys(3, np.arange(40_000))
    nobody, nothing = np.zeros(40_000, int), Barred(np.zeros(1, int), np.array([9]))
    drawn_PN = tape.draw(1, key_P, np.full(40_000, 2500), nobody, nothing)
    shares = np.bincount(drawn_PN.ravel(), minlength=10) / 40_000
    near = item_T[2500:2700] if source == "time" else item_T[:2500]
    kept = np.unique(near) if source == "uniform" else near
    expected = np.bincount(kept[kept != 9], minlength=10) / (kept != 9).sum()
    assert np.abs(shares - expected).max() < 4 * 0.5 / 200  # standard errors


@pytest.mark.parametrize("source", ["time", "popularity", "uniform"])
def test_the_same_bytes_in_any_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    events = random_events(2, 800, users=40, items=90, moments=100)
    cards = []
    for block, slices in ((10**6, 10**6), (50, 30), (200, 7)):
        monkeypatch.setattr(numbering, "BLOCK", block)
        monkeypatch.setattr(by_time, "SLICE", slices)
        monkeypatch.setattr(by_time, "SAMPLE", 3)
        cards.append(write(events, tmp_path / str(block), Negatives(2, source), time_unit="s"))
    assert len({card["hash"] for card in cards}) == 1
    other = write(events, tmp_path / "seed", Negatives(2, source), time_unit="s", seed=7)
    assert other["hash"] != cards[0]["hash"]


def test_a_user_who_has_nearly_everything(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Gets what is left, and the command says how many are missing."""
    events = [(0, i, i) for i in range(39)] + [
        (u, (5 * u + i) % 40, 3 * i) for u in range(1, 9) for i in range(12)
    ]
    write(events, tmp_path / "data", Negatives(4), time_unit="s")
    for rows in read(tmp_path / "data"):
        drawn = [row["item"] for row in rows if row["click"] == 0]
        if rows[0]["user"] == 0:
            assert drawn == [39]
        else:
            assert len(set(drawn)) == 4
    assert "117 of 540 negatives could not be drawn" in capsys.readouterr().out


@pytest.mark.parametrize("time_unit", ["order", "s"])
@pytest.mark.parametrize("source", ["popularity", "uniform"])
def test_each_split_of_users_draws_from_its_own_events(
    tmp_path: Path, source: Any, time_unit: str
) -> None:
    """Or else an item that training never shows would be a positive, and its id would tell it."""
    events = [
        (u, 100 * (place >= 12) + (7 * u + place) % 50, place)
        for u in range(30)
        for place in range(20)
    ]
    write(
        events,
        tmp_path / "data",
        Negatives(2, source),
        time_unit=time_unit,
        split=Split("user", 0.6, 0.2),
    )
    for rows in read(tmp_path / "data"):
        assert len({row["item"] >= 100 for row in rows}) == 1


@pytest.mark.parametrize("history", ["all", "bought"])
def test_a_target_is_a_first_positive_that_the_history_does_not_show(
    tmp_path: Path, history: str
) -> None:
    """Users view an item and buy it later; only the bought ones are targets."""
    rng = np.random.default_rng(9)
    rows = []
    for user in range(60):
        for place, item in enumerate(rng.permutation(40)[:20]):
            rows.append((user, int(item), 10 * place, 0))
            if place % 3 < 2:  # some are bought without a view
                rows[-1] = (user, int(item), 10 * place, place % 3)
                rows.append((user, int(item), 10 * place + 5, 1))
    frame = pl.DataFrame(rows, ["user", "item", "time", "label"], orient="row").with_row_index(
        "row"
    )
    positive = pl.lit(True) if history == "all" else pl.col("label") == 1
    frame = frame.with_columns(pl.col("label").cast(pl.Int8), positive=positive)

    def table(items: pl.DataFrame, times_N: np.ndarray, encoders: Encoders) -> Any:
        features = [Feature("item_id", "categorical")]
        return encoders.item_table(items.rename({"item": "item_id"}), features, times_N)

    about = {"source": "a test", "licence": "none"}
    interactions.write(
        Log(frame.lazy(), table, "click", about=about, negatives=Negatives(1), split=Split()),
        tmp_path / "data",
    )
    targets = {
        (r["user"], r["item"], r["time"]) for g in read(tmp_path / "data") for r in g if r["click"]
    }
    seen: set[tuple[int, int]] = set()
    expected = set()
    for user, item, time, label in sorted(rows, key=lambda r: r[2]):
        if label and (user, item) not in seen:
            expected.add((user, item, time))
        if label or history == "all":
            seen.add((user, item))
    assert targets == expected


def test_more_negatives_than_items(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--negatives 5 .* 5 items"):
        write([(u, u % 5, t) for u in range(9) for t in range(9)], tmp_path / "data", Negatives(5))


def test_histories_keep_repeats_and_their_times(tmp_path: Path) -> None:
    events = random_events(4, 600, users=9, items=25, moments=200)
    write(events, tmp_path / "data", Negatives(1), time_unit="s")
    items = dict(pl.read_parquet(tmp_path / "data" / "item_ids.parquet").iter_rows())
    users = pl.read_parquet(tmp_path / "data" / "user_ids.parquet")["user"]
    histories = pl.read_parquet(tmp_path / "data" / "user_info.parquet")
    for row in histories.iter_rows(named=True):
        own = sorted((e for e in events if e[0] == users[row["user_index"]]), key=lambda e: e[2])
        assert row["full_time_seq"] == [e[2] for e in own]
        assert sorted(items[i] for i in row["full_item_seq"]) == sorted(e[1] for e in own)
    for rows in read(tmp_path / "data"):
        earlier = [e for e in events if e[0] == rows[0]["user"] and e[2] < rows[0]["time"]]
        assert rows[0]["seq_len"] == len(earlier)


def test_the_place_in_the_group_does_not_tell_the_label(tmp_path: Path) -> None:
    events = random_events(5, 3000, users=60, items=300, moments=1000)
    write(events, tmp_path / "data", Negatives(3), time_unit="s")
    first = [rows[0]["click"] for rows in read(tmp_path / "data")]
    assert abs(np.mean(first) - 0.25) < 4 * (0.25 * 0.75 / len(first)) ** 0.5


def test_popularity_does_not_tell_the_label(tmp_path: Path) -> None:
    """Although new items keep coming, a negative is as new as a positive."""
    rng = np.random.default_rng(8)
    events = [(int(rng.integers(300)), t // 60 + int(rng.exponential(60)), t) for t in range(6000)]
    write(events, tmp_path / "data", Negatives(2), time_unit="s")
    times: dict[int, list[int]] = {}
    for _, item, time in events:
        times.setdefault(item, []).append(time)
    rows = [row for group in read(tmp_path / "data") for row in group]
    before = [bisect_left(times[row["item"]], row["time"]) for row in rows]
    label = [row["click"] for row in rows]
    assert abs(auc(np.array(label), np.array(before, float)) - 0.5) < 0.03


def test_negatives_do_not_make_an_item_frequent(tmp_path: Path) -> None:
    """A positive counts its own item and a negative its own, which is one event of another user."""
    events = random_events(6, 10_000, users=99, items=6000, moments=5000)
    write(events, tmp_path / "data", Negatives(4), time_unit="s", min_count=4)
    ids = pl.read_parquet(tmp_path / "data" / "item_info.parquet")["item_id"]
    train = pl.read_parquet(tmp_path / "data" / "train.parquet")
    rare = (ids.gather(train["item_index"]) == 1).to_numpy()
    clicked = (train["click"] == 1).to_numpy()
    assert abs(rare[clicked].mean() - rare[~clicked].mean()) < 0.03


def test_nothing_is_drawn_from_an_empty_tape(tmp_path: Path) -> None:
    tape = write_tape(tmp_path, np.zeros(3, int), np.array([4, 4, 4]))
    drawn = tape.draw(
        2,
        chance.keys(0, np.arange(1)),
        np.zeros(1),
        np.zeros(1, int),
        Barred(np.zeros(1, int), np.array([4])),
    )
    assert drawn.tolist() == [[NONE, NONE]]


@pytest.mark.parametrize("distinct", [False, True])
def test_a_tape_is_in_the_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distinct: bool
) -> None:
    """However it is cut into slices; events of one moment stay in the order that they come in."""
    monkeypatch.setattr(by_time, "SLICE", 30)
    monkeypatch.setattr(by_time, "SAMPLE", 2)
    rng = np.random.default_rng(0)
    time, item, pool = (
        rng.integers(40, size=(700)),
        rng.integers(1, 90, size=700),
        np.arange(700) % 2,
    )
    frame = pl.DataFrame({"time": time, "item_index": item, "pool": pool})
    found = write_tapes(frame.lazy(), tmp_path, 89, distinct)
    assert found == len(set(item))
    for number in range(2):
        tape = Tape(tmp_path / f"pool={number}", "time", timed=True)
        own = sorted(
            (row for row in zip(time, item, pool, strict=True) if row[2] == number),
            key=lambda row: row[0],
        )
        seen: set[int] = set()
        if distinct:
            own = [row for row in own if row[1] not in seen and not seen.add(row[1])]  # type: ignore[func-returns-value]
        assert tape.times_T.tolist() == [row[0] for row in own]
        assert tape.items_T.tolist() == [row[1] for row in own]


def test_a_user_with_few_items_left_draws_from_these_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them as often, and none of the rest; another user draws as without the first."""
    tape = write_tape(tmp_path, np.arange(3000), np.arange(3000) % 100 + 1)
    has, barred = Barred.has, Barred(np.zeros(96, int), np.arange(1, 97))
    asked: list[int] = []
    monkeypatch.setattr(
        Barred, "has", lambda self, user, item: asked.append(len(user)) or has(self, user, item)
    )
    time_P = np.full(4000, 1500)
    drawn_PN = tape.draw(2, chance.keys(1, np.arange(4000)), time_P, np.zeros(4000, int), barred)
    assert asked == [100]  # once for all positives of the user, and each item
    assert all(len(set(row)) == 2 for row in drawn_PN.tolist())
    shares = np.bincount(drawn_PN.ravel(), minlength=101)[97:] / 8000
    assert shares.sum() == 1 and np.abs(shares - 0.25).max() < 0.02
    keys, users = chance.keys(2, np.arange(50)), np.ones(50, int)
    alone = tape.draw(2, keys, time_P[:50], users, barred)
    users[::2] = 0
    assert (tape.draw(2, keys, time_P[:50], users, barred)[1::2] == alone[1::2]).all()
