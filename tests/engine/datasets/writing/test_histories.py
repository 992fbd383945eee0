"""Lists in the rows against plain loops: what is stored of them, and what each row reads."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.forms import generic
from engine.datasets.forms.mapping_file import read_mapping
from engine.datasets.prepared.card import SPLITS
from engine.datasets.raw.source import PLACE
from engine.datasets.writing import histories, interactions, numbering
from engine.datasets.writing.histories import LIST, REPEATED, SEEN, stored_events

from ....support.command_line import prepare_and_train


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
    return stored_events(frame.drop("first").lazy(), "a test", folder, memory=4.0).collect()


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


# ---------------------------------------------------------------- whole data sets


def random_log(seed: int, window: int | None = None) -> pl.DataFrame:
    """Clicks and other rows, each with the clicks of its user at earlier moments.

    Args:
        window: the newest clicks that a list holds; all of them if it is None.
    """
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(1_600_000_000, 1_600_000_400, size=600))
    clicks: dict[str, list[tuple[int, str]]] = {}
    rows = []
    for time in times.tolist():
        user, item, label = f"u{rng.integers(8)}", f"i{rng.integers(40)}", int(rng.integers(2))
        seen = [pair for pair in clicks.get(user, []) if pair[0] < time][-(window or 999) :]
        texts = [",".join(str(pair[k]) for pair in seen) for k in (1, 0)]
        if any(r[0] == user and r[1] == item and r[2] == time for r in rows):
            continue
        rows.append((user, item, time, label, *texts))
        if label:
            clicks.setdefault(user, []).append((time, item))
    names = ["user", "item", "time", "label", "seen", "when"]
    return pl.DataFrame(rows, schema=names, orient="row")


def prepare(folder: Path, table: pl.DataFrame, **flags: Any) -> dict[str, pl.DataFrame]:
    """The files that the flags make of a table."""
    table.write_csv(folder / "log.csv")
    flags = {"user": "user", "item": "item", "time": "time", "label": "label"} | flags
    mapping = read_mapping(None, {"input": str(folder / "log.csv")} | flags)
    interactions.write(generic.load(mapping), folder / "out")
    return {path.stem: pl.read_parquet(path) for path in (folder / "out").glob("*.parquet")}


def read_samples(files: dict[str, pl.DataFrame]) -> dict[str, list[tuple]]:
    """``(user, item, time, label, history, times of the history, group)`` of each split."""
    users, items = files["user_ids"]["user"], ["", *files["item_ids"]["item"]]
    histories = files["user_info"].rows(named=True)
    found: dict[str, list[tuple]] = {}
    for split in SPLITS:
        for row in files[split].iter_rows(named=True):
            shown, count = histories[row["user_index"]], row["seq_len"]
            read = [items[i] for i in shown["full_item_seq"][:count]]
            sample = (users[row["user_index"]], items[row["item_index"]], row["time"], row["label"])
            sample += (read, shown.get("full_time_seq", [])[:count], row["group_index"])
            found.setdefault(split, []).append(sample)
    return found


@pytest.mark.parametrize("flags", [{}, {"split": "user"}, {"negatives": 3}, {"history_time": None}])
def test_growing_lists_give_what_the_log_itself_gives(tmp_path: Path, flags: dict) -> None:
    """Lists of all earlier clicks say the same as the clicks."""
    table = random_log(0)
    plain = prepare(tmp_path, table, **{k: v for k, v in flags.items() if k != "history_time"})
    lists = prepare(tmp_path, table, history="seen", **{"history_time": "when"} | flags)
    expected, found = read_samples(plain), read_samples(lists)
    if "history_time" in flags:
        assert "full_time_seq" not in lists["user_info"]
        expected = {split: [(*s[:5], [], s[6]) for s in rows] for split, rows in expected.items()}
    assert found == expected
    assert len(lists["user_info"]) == len(plain["user_info"])
    assert lists["train"]["group_user"].equals(lists["train"]["user_index"].alias("group_user"))
    assert plain["item_info"].equals(lists["item_info"])


@pytest.mark.parametrize("split", ["time", "user"])
def test_windows_are_histories_of_their_own(tmp_path: Path, split: str) -> None:
    table = random_log(1, window=4)
    files = prepare(tmp_path, table, history="seen", history_time="when", split=split)
    plain = read_samples(prepare(tmp_path, table, split=split))
    found = read_samples(files)
    given = {tuple(row[:3]): row[4:] for row in table.iter_rows()}
    owners: dict[int, set[str]] = {}
    for name in SPLITS:
        assert [s[:4] for s in found[name]] == [s[:4] for s in plain[name]]
        for user, item, time, _, shown, times, _ in found[name]:
            assert (",".join(shown), ",".join(map(str, times))) == given[user, item, time]
        for sample, owner in zip(found[name], files[name]["group_user"], strict=True):
            owners.setdefault(owner, set()).add(sample[0])
    assert sorted(users.pop() for users in owners.values() if len(users) == 1) == sorted(
        table["user"].unique()
    )
    assert all(owner in files["user_ids"]["user_index"] for owner in owners)
    assert len(files["user_info"]) > 8


def test_newest_first_padding_and_actions_are_undone(tmp_path: Path) -> None:
    table = random_log(2)
    expected = prepare(tmp_path, table, history="seen", history_time="when")
    pairs = [
        [*zip(row["seen"].split(","), row["when"].split(","), strict=True)] if row["seen"] else []
        for row in table.iter_rows(named=True)
    ]
    padded = [[("0", "0"), *[x for p in row for x in (p, ("i3", "5"))][::-1]] for row in pairs]
    acts = [["x"] + ["view", "buy"] * (len(row) // 2) for row in padded]
    columns = {
        "seen": [[p[0] for p in row] for row in padded],
        "when": [[int(p[1]) for p in row] for row in padded],
        "act": acts,
    }
    table.with_columns(**{name: pl.Series(name, x) for name, x in columns.items()}).write_parquet(
        tmp_path / "log.parquet"
    )
    flags = {"history": "seen", "history_time": "when", "history_action": "act"}
    flags |= {"history_actions": "buy", "history_order": "newest", "history_padding": 0}
    columns = {name: name for name in ("user", "item", "time", "label")}
    mapping = read_mapping(None, {"input": str(tmp_path / "log.parquet")} | columns | flags)
    interactions.write(generic.load(mapping), tmp_path / "out")
    for name, file in expected.items():
        assert file.equals(pl.read_parquet(tmp_path / "out" / f"{name}.parquet")), name


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("seen", "i1,,i2", "column seen, line 9: .* name what fills empty places"),
        ("when", "1600000001,1600000000", "column when, line 9: .* --history-order newest"),
        (
            "when",
            "1600000000,1700000000",
            "column when, line 9: .* up to that of the row in column",
        ),
        ("when", "1600000000,then", "column when, line 9: .* a whole number in each place"),
        ("when", "1600000000", "column when, line 9: .* as many entries as seen has"),
    ],
)
def test_a_bad_list_is_named_with_its_line(
    tmp_path: Path, column: str, value: str, words: str
) -> None:
    changed = {"seen": "i1,i2", "when": "1600000000,1600000000"} | {column: value}
    changed |= {"when": changed["when"] + ",1600000000"} if column == "seen" else {}
    row = pl.int_range(pl.len()) == 7
    table = random_log(3).with_columns(
        pl.when(row).then(pl.lit(text)).otherwise(name).alias(name)
        for name, text in changed.items()
    )
    with pytest.raises(UserError, match=words):
        prepare(tmp_path, table, history="seen", history_time="when")


def test_times_of_another_unit_are_refused(tmp_path: Path) -> None:
    table = random_log(4).with_columns(pl.col("time") * 1000)
    with pytest.raises(
        UserError, match="column when are read as s, and those in column time as ms"
    ):
        prepare(tmp_path, table, history="seen", history_time="when")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"history_padding": 0}, "--history-padding needs --history; add it"),
        ({"history": "seen", "exposures": "log.csv"}, "exclude each other"),
        ({"history": "seen", "history_action": "a"}, "needs --history-actions"),
        ({"history": "seen", "history_time": "t", "time": None, "order": "o"}, "needs --time"),
    ],
)
def test_keys_that_need_or_exclude_each_other(flags: dict, words: str) -> None:
    given = {"input": "log.csv", "user": "u", "item": "i", "time": "t", "label": "y"} | flags
    with pytest.raises(UserError, match=words):
        read_mapping(None, given)


@pytest.mark.parametrize("padding", [None, "0"])
def test_what_looks_like_padding_or_other_ids_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], padding: str | None
) -> None:
    table = random_log(5).with_columns(pl.format("0,0,0,{}", "seen"))
    prepare(tmp_path, table, history="seen", history_padding=padding)
    warned = capsys.readouterr().err
    assert ("item '0' twice at an end" in warned) == (padding is None)
    assert "ids of one kind" not in warned
    prepare(tmp_path, table.with_columns(pl.col("seen").str.replace_all("i", "x")), history="seen")
    assert "ids of one kind" in capsys.readouterr().err


def test_files_do_not_depend_on_parts_or_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = random_log(6, window=4)
    flags = {"history": "seen", "negatives": 2, "targets": "all"}
    whole = prepare(tmp_path, table, **flags)
    monkeypatch.setattr(histories, "LEAST", 1_000)
    monkeypatch.setattr(numbering, "PROGRAM", 4 * 2**30)  # no memory is left
    monkeypatch.setattr(numbering, "BLOCK", 100)
    for name, file in prepare(tmp_path, table, **flags).items():
        assert file.equals(whole[name]), name


def test_the_memory_says_into_how_many_parts_lists_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In proportion to their size, also where those of the first rows are few."""
    monkeypatch.setattr(numbering, "PROGRAM", 0)
    monkeypatch.setattr(histories, "LEAST", 1)
    monkeypatch.setattr(histories, "SOME", 90)
    lists = [list(map(str, range(n // 10))) for n in range(1000)]
    events = pl.DataFrame({"user": "a", "row": range(1000), "history": lists}).lazy()
    size = events.collect().estimated_size()
    for parts in (1, 4, 40):
        memory = histories.COPIES * size / parts / 2**30
        assert histories._parts(events, memory) == pytest.approx(1 + parts, rel=0.5)


def test_labels_may_be_one_hot(tmp_path: Path) -> None:
    table = random_log(7)
    expected = prepare(tmp_path, table)
    hot = pl.concat_list(1 - pl.col("label"), "label")
    table.with_columns(label=hot.cast(pl.List(pl.Int8))).write_parquet(tmp_path / "log.parquet")
    flags = {name: name for name in ("user", "item", "time", "label")}
    mapping = read_mapping(None, {"input": str(tmp_path / "log.parquet")} | flags)
    interactions.write(generic.load(mapping), tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "train.parquet").equals(expected["train"])
    table.with_columns(label=[1, 1]).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(
        UserError, match=r"column label, row 0 .*: the value is \[1, 1\]; write \[1, 0"
    ):
        generic.load(mapping)


@pytest.mark.slow
def test_gauc_of_windows_goes_by_user(tmp_path: Path) -> None:
    """A user has as many ``user_index`` as windows, and one ``group_user``."""
    random_log(8, window=4).write_csv(tmp_path / "log.csv")
    flags = [
        "--user",
        "user",
        "--item",
        "item",
        "--time",
        "time",
        "--label",
        "label",
        "--history",
        "seen",
    ]
    trained = prepare_and_train(tmp_path, flags, "TWIN_MoS_out")
    assert "gAUC" in trained.stdout
    assert "group_id: group_user" in (tmp_path / "out/config/model_config.yaml").read_text()


@pytest.mark.parametrize("lenient", [False, True])
def test_a_row_without_its_first_candidates_keeps_its_list(tmp_path: Path, lenient: bool) -> None:
    """The first candidates of a row, and others in the middle, cannot be read."""
    rows = [["a-1", "b-0", "c-0"], ["?", "b-1", "c-0"], ["?", "?", "c-1", "?", "a-0"], ["?"]]
    rows = [row if lenient else [c for c in row if c != "?"] for row in rows[: 3 + lenient]]
    table = pl.DataFrame({"shown": [",".join(row) for row in rows] * 8, "user": "u"})
    table = table.with_columns(time=pl.int_range(pl.len()), seen=pl.lit("x,y"))
    table.write_csv(tmp_path / "log.csv")
    flags = {"input": str(tmp_path / "log.csv"), "user": "user", "candidates": "shown"}
    flags |= {"time": "time", "time_unit": "unknown", "history": "seen"}
    flags |= {"bad_rows": "leave_out"} if lenient else {}
    interactions.write(generic.load(read_mapping(None, flags)), tmp_path / "out")
    samples = pl.concat([pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in SPLITS])
    assert len(samples) == 8 * (3 + 2 + 2)
    assert (samples["seq_len"] == 2).all()
    assert len(pl.read_parquet(tmp_path / "out" / "user_info.parquet")) == 1
