"""MovieLens as click-through data: will the user like this movie, that is, rate it 4 or more?

The history holds the movies that the user liked at earlier moments, oldest first. The ratings of
each user are split in time: the last tenth is the test set, the tenth before it validation.

Ids are made here and not by ``features``, because published results rest on them: every movie of
the data has its own, and there is none for unknown values.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ..common.errors import UserError
from .interactions import Log, Split
from .source import Lines, Source, as_number, require_unique

LIKED = 4
MAX_GENRES = 6  # per movie, in the order of the file
LICENCE = (
    "GroupLens: research use, cite, no redistribution (https://grouplens.org/datasets/movielens/)"
)
COLUMNS = ("user_id", "movie_id", "rating", "order")
RATINGS = {  # what each file calls these columns
    "ratings.csv": ("userId", "movieId", "rating", "timestamp"),
    "ratings.dat": COLUMNS,
    "u.data": COLUMNS,
    "ratings_ordered.parquet": ("user_id", "movie_id", "rating", "pos"),
}
MOVIES = ("movies.csv", "movies.dat", "u.genre")  # the last one goes with u.item
SEPARATORS = {".dat": "::", ".data": "\t", ".item": "|"}


def load(folder: str | Path) -> Log:
    """The ratings of a MovieLens folder, as a log.

    Args:
        folder: holds ``ratings.csv`` (20M, latest and other newer ones), ``ratings.dat`` (1M),
            ``u.data`` (100K), or ``ratings_ordered.parquet`` (columns ``user_id, pos, movie_id,
            rating``, where ``pos`` is the place in the user's time order). It also holds the movie
            table: ``movies.csv``, ``movies.dat``, or ``u.item`` with ``u.genre``.

    Raises:
        UserError: names the file and the line.
    """
    path = _first(Path(folder), RATINGS)
    ratings, movies = _ratings(path), _movies(Path(folder))
    unknown = ratings.join(movies, on="movie_id", how="anti")
    if len(unknown):
        raise UserError(
            f"{path}: movie {unknown['movie_id'][0]} is rated but is not in the movie table; add "
            "it there"
        )
    liked = pl.col("rating") >= LIKED
    events = ratings.lazy().with_row_index("row")
    return Log(
        events=events.select(
            "row",
            user="user_id",
            item="movie_id",
            time="order",
            label=liked.cast(pl.Int8),
            positive=liked,
        ),
        item_table=partial(_item_table, movies),
        item_names=movies.select(
            item="movie_id", name="title", category=pl.col("genres").list.first()
        ),
        label="label",
        split=Split(by="user"),
        source=f"MovieLens, from {path.name}",
        licence=LICENCE,
    )


def _first(folder: Path, names: Iterable[str]) -> Path:
    """The first of some files that a folder has."""
    present = [folder / name for name in names if (folder / name).exists()]
    if not present:
        raise UserError(
            f"--input {folder} has none of {', '.join(names)}; name a folder of MovieLens data"
        )
    return present[0]


def _ratings(path: Path) -> pl.DataFrame:
    """The checked ratings of a file, in ``COLUMNS``."""
    names = RATINGS[path.name]
    table, (user, movie, rating, order) = _source(path, names), names
    columns = {
        "user_id": table.whole(user),
        "movie_id": table.whole(movie),
        "rating": table.read(rating, _stars, "a number from 0.5 to 5"),
        "order": table.whole(order),
    }
    table.check()
    ratings = table.rows().select(**columns).collect()
    double = ratings.filter(ratings.select("user_id", "movie_id").is_duplicated())
    if len(double):
        user, movie, *_ = double.row(0)
        raise UserError(f"{path}: user {user} rated movie {movie} twice; keep one of the ratings")
    return ratings


def _stars(raw: pl.Expr) -> pl.Expr:
    number = as_number(raw)
    return pl.when(number.is_between(0.5, 5)).then(number)


def _movies(folder: Path) -> pl.DataFrame:
    """``movie_id, title, genres (list of names), year (0 if unknown)``."""
    path = _first(folder, MOVIES)
    if path.name == "u.genre":
        names = [line.split("|")[0] for line in path.read_text().splitlines() if line]
        path, key = folder / "u.item", "movie_id"
        table = _source(path, (key, "title", "released", "video", "url", *names))
        flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names]
        genres = pl.concat_list(flags).list.drop_nulls()
    else:
        key = "movieId" if path.suffix == ".csv" else "movie_id"
        table = _source(path, (key, "title", "genres"))
        genres = pl.col("genres").str.split("|").fill_null([])
    ids = table.whole(key)
    table.check()
    title = pl.col("title").fill_null("")
    year = title.str.extract(r"(\d{4})\S\s*$").cast(pl.Int64)  # in brackets, at the end
    columns = {"movie_id": ids, "title": title, "genres": genres, "year": year.fill_null(0)}
    movies = table.rows().select(**columns).collect()
    require_unique(path, "movie", movies["movie_id"])
    return movies


def _source(path: Path, columns: tuple[str, ...]) -> Source:
    """A file that has some columns; a text without their names has no others."""
    if path.suffix in SEPARATORS:
        return Lines(path, columns, SEPARATORS[path.suffix])
    table = Source(path)
    table.require(*columns)
    return table


def _item_table(
    movies: pl.DataFrame, items: pl.DataFrame, times_N: NDArray
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """The item table and the features' specifications, see ``interactions.Log``."""
    movies = items.join(movies, left_on="item", right_on="movie_id", maintain_order="left")
    index = list(range(len(movies) + 1))
    genre_id = _ids(movies["genres"].explode().drop_nulls())
    year_id = _ids(movies["year"])
    genres = [
        ([genre_id[g] for g in names] + [0] * MAX_GENRES)[:MAX_GENRES] for names in movies["genres"]
    ]
    table = {
        "item_index": index,
        "movie_id": index,
        "genres": [[0] * MAX_GENRES, *genres],
        "year": [0, *(year_id[year] for year in movies["year"])],
    }
    categorical: dict[str, Any] = {"source": "item", "type": "categorical", "padding_idx": 0}
    return pl.DataFrame(table), {
        "movie_id": categorical | {"vocab_size": len(index)},
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


def _ids(values: pl.Series) -> dict[Any, int]:
    """An id for each value, from 1 on, in their order."""
    return {value: i for i, value in enumerate(sorted(set(values)), 1)}
