"""What single facts tell: against plain loops, and in data whose samples were made wrongly."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from engine.datasets.prepared import data_profile, facts
from engine.datasets.prepared.card import CARD, SPLITS
from engine.datasets.prepared.check import check
from engine.datasets.prepared.layout import Dataset, write

from ....support.command_line import Outcome

Edit = Callable[[pl.DataFrame], pl.DataFrame]
USERS, ITEMS = 40, 30
FEATURES: dict[str, dict[str, Any]] = {
    "item_id": {"type": "categorical", "source": "item", "vocab_size": ITEMS + 1},
    "tags": {"type": "sequence", "source": "item", "vocab_size": 6, "max_len": 2},
    "image": {"type": "embedding", "source": "item", "pretrain_dim": 3, "embedding_dim": 3},
    "place": {"type": "categorical", "vocab_size": 5},
    "price": {"type": "numeric"},
}
NEGATIVES = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.1}


def tables(seed: int = 0) -> dict[str, pl.DataFrame]:
    """Users with times, and some samples of each of their moments, of which one is clicked."""
    rng = np.random.default_rng(seed)
    histories, rows, group = [], [], 0
    for user in range(USERS):
        times = np.sort(rng.integers(0, 300, rng.integers(2, 20)))
        items = rng.integers(1, ITEMS + 1, len(times))
        histories.append((user, items.tolist(), times.tolist()))
        for time in np.unique(times):
            for label in rng.permutation([1, *[0] * rng.integers(1, 6)]):
                row = (user, int(rng.integers(1, ITEMS + 1)), int((times < time).sum()), int(time))
                about = (int(rng.integers(0, 5)), float(rng.normal()))
                rows.append((*row, group, int(label), *about))
            group += 1
    names = ["user_index", "item_index", "seq_len", "time", "group_index", "label"]
    samples = pl.DataFrame(rows, [*names, "place", "price"], orient="row")
    share = pl.col("time") / 300
    tags = [[0, 0], *rng.integers(1, 6, (ITEMS, 2)).tolist()]
    image = [[0.0] * 3, *rng.normal(size=(ITEMS, 3)).tolist()]
    index = list(range(ITEMS + 1))
    return {
        "train": samples.filter(share < 0.6),
        "valid": samples.filter((share >= 0.6) & (share < 0.8)),
        "test": samples.filter(share >= 0.8),
        "user_info": pl.DataFrame(
            histories, ["user_index", "full_item_seq", "full_time_seq"], orient="row"
        ),
        "item_info": pl.DataFrame(
            {"item_index": index, "item_id": index, "tags": tags, "image": image}
        ),
    }


def folder_of(found: dict[str, pl.DataFrame], path: Path, **about: Any) -> Path:
    """The tables as a prepared folder; ``about`` is for the card."""
    splits = {name: found[name] for name in SPLITS}
    meta = {name: {"type": "meta"} for name in ("time", "group_index")}
    features = meta | FEATURES
    write(Dataset(splits, found["user_info"], found["item_info"], features, "label", about), path)
    return path


def plain(found: dict[str, pl.DataFrame]) -> dict[str, float]:
    """The AUC of each fact, from loops over the samples."""
    histories = found["user_info"].rows(named=True)
    items = found["item_info"].rows(named=True)
    samples = [row | {"split": s} for s in SPLITS for row in found[s].rows(named=True)]
    train = [row for row in samples if row["split"] == "train"]
    events = [
        e for h in histories for e in zip(h["full_item_seq"], h["full_time_seq"], strict=True)
    ]

    @cache
    def rate(name: str, value: Any) -> float:
        rows = [row for row in train for v in values(name, row) if v == value]
        overall = np.mean([row["label"] for row in train])
        return (sum(row["label"] for row in rows) + overall) / (len(rows) + 1)

    def values(name: str, row: dict[str, Any]) -> list[Any]:
        value = row[name] if name in row else items[row["item_index"]][name]
        return value if isinstance(value, list) else [value]

    image = {
        label: np.mean(
            [items[r["item_index"]]["image"] for r in train if r["label"] == label], axis=0
        )
        for label in (0, 1)
    }

    def place(row: dict[str, Any]) -> float:
        group = [
            r
            for r in samples
            if (r["split"], r["group_index"]) == (row["split"], row["group_index"])
        ]
        return next(i for i, r in enumerate(group) if r is row) / len(group) + 0.5 / len(group)

    scores: dict[str, Callable[[dict[str, Any]], float]] = {
        facts.HISTORY: lambda r: (
            r["item_index"] in histories[r["user_index"]]["full_item_seq"][: r["seq_len"]]
        ),
        facts.NEWEST: lambda r: (
            [r["item_index"]] == histories[r["user_index"]]["full_item_seq"][: r["seq_len"]][-1:]
        ),
        facts.POPULARITY: lambda r: sum(
            item == r["item_index"] and time < r["time"] for item, time in events
        ),
        facts.LENGTH: lambda r: r["seq_len"],
        facts.PLACE: place,
        facts.TIME: lambda r: r["time"],
        "feature price": lambda r: r["price"],
    }
    learned: dict[str, Callable[[dict[str, Any]], float]] = {
        f"feature {name}": lambda r, n=name: np.mean([rate(n, v) for v in values(n, r)])
        for name in ("item_id", "tags", "place")
    }
    learned["feature image"] = lambda r: float(
        np.dot(items[r["item_index"]]["image"], image[1] - image[0])
    )
    later = [row for row in samples if row["split"] != "train"]

    def auc(score: Callable[[dict[str, Any]], float], rows: list[dict[str, Any]]) -> float:
        return roc_auc_score([row["label"] for row in rows], [score(row) for row in rows])

    found_scores = {name: auc(score, samples) for name, score in scores.items()}
    return found_scores | {name: auc(score, later) for name, score in learned.items()}


def measured(path: Path, **options: Any) -> dict[str, facts.Fact]:
    return facts.measure(path, FEATURES, "label", **{"timed": True} | options)


def test_facts_are_those_of_plain_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_profile, "PIECE", 50)  # of several pieces
    found = tables()
    auc = {name: fact.auc for name, fact in measured(folder_of(found, tmp_path / "data")).items()}
    assert auc == pytest.approx(plain(found))


def test_popularity_without_moments_counts_clicks_of_the_training_data(tmp_path: Path) -> None:
    found = tables()
    times = measured(folder_of(found, tmp_path / "data"), timed=False)
    clicked = found["train"].filter(pl.col("label") == 1)["item_index"].to_list()
    rows = pl.concat(found[name] for name in ("valid", "test"))
    score = [clicked.count(item) for item in rows["item_index"]]
    assert times[facts.POPULARITY].auc == pytest.approx(roc_auc_score(rows["label"], score))
    assert facts.TIME not in times


def test_the_shares_of_samples_that_show_an_item_of_the_history(tmp_path: Path) -> None:
    found = tables()
    shares = facts.shares_in_history(folder_of(found, tmp_path / "data"), "label")
    histories = dict(found["user_info"].select("user_index", "full_item_seq").rows())
    rows = pl.concat(found[name] for name in SPLITS).rows(named=True)
    shown = [
        (r["label"], r["item_index"] in histories[r["user_index"]][: r["seq_len"]]) for r in rows
    ]
    plain = [np.mean([seen for label, seen in shown if label == y]) for y in (1, 0)]
    assert shares == pytest.approx(plain) and min(shares) > 0


def test_a_part_of_the_samples_is_chosen_by_a_seed(tmp_path: Path) -> None:
    path = folder_of(tables(), tmp_path / "data")
    some, again, all_ = (measured(path, rows=rows) for rows in (500, 500, 10**6))
    assert some == again
    assert some[facts.PLACE].noise > all_[facts.PLACE].noise
    for name, fact in some.items():  # groups are whole, and label rates are those of all
        assert abs(fact.auc - all_[name].auc) < fact.noise


def warned(found: dict[str, pl.DataFrame], path: Path, **about: Any) -> list[str]:
    report = check(folder_of(found, path, **about))
    assert not report.errors
    return [warning for warning in report.warnings if " alone has an AUC of " in warning]


def edited(edit: Edit) -> dict[str, pl.DataFrame]:
    found = tables()
    return found | {name: edit(found[name]) for name in SPLITS}


LABEL = pl.col("label")
MISSING = pl.int_range(pl.len()) % 3 == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", LABEL.cast(pl.Float64)),
        ("price", pl.when(MISSING).then(0.0).otherwise(0.7 - 2 * LABEL)),
        ("place", 2 - LABEL),
        ("place", pl.when(MISSING).then(1).otherwise(2 + LABEL)),
    ],
    ids=["number", "scaled number with missing ones", "category", "category with missing ones"],
)
def test_a_feature_that_is_the_label_is_an_error(name: str, value: pl.Expr, tmp_path: Path) -> None:
    report = check(folder_of(edited(lambda t: t.with_columns(value.alias(name))), tmp_path / "d"))
    (error,) = (line for line in str(report).splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: feature {name} equals the label")


def test_honest_samples_give_no_warning(tmp_path: Path) -> None:
    assert warned(tables(), tmp_path / "data") == []
    drawn = warned(tables(), tmp_path / "drawn", negatives=NEGATIVES)
    assert drawn == []


LEAKS: dict[str, Edit] = {
    "place in the group": lambda t: t.sort("group_index", "label", descending=[False, True]),
    "feature price": lambda t: t.with_columns(price=pl.col("price") / 99 - pl.col("label")),
    "feature place": lambda t: t.with_columns(
        place=1 + pl.col("label") * (pl.col("time") % 40 > 0)
    ),
    "time": lambda t: t.with_columns(time=pl.col("time") + 1000 * pl.col("label")),
}


@pytest.mark.parametrize("fact", LEAKS)
def test_a_fact_that_is_the_label_is_named(fact: str, tmp_path: Path) -> None:
    (warning,) = warned(edited(LEAKS[fact]), tmp_path / "data")
    assert warning.startswith(f"{fact} alone") and "tells the label" in warning


def unseen(found: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Clicked samples show an event of the history, all others an item that the user never had."""
    histories = dict(found["user_info"].select("user_index", "full_item_seq").rows())
    rng = np.random.default_rng(1)

    def item(row: dict[str, Any]) -> int:
        had = histories[row["user_index"]]
        if row["label"] and row["seq_len"] and rng.random() < 0.5:
            return int(rng.choice(had[: row["seq_len"]]))
        return int(rng.choice(sorted(set(range(1, ITEMS + 1)) - set(had))))

    return found | {
        name: found[name].with_columns(
            item_index=pl.Series([item(row) for row in found[name].rows(named=True)])
        )
        for name in SPLITS
    }


def test_negatives_among_unseen_items_are_noticed(tmp_path: Path) -> None:
    """With sampled negatives, and without a word about them in the card."""
    for name, negatives in (("ours", NEGATIVES), ("others", None)):
        about = {"negatives": negatives} if negatives else {}
        warnings = warned(unseen(tables()), tmp_path / name, **about)
        assert [w for w in warnings if w.startswith("in the history alone")]


def test_uniform_negatives_are_less_popular(tmp_path: Path) -> None:
    """All events of histories have five items, and so have the clicked samples."""
    found = edited(
        lambda t: t.with_columns(
            item_index=pl.when(pl.col("label") == 1)
            .then(1 + pl.col("item_index") % 5)
            .otherwise("item_index")
        )
    )
    few = pl.col("full_item_seq").list.eval(1 + pl.element() % 5)
    found["user_info"] = found["user_info"].with_columns(few)
    uniform = NEGATIVES | {"from": "uniform", "targets": "all"}
    warnings = warned(found, tmp_path / "data", negatives=uniform)
    facts = [warning.partition(" alone")[0] for warning in warnings]
    assert facts[0] == "popularity" and all(fact.startswith("feature") for fact in facts[1:])
    assert all("how negatives were drawn" in warning for warning in warnings)
    assert all(warning.endswith("--negatives-from time is fairer") for warning in warnings)


def test_the_report_shows_every_fact(tmp_path: Path) -> None:
    path = folder_of(tables(), tmp_path / "data", negatives=NEGATIVES, time_unit="order")
    text = str(check(path))
    assert (
        "AUC of single facts (0.5 tells nothing): in the history 0." in text
        and "feature price 0." in text
    )
    assert "sampled negatives (4, time)" in text
    assert "time 0." not in text and json.loads((path / CARD).read_text())["time_unit"] == "order"


@pytest.mark.skipif(
    "REAL_DATA_DIR" not in os.environ, reason="set REAL_DATA_DIR to a folder with taobao"
)
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), {}),
        (("--split", "user"), {}),
        (("--targets", "all"), {facts.HISTORY: 0.62, facts.POPULARITY: 0.54}),
        (("--negatives-from", "uniform"), {facts.POPULARITY: 0.085}),
    ],
)
def test_what_sampling_makes_of_a_real_log(
    flags: tuple[str, ...], told: dict[str, float], tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    """Only repeats and negatives drawn from the past tell anything, and the latter is warned of."""
    log = Path(os.environ["REAL_DATA_DIR"]) / "taobao" / "events.parquet"
    given = f"--input {log} --user user --item item --time time --negatives 4 --min-count 5 --output out"
    assert command("generic", *given.split(), *flags).code == 0
    done = command("check", "out")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("AUC of single")]
    for fact in line.partition(": ")[2].split(", "):
        name, _, auc = fact.rpartition(" ")
        assert float(auc) == pytest.approx(told.get(name, 0.5), abs=0.02), fact
    warned = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert len(warned) == ("uniform" in flags)
