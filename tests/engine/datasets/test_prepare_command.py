"""``data/prepare.py``: what it refuses, and that it then writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ...support.command_line import Outcome, snapshot

Frame = Callable[[pl.DataFrame], pl.DataFrame]


RATINGS = [
    (user, movie, 1 + (3 * user + movie) % 5, 100 * user + movie)
    for user in range(1, 6)
    for movie in range(1, 13)
]


def movielens_100k(folder: Path) -> None:
    """A small folder of MovieLens 100K's form."""
    folder.mkdir()
    rows = ["\t".join(map(str, row)) for row in RATINGS]
    (folder / "u.data").write_text("\n".join(rows) + "\n")
    (folder / "u.genre").write_text("unknown|0\nAction|1\n")
    movies = [f"{m}|Film {m} (1995)|01-Jan-1995||http://x|0|1\n" for m in range(1, 13)]
    (folder / "u.item").write_text("".join(movies))


def movielens_1m(folder: Path) -> None:
    """A small folder of MovieLens 1M, its ratings as ordered parquet."""
    folder.mkdir()
    table = pl.DataFrame(RATINGS, ["user_id", "movie_id", "rating", "pos"], orient="row")
    table.write_parquet(folder / "ratings_ordered.parquet")
    movies = [f"{m}::Film {m} (1995)::Action|Drama\n" for m in range(1, 13)]
    (folder / "movies.dat").write_text("".join(movies))


def appended(text: str) -> Callable[[Path], None]:
    """MovieLens 100K with one more line of ratings."""

    def make(folder: Path) -> None:
        movielens_100k(folder)
        with open(folder / "u.data", "a") as file:
            file.write(text)

    return make


def ordered(edit: Frame) -> Callable[[Path], None]:
    """MovieLens 1M with its ratings edited."""

    def make(folder: Path) -> None:
        movielens_1m(folder)
        path = folder / "ratings_ordered.parquet"
        edit(pl.read_parquet(path)).write_parquet(path)

    return make


def cut(folder: Path) -> None:
    movielens_1m(folder)
    path = folder / "ratings_ordered.parquet"
    path.write_bytes(path.read_bytes()[:300])


def emptied(folder: Path) -> None:
    movielens_100k(folder)
    (folder / "u.data").write_bytes(b"")


TO_OUT = ("movielens", "--input", "in", "--output", "out")
SYNTHETIC = ("session_hopping", "--size", "tiny", "--output", "out")
PREPARE: dict[str, tuple[Callable[[Path], None], tuple[str, ...], tuple[str, ...]]] = {
    "missing folder": (
        lambda folder: None,
        TO_OUT,
        ("--input in has none of ratings.csv, ", "name a folder"),
    ),
    "empty folder": (
        Path.mkdir,
        TO_OUT,
        ("--input in has none of ratings.csv, ratings.dat, u.data",),
    ),
    "missing column": (
        ordered(lambda table: table.rename({"pos": "position"})),
        TO_OUT,
        ("in/ratings_ordered.parquet: column 'pos' is missing",),
    ),
    "cut parquet": (cut, TO_OUT, ("in/ratings_ordered.parquet cannot be read",)),
    "malformed line": (
        appended("1\tx\t3\t5\n"),
        TO_OUT,
        ("in/u.data, column movie_id, line 61: the value is 'x'; write a whole number",),
    ),
    "empty file": (emptied, TO_OUT, ("in/u.data is empty; name a file with rows",)),
    "short line": (appended("1\t13\n"), TO_OUT, (r"in/u.data, line 61 is '1\t13'", "4 fields")),
    "unknown movie": (
        appended("1\t99\t3\t5\n"),
        TO_OUT,
        ("in/u.data: movie 99 is not in the table of movies",),
    ),
    "output below a file": (
        movielens_100k,
        (*TO_OUT[:-1], "in/u.data/out"),
        ("in/u.data/out was not written (",),
    ),
    "output is a file": (
        movielens_100k,
        (*TO_OUT[:-1], "in/u.data"),
        ("--output in/u.data is a file",),
    ),
    "output exists": (
        movielens_100k,
        (*TO_OUT[:-1], "in"),
        ("--output in exists already; add --overwrite",),
    ),
    "overwrite what is no data set": (
        movielens_100k,
        (*TO_OUT[:-1], "in", "--overwrite"),
        ("--output in holds u.data, which is no part of a data set",),
    ),
    "items": (
        Path.mkdir,
        (*SYNTHETIC, "--items", "0"),
        ("--items 0 is too small; write 100 or more",),
    ),
    "hopping": (
        Path.mkdir,
        (*SYNTHETIC, "--hopping", "1.5"),
        ("--hopping 1.5 is no chance; write a number from 0 to 1",),
    ),
    "hopping is nan": (Path.mkdir, (*SYNTHETIC, "--hopping", "nan"), ("--hopping nan is no",)),
}


@pytest.mark.parametrize("name", PREPARE)
def test_it_rejects_and_writes_nothing(
    name: str, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    make, arguments, says = PREPARE[name]
    make(tmp_path / "in")
    before = snapshot(tmp_path)
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.stderr.startswith("error: ") and len(outcome.stderr.splitlines()) == 1
    assert all(part in outcome.stderr for part in says), outcome.stderr
    assert snapshot(tmp_path) == before


def test_overwrite_replaces_a_data_set(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    movielens_100k(tmp_path / "in")
    for options in ((), ("--overwrite",)):
        outcome = command(*TO_OUT, *options)
        assert outcome.code == 0, outcome.stderr
        (tmp_path / "out" / "train.parquet").write_text("old")
    written = {"dataset_card.json", "feature_map.json", "item_info.parquet", "user_info.parquet"}
    assert written < {path.name for path in (tmp_path / "out").iterdir()}
    again = command(*TO_OUT, "--overwrite")
    assert again.code == 0 and len(pl.read_parquet(tmp_path / "out" / "train.parquet"))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_planted_data_have_a_profile(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    outcome = command(*SYNTHETIC, "--hopping", "0.5")
    assert outcome.code == 0, outcome.stderr
    assert json.loads((tmp_path / "out" / "dataset_card.json").read_text())["hopping"] == 0.5
    for theme in ("theme", "cate_id"):
        assert f"\n  session hopping of {theme}: kappa 0." in outcome.stdout


def test_a_size_that_is_unknown(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    outcome = command(*SYNTHETIC, "--size", "big")
    assert outcome.code == 2 and "choose from 'micro', 'small', 'tiny'" in outcome.stderr


def test_the_card_counts_rows_that_are_left_out_and_repeats(
    tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    rows = [(user, item % 20, 100 * item + user) for user in range(9) for item in range(30)]
    lines = [f"{user},{item},{time}" for user, item, time in rows]
    lines[3], lines[5], lines[8] = "1,2,soon", "1,,3", "2,3,later"
    (tmp_path / "log.csv").write_text("\n".join(["u,i,t", *lines]))
    flags = "--input log.csv --user u --item i --time t --negatives 2 --targets all --bad-rows leave_out"
    outcome = command("generic", *flags.split(), "--output", "out")
    assert outcome.code == 0, outcome.stderr
    card = json.loads((tmp_path / "out" / "dataset_card.json").read_text())
    assert card["left_out"] == {"column t is not a whole number": 2, "column i is not an id": 1}
    assert "  rows left out: 2 (column t is not a whole number)" in outcome.stdout.splitlines()
    clicked, drawn = card["negatives"]["in_history"]
    assert clicked == pytest.approx(1 / 3, abs=0.02) and 0 < drawn < 1
