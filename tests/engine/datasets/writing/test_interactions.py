"""Logs of interactions against a plain loop: histories, labels, splits, and what features learn."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.common.errors import UserError
from engine.datasets.prepared.card import SPLITS
from engine.datasets.writing import by_time, interactions, numbering
from engine.datasets.writing.encoders import Encoders
from engine.datasets.writing.features import Feature
from engine.datasets.writing.log import Log
from engine.datasets.writing.samples import Split

# row, user, item, time, label, positive, place
Row = tuple[int, str, str, int, int | None, bool, str | None]
PLACES = ["home", "mail", "search"]


def random_rows(seed: int, moments: int, exposures: bool = False) -> list[Row]:
    """Few moments make many events of one moment, and events that stand twice."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    clicks = 0  # of a table of their own, whose rows are counted from 0 too
    for _ in range(600):
        user, item = f"u{rng.integers(12)}", f"i{rng.integers(30)}"
        time, clicked = int(rng.integers(moments)), bool(rng.random() < 0.4)
        apart = clicked if exposures else rng.random() < 0.2
        if apart:  # history only: it has no place
            clicks += exposures
            row = clicks if exposures else len(rows)
            rows.append((row, user, item, time, None, True, None))
        else:
            label = 0 if exposures else int(clicked)
            place = str(rng.choice(PLACES))
            rows.append((len(rows) - clicks, user, item, time, label, bool(label), place))
    return rows


def log(rows: list[Row], split: Split, exposures: bool = False, min_count: int = 1) -> Log:
    kinds = {"row": pl.UInt32, "user": pl.String, "item": pl.String, "time": pl.Int64}
    kinds |= {"label": pl.Int8, "positive": pl.Boolean, "place": pl.String}
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    frame = pl.DataFrame(shuffled, schema=kinds, orient="row")

    def table(
        items: pl.DataFrame, times_N: np.ndarray, encoders: Encoders
    ) -> tuple[pl.DataFrame, dict]:
        features = [Feature("item_id", "categorical", min_count=min_count)]
        return encoders.item_table(items.rename({"item": "item_id"}), features, times_N)

    return Log(
        frame.lazy(), table, "click", split, {"source": "a test", "licence": "none"},
        [Feature("place", "categorical")], exposures,
    )  # fmt: skip


def events_of(rows: list[Row]) -> dict[str, list[list]]:
    """By user in time order: ``[item, time, label, positive, place]``, doubles made one."""
    merged: dict[tuple, list] = {}
    for _, user, item, time, label, positive, place in sorted(
        rows, key=lambda r: (r[0], r[4] is None)
    ):
        event = merged.setdefault((user, time, item), [None, False, None])
        event[0] = max((x for x in (event[0], label) if x is not None), default=None)
        event[1] |= positive
        event[2] = event[2] or place
    users = defaultdict(list)
    for (user, time, item), event in merged.items():  # in the order of the rows
        users[user].append([item, time, *event])
    return {user: sorted(events, key=lambda e: e[1]) for user, events in sorted(users.items())}


def times_of(rows: list[Row]) -> list[int]:
    """The moments of all samples in order, doubles made one."""
    return sorted(e[1] for events in events_of(rows).values() for e in events if e[2] is not None)


def samples_of(rows: list[Row], exposures: bool, starts: tuple[int, ...] = ()) -> list[tuple]:
    """``(user, time, item, label, history, place)`` by definition."""
    found = []
    for user, events in events_of(rows).items():
        for item, time, label, _, place in events:
            if label is None:
                continue
            if exposures:
                shown = [t for i, t, y, _, _ in events if i == item and y is not None and t > time]
                end = min([*shown, *(start for start in starts if start > time)], default=10**9)
                label = int(any(p for i, t, _, p, _ in events if i == item and time <= t < end))
            history = tuple(i for i, t, _, p, _ in events if p and t < time)
            found.append((user, time, item, label, history, place))
    return found


def names_of(rows: list[Row]) -> tuple[list[str], list[str]]:
    """Users, and items after the padding."""
    return sorted({r[1] for r in rows}), ["", *sorted({r[2] for r in rows})]


def read_samples(folder: Path, rows: list[Row]) -> dict[str, list[tuple]]:
    """The written splits in the same form, sorted: rows of one moment are written in random order."""
    users, items = names_of(rows)
    histories = pl.read_parquet(folder / "user_info.parquet")["full_item_seq"].to_list()
    found = {
        split: [
            (
                users[row["user_index"]],
                row["time"],
                items[row["item_index"]],
                row["click"],
                tuple(items[i] for i in histories[row["user_index"]][: row["seq_len"]]),
                PLACES[row["place"] - 2],
            )
            for row in pl.read_parquet(folder / f"{split}.parquet").iter_rows(named=True)
        ]
        for split in SPLITS
    }
    for part in found.values():
        moments = [sample[:2] for sample in part]
        assert moments == sorted(moments)
    return {split: sorted(part) for split, part in found.items()}


@pytest.mark.parametrize("exposures", [False, True], ids=["labelled", "exposures"])
@pytest.mark.parametrize("moments", [12, 40, 10_000])
def test_split_by_time_against_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: int, exposures: bool
) -> None:
    monkeypatch.setattr(numbering, "BLOCK", 100)  # several blocks of users
    monkeypatch.setattr(by_time, "SAMPLE", 2)
    monkeypatch.setattr(by_time, "SLICE", 20)  # the times are cut into slices
    rows = random_rows(moments, moments, exposures)
    interactions.write(log(rows, Split("time", 0.6, 0.2), exposures), tmp_path / "data")
    times = times_of(rows)
    starts = times[int(0.6 * (len(times) - 1) + 1e-9)], times[int(0.8 * (len(times) - 1) + 1e-9)]
    samples = samples_of(rows, exposures, starts)
    found = read_samples(tmp_path / "data", rows)
    assert sum(map(len, found.values())) == len(samples)
    parts = {
        "train": [s for s in samples if s[1] < starts[0]],
        "valid": [s for s in samples if starts[0] <= s[1] < starts[1]],
        "test": [s for s in samples if s[1] >= starts[1]],
    }
    for split, part in parts.items():
        assert found[split] == sorted(part), split


def test_split_by_user_against_a_plain_loop(tmp_path: Path) -> None:
    rows = random_rows(1, 30)
    interactions.write(log(rows, Split("user", 0.6, 0.2)), tmp_path / "data")
    expected: dict[str, list[tuple]] = {split: [] for split in SPLITS}
    samples = samples_of(rows, False)
    for user in sorted({s[0] for s in samples}):
        own = [s for s in samples if s[0] == user]
        for place, sample in enumerate(own):
            late = (place >= int(0.6 * len(own))) + (place >= int(0.8 * len(own)))
            expected[SPLITS[late]].append(sample)
    found = read_samples(tmp_path / "data", rows)
    assert found == {split: sorted(part) for split, part in expected.items()}


def test_raw_ids_are_kept(tmp_path: Path) -> None:
    rows = random_rows(6, 50)
    interactions.write(log(rows, Split()), tmp_path / "data")
    users = pl.read_parquet(tmp_path / "data" / "user_ids.parquet")
    items = pl.read_parquet(tmp_path / "data" / "item_ids.parquet")
    assert users.rows() == list(enumerate(names_of(rows)[0]))
    assert [(0, ""), *items.rows()] == list(enumerate(names_of(rows)[1]))


def test_given_moments_split(tmp_path: Path) -> None:
    rows = random_rows(2, 100)
    card = interactions.write(log(rows, Split(starts=(50, 90))), tmp_path / "data")
    times = [s[1] for s in samples_of(rows, False)]
    assert [card["splits"][s]["rows"] for s in SPLITS] == [
        sum(t < 50 for t in times), sum(50 <= t < 90 for t in times), sum(t >= 90 for t in times)
    ]  # fmt: skip


def test_shares_are_of_the_samples_that_are_left(tmp_path: Path) -> None:
    """Rows that stand twice, here all of the first half, count once."""
    rows: list[Row] = [(t, f"u{t % 7}", f"i{t}", t, t % 2, t % 2 == 1, "mail") for t in range(100)]
    rows += [(100 + n * 50 + t, *rows[t][1:]) for n in range(3) for t in range(50)]
    card = interactions.write(log(rows, Split("time", 0.6, 0.2)), tmp_path / "data")
    assert [card["splits"][s]["rows"] for s in SPLITS] == [59, 20, 21]
    assert (card["events"], card["events_merged"]) == (250, 150)


@pytest.mark.parametrize("split", ["time", "user"])
def test_a_given_test_set_is_in_no_history_of_the_others(tmp_path: Path, split: str) -> None:
    """Its rows are spread over all moments; those after the user's other samples are history."""
    rng = np.random.default_rng(5)
    rows: list[Row] = [
        (n, f"u{rng.integers(9)}", f"i{n}", int(t), 1, True, "mail")
        for n, t in enumerate(rng.permutation(300))
    ]
    rows = [row if n % 5 else (*row[:4], 0, False, "mail") for n, row in enumerate(rows)]
    given = log(rows, Split(split))
    tested = {row[2] for row in rows if row[0] % 3 == 0 or row[3] > 260}
    given.events = given.events.with_columns(test=pl.col("item").is_in(list(tested)))
    interactions.write(given, tmp_path / "data")
    found = read_samples(tmp_path / "data", rows)
    assert {s[2] for s in found["test"]} == tested
    positives = {row[2]: row for row in rows if row[5]}
    last = {
        s[0]: max(o[1] for o in found["train"] + found["valid"] if o[0] == s[0])
        for s in found["train"]
    }
    late = 0
    for user, time, _, _, history, _ in (s for part in found.values() for s in part):
        own = [row for row in positives.values() if row[1] == user and row[3] < time]
        read = {row[2] for row in own if row[2] not in tested or row[3] > last[user]}
        assert set(history) == read
        late += len(read & tested)
    assert late


def test_same_bytes_again_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = random_rows(3, 50)
    first = interactions.write(log(rows, Split()), tmp_path / "a")
    again = log(rows, Split())
    again.events = again.events.reverse()
    assert interactions.write(again, tmp_path / "b")["hash"] == first["hash"]


def test_vocabularies_are_learned_from_the_training_data(tmp_path: Path) -> None:
    """An id of its own for items that training targets or their histories show ``min_count`` times."""
    rows = random_rows(4, 1000)
    interactions.write(log(rows, Split("time", 0.3, 0.3), min_count=6), tmp_path / "data")
    samples = samples_of(rows, False)
    times = times_of(rows)
    train = [s for s in samples if s[1] < times[int(0.3 * (len(times) - 1))]]
    counts: dict[str, int] = defaultdict(int)
    for _, _, item, *_ in train:
        counts[item] += 1
    for user in {s[0] for s in train}:
        for item in max((s[4] for s in train if s[0] == user), key=len):
            counts[item] += 1
    ids = pl.read_parquet(tmp_path / "data" / "item_info.parquet")["item_id"].to_list()
    names = names_of(rows)[1][1:]
    own = [name for name in names if counts[name] >= 6]
    assert 0 < len(own) < len(names)
    assert ids == [0] + [2 + own.index(name) if name in own else 1 for name in names]
    places = pl.concat(
        [pl.read_parquet(tmp_path / "data" / f"{s}.parquet")["place"] for s in SPLITS]
    )
    assert set(places) <= {1, 2, 3, 4} and places.n_unique() == 3


def test_shares_are_not_rounded_down(tmp_path: Path) -> None:
    """0.7 + 0.1 is a little less than 0.8."""
    rows = [
        (u * 10 + t, f"u{u}", f"i{t}", t, (t + u) % 2, (t + u) % 2 == 1, "mail")
        for u in range(40)
        for t in range(10)
    ]
    card = interactions.write(log(rows, Split("user", 0.7, 0.1)), tmp_path / "data")
    assert [card["splits"][s]["rows"] for s in SPLITS] == [280, 40, 80]


@pytest.mark.parametrize("exposures", [False, True])
def test_same_bytes_with_any_number_of_threads(tmp_path: Path, exposures: bool) -> None:
    rows = random_rows(8, 40, exposures)
    hashes = {
        interactions.write(log(rows, Split(), exposures), tmp_path / str(i))["hash"]
        for i in range(4)
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("rows", "split", "says"),
    [
        ([(t, "u", "i", t, t % 2, t % 2 == 1, "x") for t in range(3)], Split(starts=(1, 99)), "falls into test"),
        ([(t, "u", "i", t, 1, True, "x") for t in range(30)], Split(), "every label .* is 1"),
        ([(t, "u", "i", t, 0, False, "x") for t in range(30)], Split(), "every label .* is 0"),
        ([(t, "u", "i", 7, t % 2, False, "x") for t in range(30)], Split(), "falls into train"),
    ],
)  # fmt: skip
def test_useless_logs(tmp_path: Path, rows: list[Row], split: Split, says: str) -> None:
    with pytest.raises(UserError, match=says):
        interactions.write(log(rows, split), tmp_path / "data")


def test_wide_rows_are_written_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the memory allows, and never more than ``ROWS``."""
    rows = random_rows(9, 400)
    monkeypatch.setattr(interactions, "LEAST", 1)
    monkeypatch.setattr(numbering, "PROGRAM", 0)
    monkeypatch.setattr(numbering, "ID", 0)
    groups, tables = [], []
    for number, memory in enumerate((4.0, 2e-5, 0)):
        folder = tmp_path / str(number)
        interactions.write(log(rows, Split()), folder, memory)
        parquet = [pq.ParquetFile(folder / f"{name}.parquet") for name in ("train", "user_info")]
        groups.append([file.num_row_groups for file in parquet])
        tables.append([file.read() for file in parquet])
    assert groups[0] == [1, 1] and groups[2] == [len(table) for table in tables[0]]
    assert 1 < groups[1][0] < groups[2][0] / 8
    assert tables[0] == tables[1] == tables[2]
