"""MovieLens as click-through data: will the user like (rate 4 or more) this movie?

History: the movies that the user liked before, oldest first. Split per user in time: the last tenth
of the ratings is the test set, the tenth before it validation. Nothing about the future enters: a
history holds ratings before the sample only, which is checked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ..errors import UserError, did_you_mean
from .layout import SPLITS, Dataset

LIKED = 4
MAX_GENRES = 6  # per movie, in the order of the file
LICENCE = (
    "GroupLens: research use, cite, no redistribution (https://grouplens.org/datasets/movielens/)"
)
RATINGS = {
    # file: the separator of its fields
    "ratings.dat": "::",
    "u.data": "\t",
    "ratings_ordered.parquet": None,
}


def load(folder: str | Path) -> Dataset:
    """Convert a MovieLens folder.

    Args:
        folder: holds ``ratings.dat`` (MovieLens 1M), ``u.data`` (100K), or
            ``ratings_ordered.parquet`` (columns ``user_id, pos, movie_id, rating``, where ``pos``
            is the place in the user's time order); and ``movies.dat`` or ``u.item``.
    """
    folder = Path(folder)
    ratings, name = _ratings(folder)
    movies = _movies(folder)
    unknown = ratings.join(movies, on="movie_id", how="anti")
    if len(unknown):
        raise UserError(
            f"{folder / name}: movie {unknown['movie_id'][0]} is rated but is not in the movie table"
        )
    movies = movies.join(ratings, on="movie_id", how="semi").sort("movie_id")
    movies = movies.with_row_index("item_index", offset=1).with_columns(
        pl.col("item_index").cast(pl.Int64)
    )
    samples, user_info = _samples(ratings, movies)
    check_no_future(samples, user_info)
    item_info, features = _item_info(movies)
    splits = {
        split: samples.filter(pl.col("split") == i).select(
            "user_index", "item_index", "seq_len", "label"
        )
        for i, split in enumerate(SPLITS)
    }
    return Dataset(
        splits=splits,
        user_info=user_info,
        item_info=item_info,
        features=features,
        label="label",
        source=f"MovieLens, from {name}",
        licence=LICENCE,
    )


def check_no_future(samples: pl.DataFrame, user_info: pl.DataFrame) -> None:
    """Recompute from the written form that each history holds exactly the liked movies that the
    user rated before the sample.

    Args:
        samples: ``user_index, item_index, seq_len, label, place`` (rank in the user's time order).
        user_info: ``user_index, full_item_seq``.
    """
    liked = samples.filter(pl.col("label") == 1).sort("user_index", "place")
    written = user_info.explode("full_item_seq").drop_nulls()
    if not np.array_equal(written["full_item_seq"], liked["item_index"]):
        raise AssertionError("histories are not the liked movies in time order")
    before = samples.sort("user_index", "place").with_columns(
        liked_before=(pl.col("label").cum_sum() - pl.col("label")).over("user_index")
    )
    if not np.array_equal(before["seq_len"], before["liked_before"].cast(pl.Int64)):
        raise AssertionError("a history reaches into the future")


def _ratings(folder: Path) -> tuple[pl.DataFrame, str]:
    """``user_id, movie_id, rating, order``; equal times keep the order of the file."""
    present = [name for name in RATINGS if (folder / name).exists()]
    if not present:
        raise UserError(
            f"--input {folder}: has none of {', '.join(RATINGS)}; name a folder of MovieLens data"
        )
    path, separator = folder / present[0], RATINGS[present[0]]
    columns = ["user_id", "movie_id", "rating", "order"]
    if separator is None:
        frame = _ordered_ratings(path).select(columns)
    else:
        frame = _fields(path, separator, 4, "user, movie, rating, timestamp").rename(
            dict(zip(("f0", "f1", "f2", "f3"), columns, strict=True))
        )
        frame = _whole_numbers(path, frame, columns)
    if frame.is_empty():
        raise UserError(f"{path}: has no ratings")
    bad = frame.with_row_index("row").filter(~pl.col("rating").is_between(1, 5))
    if len(bad):
        row, rating = bad["row"][0] + 1, bad["rating"][0]
        raise UserError(f"{path}, line {row}: rating {rating} is not between 1 and 5")
    double = frame.filter(pl.struct("user_id", "movie_id").is_duplicated())
    if len(double):
        user, movie = double["user_id"][0], double["movie_id"][0]
        raise UserError(f"{path}: user {user} rated movie {movie} twice; keep one")
    return frame, path.name


def _ordered_ratings(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a whole parquet file ({error})") from None
    needed = ["user_id", "pos", "movie_id", "rating"]
    for column in needed:
        if column not in frame.columns:
            hint = did_you_mean(column, frame.columns)
            raise UserError(f"{path}: column {column!r} is missing{hint}")
    return _whole_numbers(path, frame.select(needed), needed).rename({"pos": "order"})


def _fields(path: Path, separator: str, count: int, what: str) -> pl.DataFrame:
    """The fields of a text file, as texts ``f0, f1, ...``; every line must have ``count`` of them.

    Read as lines first: polars splits by one byte only, and MovieLens 1M by ``::``.
    """
    lines = pl.Series("line", path.read_text(encoding="latin-1").splitlines(), dtype=pl.String)
    parts = lines.str.split(separator)
    bad = (parts.list.len() != count).arg_true()
    if len(bad):
        raise UserError(
            f"{path}, line {bad[0] + 1}: is {lines[bad[0]]!r}; it must hold {count} fields, "
            f"{what}, with {separator!r} between them"
        )
    return pl.DataFrame([parts.list.get(i).alias(f"f{i}") for i in range(count)])


def _whole_numbers(path: Path, frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    numbers = frame.with_columns(pl.col(columns).cast(pl.Int64, strict=False))
    for column in columns:
        bad = numbers[column].is_null().arg_true()
        if len(bad):
            raise UserError(
                f"{path}, line {bad[0] + 1}, {column}: is {frame[column][bad[0]]!r}; "
                "it must be a whole number"
            )
    return numbers


def _movies(folder: Path) -> pl.DataFrame:
    """``movie_id, genres (list of names), year (0 if unknown)``."""
    if (folder / "movies.dat").exists():
        path = folder / "movies.dat"
        frame = _fields(path, "::", 3, "movie, title, genres")
        frame = frame.with_columns(genres=pl.col("f2").str.split("|"))
    elif (folder / "u.item").exists() and (folder / "u.genre").exists():
        path = folder / "u.item"
        genres = [
            line.split("|")[0] for line in (folder / "u.genre").read_text().splitlines() if line
        ]
        frame = _fields(path, "|", 5 + len(genres), f"5 and the {len(genres)} genres of u.genre")
        flags = [
            pl.when(pl.col(f"f{5 + i}") == "1").then(pl.lit(genre))
            for i, genre in enumerate(genres)
        ]
        frame = frame.with_columns(genres=pl.concat_list(flags).list.drop_nulls())
    else:
        raise UserError(f"--input {folder}: has neither movies.dat nor u.item with u.genre")
    movies = _whole_numbers(path, frame, ["f0"]).select(
        "genres",
        movie_id="f0",
        year=pl.col("f1").map_elements(_year, return_dtype=pl.Int64),
    )
    double = movies["movie_id"].is_duplicated().arg_true()
    if len(double):
        raise UserError(
            f"{path}: movie {movies['movie_id'][double[0]]} stands twice; keep one line"
        )
    return movies


def _year(title: str) -> int:
    """The year in brackets at the end of a title."""
    tail = title.rstrip()[-5:-1]
    return int(tail) if tail.isdigit() else 0


def _samples(ratings: pl.DataFrame, movies: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All samples with their split and place, and the histories."""
    users = ratings.select("user_id").unique().sort("user_id").with_row_index("user_index")
    samples = (
        ratings.join(users, on="user_id", maintain_order="left")
        .join(movies.select("movie_id", "item_index"), on="movie_id", maintain_order="left")
        .sort("user_index", "order", maintain_order=True)
        .with_columns(
            pl.col("user_index").cast(pl.Int64),
            label=(pl.col("rating") >= LIKED).cast(pl.Float32),
            place=pl.int_range(pl.len()).over("user_index"),
            count=pl.len().over("user_index"),
        )
        .with_columns(
            seq_len=(pl.col("label").cum_sum() - pl.col("label")).over("user_index").cast(pl.Int64),
            split=pl.when(pl.col("place") < (0.8 * pl.col("count")).floor())
            .then(0)
            .when(pl.col("place") < (0.9 * pl.col("count")).floor())
            .then(1)
            .otherwise(2),
        )
    )
    histories = (
        samples.filter(pl.col("label") == 1)
        .group_by("user_index", maintain_order=True)
        .agg(full_item_seq="item_index")
    )
    user_info = (
        users.select(pl.col("user_index").cast(pl.Int64))
        .join(histories, on="user_index", how="left", maintain_order="left")
        .with_columns(pl.col("full_item_seq").fill_null([]))
    )
    return samples, user_info


def _item_info(movies: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, dict]]:
    """The item table with its padding row, and the features' specifications."""
    genre_id = {
        g: i + 1 for i, g in enumerate(sorted(set(movies["genres"].explode().drop_nulls())))
    }
    year_id = {year: i + 1 for i, year in enumerate(sorted(set(movies["year"])))}
    genres = [
        ([genre_id[g] for g in names] + [0] * MAX_GENRES)[:MAX_GENRES] for names in movies["genres"]
    ]
    table = pl.DataFrame(
        {
            "item_index": [0, *movies["item_index"]],
            "movie_id": [0, *movies["item_index"]],
            "genres": [[0] * MAX_GENRES, *genres],
            "year": [0, *(year_id[year] for year in movies["year"])],
        }
    )
    categorical = {"source": "item", "type": "categorical", "padding_idx": 0}
    return table, {
        "movie_id": categorical | {"vocab_size": len(table)},
        "genres": {
            "source": "item",
            "type": "sequence",
            "feature_encoder": "layers.MaskedAveragePooling()",
            "padding_idx": 0,
            "max_len": MAX_GENRES,
            "vocab_size": len(genre_id) + 1,
        },
        "year": categorical | {"vocab_size": len(year_id) + 1},
    }
