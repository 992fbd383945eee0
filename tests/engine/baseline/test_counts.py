"""The counts against plain loops, and that no sample counts what it must not know."""

import numpy as np
import polars as pl
import pytest

from engine.baseline.among_others import FOLDS, fold_of
from engine.baseline.counts import NEVER, Counter
from model_zoo.training.metrics import auc

from .conftest import MakeData


def theme_of(item: int) -> int:
    """The planted theme of an item: -1 (none) of every fourth item, and of padding."""
    return item % 4 - 1


def cosine(a: list[float], b: list[float]) -> float:
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b) or 1)


def looped(params, max_len: int, split: str, unit: int):
    """``all``, ``newest``, ``theme`` and ``times`` of a split, one sample after the other."""
    read = {s: pl.read_parquet(params[f"{s}_data"]).to_dicts() for s in ("train", split)}
    users = pl.read_parquet(params["user_info"]).to_dicts()
    table = pl.read_parquet(params["item_info"]).to_dicts()
    features = {
        "item": [row["item_index"] for row in table],
        "kind": [row["kind"] for row in table],
        "tags": [row["tags"][0] for row in table],
    }
    shown, fold = {}, {}
    for row in read["train"]:
        fold[row["user_index"]] = fold_of(row.get("group_user", row["user_index"]))
        shown[row["user_index"]] = max(shown.get(row["user_index"], 0), row["seq_len"])
    found = {"all": [], "newest": [], "theme": [], "times": []}
    for row in read[split]:
        user = users[row["user_index"]]
        items = user["full_item_seq"][: row["seq_len"]][-max_len:]
        moments = user.get("full_time_seq", [])[: row["seq_len"]][-max_len:]
        running = theme_of(items[-1]) if items else -1
        themed = [theme_of(item) == running >= 0 for item in items]
        sample = {"all": [len(items)], "newest": [min(20, len(items))], "theme": [sum(themed)]}
        sample["times"] = []
        if unit:
            sample["times"].append(row["time"] - moments[-1] if moments else NEVER)
        for values in features.values():
            wanted = values[row["item_index"]]
            if unit:
                known = [
                    values[item]
                    for other in users
                    for item, t in zip(other["full_item_seq"], other["full_time_seq"], strict=True)
                    if t < row["time"]
                ]
            else:
                own = fold[row["user_index"]] if split == "train" else 0
                known = [
                    values[item]
                    for index, length in shown.items()
                    for item in users[index]["full_item_seq"][:length]
                    if fold[index] != own
                ]
            popular = known.count(wanted) / max(1, len(known))
            ages = [
                len(items) - place
                for place, item in enumerate(items)
                if values[item] == wanted and wanted != 0
            ]
            nearby = {"all": ages, "newest": [age for age in ages if age <= 20]}
            nearby["theme"] = [age for age in ages if themed[-age]]
            for name, near in nearby.items():
                sample[name] += [popular] if name != "theme" else []
                sample[name] += [
                    len(near),
                    len(near) / max(1, sample[name][0]),
                    min(near, default=NEVER),
                    sum(age <= 5 for age in near),
                    sum(age <= 20 for age in near),
                ]
            if unit:
                gaps = [row["time"] - moments[-age] for age in ages]
                sample["times"] += [min(gaps, default=NEVER)]
                sample["times"] += [sum(g <= s * unit for g in gaps) for s in (1800, 86_400)]
        image = [table[item]["image"] for item in items]
        similar = [cosine(vector, table[row["item_index"]]["image"]) for vector in image]
        for name, read in (("all", [True] * len(items)), ("newest", []), ("theme", themed)):
            for most in (20,) if name == "newest" else (max_len, 20):
                ages = [age for age in range(1, len(items) + 1) if age <= most]
                own = [similar[-a] for a in ages if (a <= 20 if name == "newest" else read[-a])]
                sample[name] += [np.mean(own) if own else 0, max(own, default=-1)]
        for name in found:
            found[name].append(sample[name])
    return {name: np.array(values) for name, values in found.items() if unit or name != "times"}


def counted(params, max_len: int, split: str):
    theme_N = np.array([theme_of(item) for item in range(1001)])
    counter = Counter(params, max_len)
    counter.theme_N = theme_N
    blocks = [counts for counts, _ in counter.blocks(split)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("unit", "second"), [("ms", 1000), ("s", 1), ("", 0)])
@pytest.mark.parametrize("max_len", [3, 200])
def test_counts_are_those_of_plain_loops(
    make_data: MakeData, unit: str, second: int, max_len: int, split: str
) -> None:
    params = make_data(shown=90, unit=unit)
    found, wanted = counted(params, max_len, split), looped(params, max_len, split, second)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_order_is_no_time(make_data: MakeData) -> None:
    assert "times" not in counted(make_data(unit="order"), 50, "test")


def test_without_a_unit_there_are_gaps_but_no_spans(make_data: MakeData) -> None:
    params = make_data(unit="unknown")
    assert counted(params, 50, "test")["times"].shape[1] == 1 + 3  # item, kind and tags


@pytest.mark.parametrize(("unit", "step"), [("ms", 1000), ("us", 10**9), ("", 1)])
def test_popularity_does_not_tell_a_random_label(make_data: MakeData, unit: str, step: int) -> None:
    params = make_data(users=200, shown=50, items=1000, unit=unit, step=step)
    for split in ("train", "test"):
        popular = counted(params, 50, split)["all"][:, 1]
        label = pl.read_parquet(params[f"{split}_data"])["label"].to_numpy()
        assert auc(label, popular) == pytest.approx(0.5, abs=0.03)


def test_samples_are_drawn_by_the_seed(make_data: MakeData) -> None:
    counter = Counter(make_data(users=100, shown=60), 50)

    def drawn(seed: int) -> list[int]:
        return [i for _, rows in counter.blocks("train", 0.25, seed) for i in rows["item_index"]]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 0.2 < len(drawn(1)) / len(counter.splits["train"]) < 0.3


def test_folds_are_even_whatever_numbers_users_have() -> None:
    for step in (1, 40, 1024):
        count = np.bincount(fold_of(step * np.arange(10_000)), minlength=FOLDS + 1)
        assert count[0] == 0 and count[1:].min() > 1_700 and count[1:].max() < 2_300


def test_lists_of_one_user_are_in_one_fold(make_data: MakeData) -> None:
    params = make_data(users=60, shown=50)
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(params[f"{split}_data"])
        group = pl.col("user_index") // 10 * 10  # ten lists each
        rows.with_columns(group_user=group).write_parquet(params[f"{split}_data"])
    assert Counter(params, 50).user == "group_user"
    found, wanted = counted(params, 50, "train"), looped(params, 50, "train", 0)
    np.testing.assert_allclose(found["all"], wanted["all"], rtol=1e-5, atol=1e-6)
