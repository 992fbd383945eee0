"""Features of events in histories against a plain loop, in the same ids again, and in a training."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from engine.datasets.prepared.card import CARD, FILES, SPLITS
from engine.datasets.prepared.check import check
from engine.datasets.writing import numbering
from engine.datasets.writing.encoders import load
from engine.datasets.writing.features import Feature

from ....support.command_line import Outcome, prepare_and_train, snapshot

Command = Callable[..., Outcome]
KEYS = ("--user", "who", "--item", "what", "--time", "when")
EVENTS = ("--event-features", "action:categorical", "played.s:numeric")
RARE = 4  # as --min-count


def log(seed: int = 0, rows: int = 900) -> pl.DataFrame:
    """Doubled events, a rare action, and values that are missing or in one split alone."""
    rng = np.random.default_rng(seed)
    when = rng.integers(60, size=rows)
    played = [f"{x:.7g}" for x in rng.lognormal(size=rows) * 100]
    odd = {0: "0", 1: "0", 2: "0", 3: "0", 4: "0", 5: "?", 6: "", 7: "66.66666", 8: "66.67"}
    action = rng.choice(["view", "cart", "buy", ""], size=rows)
    return pl.DataFrame(
        {
            "who": [f"u{x}" for x in rng.integers(20, size=rows)],
            "what": [f"i{x}" for x in rng.integers(30, size=rows)],
            "when": when,
            "liked": rng.integers(2, size=rows),
            "action": ["late" if t > 55 else a for t, a in zip(when, action, strict=True)],
            "played.s": [odd.get(rng.integers(20), p) for p in played],
        }
    ).with_columns(
        action=pl.when(pl.int_range(pl.len()) % 300 == 7).then(pl.lit("rare")).otherwise("action")
    )


def prepare(command: Command, table: pl.DataFrame, *flags: str, output: str = "out") -> Path:
    table.write_csv("log.csv")
    made = command("generic", "--input", "log.csv", *flags, "--output", output)
    assert made.code == 0, made.stderr
    assert not check(Path(output)).errors
    return Path(output).resolve()


def events_of(table: pl.DataFrame) -> dict[str, list[tuple]]:
    """By user in time order ``(item, action, played)`` of the first positive row of each event."""
    found: dict[str, dict[tuple, tuple]] = {}
    rows = sorted(enumerate(table.iter_rows()), key=lambda r: (r[1][2], r[0]))
    for _, (who, what, when, liked, *features) in rows:
        events = found.setdefault(who, {})
        if liked and (when, what) not in events:
            events[when, what] = (what, *features)
    return {who: list(events.values()) for who, events in found.items()}


def short(value: str) -> float | None:
    """A number with four digits."""
    return float(f"{float(value):.3e}") if value not in ("", "?") else None


@pytest.mark.parametrize("split", ["time", "user"])
@pytest.mark.parametrize("negatives", ["0", "2"])
def test_against_a_plain_loop(split: str, negatives: str, command: Command) -> None:
    table = log()
    flags = ("--label", "liked", "--min-count", str(RARE), "--split", split)
    out = prepare(command, table, *KEYS, *flags, "--negatives", negatives, *EVENTS)
    events = events_of(table)
    users = pl.read_parquet(out / "user_ids.parquet")["user"].to_list()
    train = pl.read_parquet(out / "train.parquet").group_by("user_index").agg(pl.max("seq_len"))
    shown = [e for user, n in train.iter_rows() for e in events[users[user]][:n]]
    count = Counter(action for _, action, _ in shown)
    own = sorted(action for action, times in count.items() if action and times >= RARE)
    assert {"rare", "late"} & set(own) != {"rare", "late"} and len(own) >= 3
    numbers = sorted(x for *_, value in shown if (x := short(value)) is not None)
    part: dict[float, int] = {}  # of each value the sixteenth that its first place lies in
    for place, x in enumerate(numbers):
        part.setdefault(x, 16 * place // len(numbers))
    edges = [
        x for x, before in zip(list(part)[1:], part.values(), strict=False) if part[x] != before
    ]
    assert 8 <= len(edges) < 16
    histories = pl.read_parquet(out / "user_info.parquet")
    items = pl.read_parquet(out / "item_ids.parquet")["item"].to_list()
    for index, item_seq, action, played in histories.drop("full_time_seq").iter_rows():
        expected = events[users[index]]
        # Rows of one moment stand in the order of the log.
        assert [items[i - 1] for i in item_seq] == [what for what, _, _ in expected]
        assert action == [2 + own.index(a) if a in own else 1 for _, a, _ in expected]
        numbers = [short(p) for *_, p in expected]
        assert played == [1 if x is None else 2 + bisect_right(edges, x) for x in numbers]
    columns = [{"name": "action", "vocab_size": 2 + len(own)}]
    columns.append({"name": "played_s", "vocab_size": 3 + len(edges)})
    assert json.loads((out / CARD).read_text())["event_cols"] == columns
    entry = yaml.safe_load((out / "config" / "dataset_config.yaml").read_text())["out"]
    assert entry["event_cols"] == columns


def test_bytes_do_not_depend_on_the_blocks(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*KEYS, "--label", "liked", *EVENTS)
    whole = prepare(command, log(), *flags)
    monkeypatch.setattr(numbering, "BLOCK", 100)
    parts = prepare(command, log(), *flags, output="again/out")
    names = (*FILES, "encoders/encoders.json", CARD)
    assert all((whole / name).read_bytes() == (parts / name).read_bytes() for name in names)


def test_features_of_events_change_nothing_else(command: Command) -> None:
    flags = (*KEYS, "--label", "liked", "--negatives", "2")
    plain, out = (
        prepare(command, log(), *flags, *more, output=name)
        for name, more in (("a", ()), ("b", EVENTS))
    )
    for name in (*SPLITS, "item_info"):
        assert (plain / f"{name}.parquet").read_bytes() == (out / f"{name}.parquet").read_bytes()
    histories = pl.read_parquet(out / "user_info.parquet")
    assert histories.drop("event_action", "event_played_s").equals(
        pl.read_parquet(plain / "user_info.parquet")
    )
    assert "event_cols" not in json.loads((plain / CARD).read_text())


def test_another_log_in_the_same_ids(command: Command) -> None:
    old = prepare(command, log(), *KEYS, "--label", "liked", *EVENTS, output="old/mine")
    again = prepare(command, log(), "--like", "old/mine", output="again/mine")
    assert snapshot(old / "encoders") == snapshot(again / "encoders")
    for name in FILES:
        assert (old / name).read_bytes() == (again / name).read_bytes(), name
    table = log(1).with_columns(pl.col("action").replace("cart", "wish"))
    new = prepare(command, table, "--like", "old/mine", output="new")
    grown = prepare(command, table, "--like", "old/mine", "--grow", output="grown")
    action, played = load(old).by_source["event"]
    events = events_of(table)
    for folder, more in ((new, 0), (grown, 1)):
        users = pl.read_parquet(folder / "user_ids.parquet")["user"].to_list()
        said = {
            c["name"]: c["vocab_size"]
            for c in json.loads((folder / CARD).read_text())["event_cols"]
        }
        assert said == {
            "action": action.spec()["vocab_size"] + more,
            "played_s": played.spec()["vocab_size"],
        }
        wish = action.spec()["vocab_size"] if more else 1
        histories = pl.read_parquet(folder / "user_info.parquet")
        for index, actions, numbers in histories.select("user_index", "^event_.*$").iter_rows():
            mine = events[users[index]]
            raw = pl.Series([a or None for _, a, _ in mine], dtype=pl.String)
            ids = action.encode(raw).to_list()
            assert actions == [wish if a == "wish" else i for a, i in zip(raw, ids, strict=True)]
            raw = pl.Series([short(p) for *_, p in mine], dtype=pl.Float64)
            assert numbers == played.encode(raw).to_list()
    refused = command(
        "generic", "--like", "old/mine", "--input", "log.csv", *EVENTS[:2], "--output", "x"
    )
    assert refused.code == 2 and "feature event_played_s is missing here" in refused.stderr


def test_events_in_a_row_and_exposures(command: Command) -> None:
    """A list beside the items is taken apart; and of exposures, the clicks have the features."""
    rows = [
        (
            f"u{u}",
            [1 + (5 * u + t) % 40 for t in range(9)],
            ["a" if t < u else "b" for t in range(9)],
        )
        for u in range(9)
    ]
    table = pl.DataFrame(rows, schema=["who", "what", "action"], orient="row")
    table.write_parquet("rows.parquet")
    flags = ("--user", "who", "--item", "what", "--events-in-row", "--negatives", "2")
    made = command("generic", "--input", "rows.parquet", *flags, *EVENTS[:2], "--output", "rows")
    assert made.code == 0, made.stderr
    found = pl.read_parquet("rows/user_info.parquet")["event_action"].to_list()
    assert found == [[2 if a == "a" else 3 for a in actions] for _, _, actions in rows]

    shown = log().drop("action", "played.s", "liked")
    shown.write_csv("shown.csv")
    clicks = shown.gather_every(3).with_columns(
        pl.col("when") + 1, action=pl.col("what").str.tail(1)
    )
    out = prepare(command, clicks, *KEYS, "--exposures", "shown.csv", *EVENTS[:2], output="shown")
    ids = pl.read_parquet(out / "item_ids.parquet")["item"]
    histories = pl.read_parquet(out / "user_info.parquet").explode("full_item_seq", "event_action")
    pairs = histories.drop_nulls().select("full_item_seq", "event_action").unique()
    digits = {id: ids[item - 1][-1] for item, id in pairs.iter_rows()}
    assert len(set(digits.values())) == len(digits) == 10


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("actio:numeric", "column 'actio' is missing"),
        ("action:sequence", "action is 'sequence'; write action:categorical or action:numeric"),
        ("action", "action has no kind; write action:categorical or action:numeric"),
        ("action:numeric", "column action, line 2: the value is 'buy'; write a number"),
        ("time_gap:numeric", "event_time_gap has a name that is taken"),
    ],
)
def test_what_is_refused(entry: str, says: str, command: Command, tmp_path: Path) -> None:
    log().write_csv("log.csv")
    flags = (*KEYS, "--label", "liked", "--event-features", entry, "--output", "out")
    refused = command("generic", "--input", "log.csv", *flags)
    assert refused.code == 2 and says in refused.stderr, refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_check_names_an_id_beyond_the_vocabulary(command: Command) -> None:
    out = prepare(command, log(), *KEYS, "--label", "liked", *EVENTS)
    histories = pl.read_parquet(out / "user_info.parquet")
    wrong = pl.col("event_action").list.eval(pl.element() + 1)
    histories.with_columns(wrong).write_parquet(out / "user_info.parquet")
    (error,) = check(out).errors
    assert "column event_action, row 0: a value is outside 0 to" in error


def test_a_number_that_is_never_there_has_no_edges() -> None:
    encoder = Feature("x", "numeric").encoder("event")
    encoder.observe(
        pl.Series([None, float("inf"), float("nan")], dtype=pl.Float64), np.ones(3, int)
    )
    assert encoder.encode(pl.Series([None, 3.0, float("-inf")])).to_list() == [1, 2, 1]
    assert encoder.spec()["vocab_size"] == 3


def test_the_written_configuration_trains(tmp_path: Path) -> None:
    log().write_csv(tmp_path / "log.csv")
    prepare_and_train(tmp_path, [*KEYS, "--label", "liked", *EVENTS], "TWIN_out")
    (saved,) = (tmp_path / "results" / "out").glob("TWIN_out*.json")
    result: dict[str, Any] = json.loads(saved.read_text())
    assert [c["name"] for c in result["params"]["event_cols"]] == ["action", "played_s"]
