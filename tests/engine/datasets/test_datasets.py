"""The generated and the converted data sets: what they promise, recomputed from the written files."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.datasets import synthetic
from engine.datasets.forms import movielens
from engine.datasets.prepared import layout
from engine.datasets.prepared.card import CARD, SPLITS
from engine.datasets.writing import interactions
from model_zoo.training.metrics import auc

from ...support.command_line import ROOT, environment


def read(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


# ---------------------------------------------------------------- synthetic


def test_synthetic_is_seeded(tmp_path: Path) -> None:
    size = synthetic.SIZES["tiny"]
    cards = [
        layout.write(synthetic.generate(size, seed), tmp_path / str(i))
        for i, seed in enumerate((1, 1, 2))
    ]
    assert cards[0]["hash"] == cards[1]["hash"] != cards[2]["hash"]


def test_synthetic_is_the_data_of_the_results_that_ship(tmp_path: Path) -> None:
    card = json.loads((ROOT / "benchmark_results/session_hopping/dataset_card.json").read_text())
    dataset = synthetic.generate(synthetic.SIZES["small"], card["seed"])
    assert layout.write(dataset, tmp_path / "data")["hash"] == card["hash"]


ITEMS_DIGEST = """
import hashlib
import numpy as np
from engine.datasets.synthetic import SIZES, _items

arrays = _items(SIZES["small"], np.random.default_rng(7))
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


@pytest.mark.parametrize(("cpu", "threads"), [("Haswell", 1), ("Sandybridge", 2)])
def test_synthetic_has_the_same_bits_on_every_machine(cpu: str, threads: int) -> None:
    """BLAS takes other kernels on another CPU, and may with another number of threads."""
    kernels = {"OPENBLAS_CORETYPE": cpu, "OPENBLAS_NUM_THREADS": str(threads)}
    digests = {
        subprocess.run(
            [sys.executable, "-c", ITEMS_DIGEST],
            env=environment() | more,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for more in ({}, kernels)
    }
    assert len(digests) == 1


def test_synthetic_sessions_hop(tiny_data: Path) -> None:
    """Sessions of 8 to 30 items of one theme; neighbours differ; themes reappear."""
    items = read(tiny_data, "item_info")
    size = synthetic.SIZES["tiny"]
    theme = (items["cate_id"].to_numpy() - 1) // ((size.categories - 1) // size.themes)
    reappeared = 0
    for history in read(tiny_data, "user_info")["full_item_seq"].to_list():
        themes = theme[history]
        starts = np.flatnonzero(np.r_[True, themes[1:] != themes[:-1]])[: len(themes)]
        runs = np.diff(np.r_[starts, len(themes)])
        assert all(8 <= run <= 30 for run in runs[:-1])
        reappeared += len(starts) > len(set(themes[starts]))
    assert reappeared > 5
    assert sorted(set(theme[1:])) == list(range(size.themes))


def themes_of(dataset: layout.Dataset) -> list[np.ndarray]:
    theme = np.r_[-1, dataset.item_ids["theme"].to_numpy()]
    return [theme[history] for history in dataset.user_info["full_item_seq"].to_list()]


def test_hopping_changes_themes_alone() -> None:
    """The share of sessions that another theme follows is ``hopping``; all else is drawn alike."""
    size = replace(synthetic.SIZES["tiny"], users=400, max_length=100)
    made = {h: synthetic.generate(replace(size, hopping=h), seed=1) for h in (0, 0.25, 1)}
    changes = {}
    for hopping, dataset in made.items():
        assert dataset.about["hopping"] == hopping
        assert dataset.item_info.equals(made[1].item_info)
        for split, samples in dataset.splits.items():
            assert samples.drop("is_click").equals(made[1].splits[split].drop("is_click"))
        changes[hopping] = sum(np.count_nonzero(np.diff(own)) for own in themes_of(dataset))
    assert changes[0] == 0
    assert changes[0.25] / changes[1] == pytest.approx(0.25, abs=0.03)
    first = {h: [own[:8].tolist() for own in themes_of(dataset)] for h, dataset in made.items()}
    assert first[0] == first[0.25] == first[1]


@pytest.mark.parametrize("hopping", [0.5, 1])
def test_bayes_auc_is_that_of_the_click_probability(tmp_path: Path, hopping: float) -> None:
    """The click probability is a function of what a model sees: recomputed from the files, it has
    the AUC on the card and predicts the labels without bias."""
    size = synthetic.Size(300, 200, 20, min_length=5, max_length=60, hopping=hopping)
    dataset = synthetic.generate(size, seed=5)
    card = layout.write(dataset, tmp_path / "data")
    theme_N, _, direction_ZNR = synthetic._items(size, np.random.default_rng(5))
    histories = read(tmp_path / "data", "user_info")["full_item_seq"].to_list()
    test = read(tmp_path / "data", "test")
    p = []
    for row in test.iter_rows(named=True):
        history = np.array(histories[row["user_index"]][: row["seq_len"]], dtype=int)
        target = row["item_index"]
        theme = theme_N[history[-1]]
        mean = direction_ZNR[theme, history[theme_N[history] == theme]].sum(0)
        match = mean @ direction_ZNR[theme, target] / np.linalg.norm(mean)
        p.append(1 / (1 + np.exp(-(size.slope * match + size.bias))))
    label = test["is_click"].to_numpy()
    assert auc(label, np.array(p)) == pytest.approx(card["bayes_auc"]["test"], abs=1e-5)
    assert abs(np.mean(p) - label.mean()) < 4 * np.sqrt(0.25 / len(label))


def test_impressions_are_split_in_time(tiny_data: Path) -> None:
    newest = {
        s: read(tiny_data, s).group_by("user_index").agg(pl.col("seq_len").max()) for s in SPLITS
    }
    oldest = {
        s: read(tiny_data, s).group_by("user_index").agg(pl.col("seq_len").min()) for s in SPLITS
    }
    for before, after in (("train", "valid"), ("valid", "test")):
        both = newest[before].join(oldest[after], on="user_index", suffix="_after")
        assert len(both) == synthetic.SIZES["tiny"].users
        assert (both["seq_len"] <= both["seq_len_after"]).all()


def test_micro_has_the_shape_of_microvideo() -> None:
    size = replace(synthetic.SIZES["micro"], users=30, impressions=20)
    assert (synthetic.SIZES["micro"].users, size.items) == (10_986, 1_700_000)
    dataset = synthetic.generate(replace(size, items=40_000), seed=1)
    assert dataset.features["item_id"]["vocab_size"] == 24_323
    assert dataset.item_info["item_id"].max() == 24_322
    assert dataset.features["cate_id"]["vocab_size"] == 514 > dataset.item_info["cate_id"].max()
    assert dataset.user_info["full_item_seq"].list.len().max() <= 1000


# ---------------------------------------------------------------- layout


def test_card_counts(tiny_data: Path) -> None:
    card = json.loads((tiny_data / CARD).read_text())
    for split in SPLITS:
        frame = read(tiny_data, split)
        entry = card["splits"][split]
        assert entry["rows"] == len(frame) == sum(entry["history_length"]["histogram"].values())
        assert entry["label_rate"] == pytest.approx(frame["is_click"].mean(), abs=1e-6)
    assert card["interactions"] == read(tiny_data, "user_info")["full_item_seq"].list.len().sum()


# ---------------------------------------------------------------- MovieLens


def ratings(seed: int, users: int = 12, movies: int = 30) -> list[tuple[int, int, int, int]]:
    """Random ``(user, movie, rating, time)``, shuffled, with gaps in the ids and tied times."""
    rng = random.Random(seed)
    rows = []
    for user in range(1, users * 3, 3):
        for movie in rng.sample(range(5, 5 + movies), rng.randint(1, movies)):
            rows.append((user, movie, rng.randint(1, 5), 10**9 + rng.randint(0, 20)))
    rng.shuffle(rows)
    return rows


def write_movielens(folder: Path, rows: list[tuple[int, int, int, int]], form: str) -> None:
    movies = [
        (5 + i, f"Film é {i} ({1950 + i % 40})", ["Drama", "Comedy", "War"][i % 3])
        for i in range(30)
    ]
    if form == "ratings.dat":
        (folder / form).write_text("\n".join("::".join(map(str, row)) for row in rows) + "\n")
    elif form == "u.data":
        (folder / form).write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")
    elif form == "ratings.csv":
        rows = [(user, movie, rating - 0.5, time) for user, movie, rating, time in rows]
        table = pl.DataFrame(
            rows, schema=["userId", "movieId", "rating", "timestamp"], orient="row"
        )
        table.write_csv(folder / form)
    else:
        table = pl.DataFrame(rows, schema=["user_id", "movie_id", "rating", "time"], orient="row")
        table = table.sort("user_id", "time", maintain_order=True).with_columns(
            pos=pl.int_range(pl.len()).over("user_id")
        )
        table.select("user_id", "pos", "movie_id", "rating").write_parquet(folder / form)
    if form == "u.data":
        genres = ["unknown", "Comedy", "Drama", "War"]
        (folder / "u.genre").write_text("".join(f"{g}|{i}\n" for i, g in enumerate(genres)))
        lines = [
            f"{i}|{title}|01-Jan-1990||url|" + "|".join(str(int(g == genre)) for g in genres)
            for i, title, genre in movies
        ]
        (folder / "u.item").write_text("\n".join(lines), encoding="latin-1")
    elif form == "ratings.csv":
        table = pl.DataFrame(movies, schema=["movieId", "title", "genres"], orient="row")
        table.with_columns(pl.col("genres") + "|Musical").write_csv(folder / "movies.csv")
    else:
        lines = [f"{i}::{title}::{genre}|Musical" for i, title, genre in movies]
        (folder / "movies.dat").write_text("\n".join(lines), encoding="latin-1")


@pytest.mark.parametrize(
    "form", ["ratings.dat", "u.data", "ratings.csv", "ratings_ordered.parquet"]
)
def test_movielens_against_a_plain_loop(tmp_path: Path, form: str) -> None:
    rows = ratings(seed=7)
    write_movielens(tmp_path, rows, form)
    interactions.write(movielens.load(tmp_path), tmp_path / "data")
    ranked = form == "ratings_ordered.parquet"  # where ties have an order
    least = 4.5 if form == "ratings.csv" else 4  # the file has half a star less
    movie_of = dict(enumerate([0, *sorted({movie for _, movie, _, _ in rows})]))
    samples: dict[str, list[tuple]] = {split: [] for split in SPLITS}
    for user_index, user in enumerate(sorted({row[0] for row in rows})):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[3])
        moments = range(len(own)) if ranked else [row[3] for row in own]
        liked = [
            (moment, movie)
            for moment, (_, movie, rating, _) in zip(moments, own, strict=True)
            if rating >= least
        ]
        for place, (moment, (_, movie, rating, _)) in enumerate(zip(moments, own, strict=True)):
            late = (place >= int(0.8 * len(own))) + (place >= int(0.9 * len(own)))
            history = tuple(m for t, m in liked if t < moment)
            samples[SPLITS[late]].append((user_index, movie, history, float(rating >= least)))
    histories = read(tmp_path / "data", "user_info")["full_item_seq"].to_list()
    for split in SPLITS:
        found = [
            (
                row["user_index"],
                movie_of[row["item_index"]],
                tuple(movie_of[i] for i in histories[row["user_index"]][: row["seq_len"]]),
                row["label"],
            )
            for row in read(tmp_path / "data", split).iter_rows(named=True)
        ]
        assert sorted(found) == sorted(samples[split])


@pytest.mark.parametrize("form", ["ratings.dat", "u.data", "ratings.csv"])
def test_movielens_items(tmp_path: Path, form: str) -> None:
    write_movielens(tmp_path, ratings(seed=7), form)
    card = interactions.write(movielens.load(tmp_path), tmp_path / "data")
    items = read(tmp_path / "data", "item_info")
    first = items.row(1, named=True)
    assert items.row(0, named=True) == {
        "item_index": 0, "movie_id": 0, "genres": [0] * 6, "year": 0
    }  # fmt: skip
    assert sum(g > 0 for g in first["genres"]) == (1 if form == "u.data" else 2)
    assert first["year"] == 1
    for name, size in card["vocab_sizes"].items():
        column = items[name]
        column = column.explode() if column.dtype == pl.List else column
        assert column.min() >= 0 and column.max() == size - 1, name
    for row in pl.read_parquet(tmp_path / "data" / "item_ids.parquet").iter_rows(named=True):
        i = row["item"] - 5
        assert row["name"] == f"Film é {i} ({1950 + i % 40})"
        assert row["category"] == ["Drama", "Comedy", "War"][i % 3]


real_data = pytest.mark.skipif(
    "REAL_DATA_DIR" not in os.environ, reason="set REAL_DATA_DIR to a folder with ml-1m and ml-100k"
)


@real_data
@pytest.mark.parametrize(
    ("name", "users", "samples"), [("ml-1m", 6040, 999_611), ("ml-100k", 943, 100_000)]
)
def test_real_movielens(tmp_path: Path, name: str, users: int, samples: int) -> None:
    log = movielens.load(Path(os.environ["REAL_DATA_DIR"]) / name)
    card = interactions.write(log, tmp_path / name)
    assert card["users"] == users
    assert sum(split["rows"] for split in card["splits"].values()) == samples
    assert 0.5 < card["splits"]["train"]["label_rate"] < 0.6
