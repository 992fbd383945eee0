"""MovieLens as click-through data: will the user like (rate 4 or more) this movie?

History: the movies that the user liked before, oldest first. Split per user in time: the last tenth
of the ratings is the test set, the tenth before it validation. A history holds ratings of earlier
moments only (``interactions.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from ..common.errors import UserError
from ..loader.columns import require_columns
from .interactions import Log, Split
from .source import readable

LIKED = 4
MAX_GENRES = 6  # per movie, in the order of the file
LICENCE = (
    "GroupLens: research use, cite, no redistribution (https://grouplens.org/datasets/movielens/)"
)
RATINGS = ("ratings.csv", "ratings.dat", "u.data", "ratings_ordered.parquet")
COLUMNS = ["user_id", "movie_id", "rating", "order"]


def load(folder: str | Path) -> Log:
    """The ratings of a MovieLens folder, as a log.

    Args:
        folder: holds ``ratings.csv`` (20M, latest and other newer ones), ``ratings.dat`` (1M),
            ``u.data`` (100K), or ``ratings_ordered.parquet`` (columns ``user_id, pos, movie_id,
            rating``, where ``pos`` is the place in the user's time order); and the movie table
            ``movies.csv``, ``movies.dat`` or ``u.item``.

    Raises:
        UserError: names the file and the line.
    """
    folder = Path(folder)
    ratings, name = _ratings(folder)
    movies = _movies(folder)
    unknown = ratings.join(movies, on="movie_id", how="anti")
    if len(unknown):
        raise UserError(
            f"{folder / name}: movie {unknown['movie_id'][0]} is rated but is not in the movie table"
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
        item_table=lambda items, _: _item_info(
            items.join(movies, left_on="item", right_on="movie_id", maintain_order="left")
        ),
        item_names=movies.select(
            item="movie_id", name="title", category=pl.col("genres").list.first()
        ),
        label="label",
        split=Split(by="user"),
        source=f"MovieLens, from {name}",
        licence=LICENCE,
    )


def _ratings(folder: Path) -> tuple[pl.DataFrame, str]:
    """``user_id, movie_id, rating, order``, and the name of the file."""
    present = [name for name in RATINGS if (folder / name).exists()]
    if not present:
        raise UserError(
            f"--input {folder}: has none of {', '.join(RATINGS)}; name a folder of MovieLens data"
        )
    path, first_line = folder / present[0], 1
    if path.suffix == ".parquet":
        frame = _ordered_ratings(path)
    elif path.suffix == ".csv":
        first_line = 2
        frame = _csv(path, ["userId", "movieId", "rating", "timestamp"]).rename(
            dict(zip(("userId", "movieId", "rating", "timestamp"), COLUMNS, strict=True))
        )
        frame = _numbers(path, frame, COLUMNS, first_line)
    else:
        separator = "::" if path.suffix == ".dat" else "\t"
        frame = _fields(path, separator, 4, "user, movie, rating, timestamp").rename(
            dict(zip(("f0", "f1", "f2", "f3"), COLUMNS, strict=True))
        )
        frame = _numbers(path, frame, COLUMNS)
    if frame.is_empty():
        raise UserError(f"{path}: has no ratings")
    bad = frame.with_row_index("row").filter(~pl.col("rating").is_between(0.5, 5))
    if len(bad):
        line, rating = bad["row"][0] + first_line, bad["rating"][0]
        raise UserError(f"{path}, line {line}: rating {rating:g} is not between 0.5 and 5")
    pairs = frame.lazy().group_by("user_id", "movie_id").len().filter(pl.col("len") > 1).head(1)
    double = pairs.collect(engine="streaming")
    if len(double):
        user, movie = double["user_id"][0], double["movie_id"][0]
        raise UserError(f"{path}: user {user} rated movie {movie} twice; keep one")
    return frame, path.name


def _csv(path: Path, columns: list[str]) -> pl.DataFrame:
    with readable(path):
        frame = pl.read_csv(path, infer_schema=False)
    require_columns(path, frame.columns, columns)
    return frame.select(columns)


def _ordered_ratings(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a whole parquet file ({error})") from None
    needed = ["user_id", "pos", "movie_id", "rating"]
    require_columns(path, frame.columns, needed)
    return _numbers(path, frame.select(needed), needed).rename({"pos": "order"}).select(COLUMNS)


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


def _numbers(
    path: Path, frame: pl.DataFrame, columns: list[str], first_line: int = 1
) -> pl.DataFrame:
    """The columns as whole numbers, ``rating`` as a fraction."""
    types = {name: pl.Float64 if name == "rating" else pl.Int64 for name in columns}
    numbers = frame.with_columns(pl.col(n).cast(t, strict=False) for n, t in types.items())
    for column in columns:
        bad = numbers[column].is_null().arg_true()
        if len(bad):
            what = "a number" if column == "rating" else "a whole number"
            raise UserError(
                f"{path}, line {bad[0] + first_line}, {column}: is {frame[column][bad[0]]!r}; "
                f"it must be {what}"
            )
    return numbers


def _movies(folder: Path) -> pl.DataFrame:
    """``movie_id, title, genres (list of names), year (0 if unknown)``."""
    if (folder / "movies.csv").exists():
        path = folder / "movies.csv"
        frame = _csv(path, ["movieId", "title", "genres"])
        frame = frame.rename({"movieId": "f0", "title": "f1"})
        frame = frame.with_columns(genres=pl.col("genres").str.split("|"))
    elif (folder / "movies.dat").exists():
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
        raise UserError(
            f"--input {folder}: has none of movies.csv, movies.dat, and u.item with u.genre"
        )
    movies = _numbers(path, frame, ["f0"]).select(
        pl.col("genres").fill_null([]),
        movie_id="f0",
        title=pl.col("f1").fill_null(""),
        year=pl.col("f1").fill_null("").map_elements(_year, return_dtype=pl.Int64),
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
    return int(tail) if tail.isdecimal() else 0


def _item_info(movies: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """The item table with its padding row, and the features' specifications.

    Args:
        movies: ``genres, year``; row i is the movie of item index i + 1.
    """
    index = list(range(len(movies) + 1))
    genre_id = {
        g: i + 1 for i, g in enumerate(sorted(set(movies["genres"].explode().drop_nulls())))
    }
    year_id = {year: i + 1 for i, year in enumerate(sorted(set(movies["year"])))}
    genres = [
        ([genre_id[g] for g in names] + [0] * MAX_GENRES)[:MAX_GENRES] for names in movies["genres"]
    ]
    table = pl.DataFrame(
        {
            "item_index": index,
            "movie_id": index,
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
