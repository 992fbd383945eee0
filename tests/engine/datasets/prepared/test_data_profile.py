"""The profile of a data set: kappa against plain loops and against shuffled histories."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from engine.datasets.prepared import data_profile
from engine.datasets.prepared.data_profile import advice, describe, hops, measure, rates

from ....support.command_line import Outcome
from .test_facts import folder_of, tables

Histories = list[list[str | None]]
HISTORIES: Histories = [
    list("aabbbaacca"),
    ["a", None, "a", "b", None, None, "b", "a"],
    list("cccc"),  # of one value
    list("abcdeab"),
    ["b"],
    [],
    [None, None],
]


def sums(histories: Histories) -> NDArray:
    rows = [(user, value) for user, values in enumerate(histories) for value in values]
    schema = {"user_index": pl.Int64, "value": pl.String}
    return hops(pl.DataFrame(rows, schema, orient="row"))


def kappa(histories: Histories) -> dict[str, float]:
    return rates(*sums(histories))


def hopping(values: list[str]) -> int:
    return sum(a == b for a, b in zip(values[1:], values, strict=False))


def test_kappa_is_that_of_plain_loops() -> None:
    pairs = same = changes = returns = 0
    expected = 0.0
    for history in HISTORIES:
        values = [value for value in history if value is not None]
        if len(set(values)) < 2:
            continue
        n = len(values)
        share = sum(values.count(v) * (values.count(v) - 1) for v in set(values)) / (n * (n - 1))
        pairs, same, expected = pairs + n - 1, same + hopping(values), expected + (n - 1) * share
        for place in range(1, n):
            if values[place] != values[place - 1]:
                changes += 1
                returns += values[place] in values[:place]
    observed, chance = same / pairs, expected / pairs
    found = kappa(HISTORIES)
    assert found["kappa"] == pytest.approx((observed - chance) / (1 - chance))
    assert found["returns"] == pytest.approx(returns / changes)


def test_kappa_of_shuffled_histories_is_zero() -> None:
    """The expected share is the mean over shuffles."""
    rng = np.random.default_rng(0)
    real = [[value for value in history if value is not None] for history in HISTORIES]
    shuffled = [[str(v) for v in rng.permutation(h)] for h in real for _ in range(3000)]
    assert kappa(shuffled)["kappa"] == pytest.approx(0, abs=0.01)
    assert kappa([["a", "b"] * 20])["kappa"] < 0 < kappa([["a"] * 20 + ["b"] * 20])["kappa"]


@pytest.mark.parametrize("histories", [[], [[]], [["a"]], [["a", "a"], ["b"]], [[None, "a"]]])
def test_there_is_no_kappa_without_two_values(histories: Histories) -> None:
    assert sums(histories)[0] == 0


def prepared(path: Path, **about: Any) -> Path:
    """A folder whose items have a theme, which one of them lacks."""
    found = tables()
    folder = folder_of(found, path, **about)
    index = found["item_info"]["item_index"][1:]
    ids = pl.DataFrame({"item_index": index, "item": index, "name": index})
    theme = pl.when(pl.col("item") > 1).then(pl.col("item") % 4).cast(pl.String)
    ids.with_columns(theme=theme).write_parquet(folder / "item_ids.parquet")
    return folder


def test_the_numbers_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_profile, "PIECE", 50)
    folder = prepared(tmp_path / "data")
    found = measure(folder)
    histories = pl.read_parquet(folder / "user_info.parquet")
    lists = histories["full_item_seq"].to_list()
    distinct = sum(len(set(items)) for items in lists)
    assert found["repeats"] == pytest.approx(1 - distinct / sum(map(len, lists)))
    themes = [[None if item == 1 else str(item % 4) for item in items] for items in lists]
    assert found["hopping"] == {"theme": pytest.approx(kappa(themes))}
    every = pl.concat(tables()[name] for name in ("train", "valid", "test"))
    lengths = np.sort(every["seq_len"].to_numpy())
    for quantile, length in found["lengths"].items():
        assert np.mean(lengths < length) < quantile <= np.mean(lengths <= length)
    assert found["times"] == (every["time"].min(), every["time"].max())


def test_many_events_are_measured_on_some_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(tmp_path / "data")
    monkeypatch.setattr(data_profile, "PIECE", 100)
    every = pl.concat(data_profile.events_of(folder))
    some = pl.concat(data_profile.events_of(folder, len(every) // 3))
    kept = every.join(some.select("user_index").unique(), on="user_index", how="semi")
    assert kept.equals(some) and 0.2 < len(some) / len(every) < 0.5


def test_a_theme_of_one_value_has_no_kappa(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "data")
    ids = pl.read_parquet(folder / "item_ids.parquet")
    ids.with_columns(theme=pl.lit("a")).write_parquet(folder / "item_ids.parquet")
    assert measure(folder)["hopping"] == {} and "kappa" not in describe(folder)


def test_a_folder_in_words(tmp_path: Path) -> None:
    text = describe(prepared(tmp_path / "seconds", time_unit="ns"))
    assert "times 1970-01-01 00:00 to 1970-01-01 00:00" in text
    assert "session hopping of theme: kappa" in text and "session hopping of name" not in text
    assert text.count("\n") == 4
    text = describe(prepared(tmp_path / "order", time_unit="order"))
    assert text.startswith("  no times, only the order")
    no_times = tables()
    for name in ("train", "valid", "test"):
        no_times[name] = no_times[name].drop("time", "group_index")
    assert describe(folder_of(no_times, tmp_path / "none")).startswith("  lengths of histories: ")


@pytest.mark.parametrize(
    ("length", "kappas", "says"),
    [
        (20, [0.9], "at most 20 items"),
        (500, [], "open"),
        (500, [0.2, 0.1], "hop little"),
        (500, [0.2, 0.34], "a mixture gained at most 0.5 AUC points"),
    ],
)
def test_advice(length: int, kappas: list[float], says: str) -> None:
    hopping = {str(i): {"kappa": kappa, "returns": kappa} for i, kappa in enumerate(kappas)}
    sentence = advice({"lengths": {0.9: length}, "hopping": hopping})
    assert says in sentence and len(sentence.split()) <= 25


def test_rare_values_are_values_too(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    """``--min-count`` merges them for models, and not for kappa, which the command prints."""
    rng = np.random.default_rng(3)
    users, items = np.sort(rng.integers(8, size=400)), (60 * rng.random(400) ** 3).astype(int)
    tags = [f"t{item % 31}|x" if item % 9 else None for item in items]
    log = {"u": users, "i": items, "t": np.arange(400), "tags": tags}
    pl.DataFrame(log).write_csv("log.csv")
    flags = "--user u --item i --time t --negatives 1 --item-features tags:sequence"
    done = command(
        "generic", "--input", "log.csv", *flags.split(), "--min-count", "12", "--output", "out"
    )
    assert done.code == 0, done.stderr
    rare = pl.read_parquet(tmp_path / "out" / "item_info.parquet")["tags"].list.first() == 1
    assert 5 < rare.sum() < 55
    first = [tag and tag.split("|")[0] for tag in tags]
    themes = [[t for t, who in zip(first, users, strict=True) if who == u] for u in range(8)]
    found = measure(tmp_path / "out")["hopping"]
    assert found == {"tags": pytest.approx(kappa(themes))}
    assert f"session hopping of tags: kappa {found['tags']['kappa']:.2f}" in done.stdout
    *_, leaks, worth, train = done.stdout.splitlines()
    assert leaks == "look for leaks: python data/prepare.py check out"
    assert worth.endswith(": python -m engine.baseline --data out")
    assert train.startswith("train on it: python run_expid.py ")


@pytest.mark.skipif(
    "REAL_DATA_DIR" not in os.environ, reason="set REAL_DATA_DIR to a folder with taobao and lfm"
)
@pytest.mark.parametrize(("name", "theme"), [("taobao", "category"), ("lfm", "artist")])
def test_kappa_of_real_logs(name: str, theme: str) -> None:
    folder = Path(os.environ["REAL_DATA_DIR"]) / name
    log = pl.read_parquet(folder / "events.parquet").sort("time", maintain_order=True)
    log = log.join(pl.read_parquet(folder / "items.parquet"), on="item", maintain_order="left")
    found = rates(*hops(log.select(user_index="user", value=theme)))
    assert found["kappa"] == pytest.approx(0.34, abs=0.005)
