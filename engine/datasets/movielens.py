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
from ..loader.columns import require_columns
from .interactions import Log, Split
from .source import readable, require_unique

LIKED = 4
MAX_GENRES = 6  # per movie, in the order of the file
LICENCE = (
    "GroupLens: research use, cite, no redistribution (https://grouplens.org/datasets/movielens/)"
)
COLUMNS = ("user_id", "movie_id", "rating", "order")
RATINGS = {  # what each file calls these columns; texts without a header have them in this order
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
    table = _numbers(path, _read(path, RATINGS[path.name]))
    table = table.rename(dict(zip(table.columns, COLUMNS, strict=True)))
    if table.is_empty():
        raise UserError(f"{path} has no ratings; name a file with some")
    bad = (~table["rating"].is_between(0.5, 5)).arg_true()
    if len(bad):
        raise UserError(
            f"{path}, line {_line(path, bad[0])}: the rating {table['rating'][bad[0]]:g} is not "
            "between 0.5 and 5"
        )
    pairs = table.lazy().group_by("user_id", "movie_id").len().filter(pl.col("len") > 1).head(1)
    double = pairs.collect(engine="streaming")
    if len(double):
        user, movie, _ = double.row(0)
        raise UserError(f"{path}: user {user} rated movie {movie} twice; keep one of the ratings")
    return table


def _movies(folder: Path) -> pl.DataFrame:
    """``movie_id, title, genres (list of names), year (0 if unknown)``."""
    path = _first(folder, MOVIES)
    if path.name == "u.genre":
        names = [line.split("|")[0] for line in path.read_text().splitlines() if line]
        path = folder / "u.item"
        table = _read(path, ("movie_id", "title", "released", "video", "url", *names))
        flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names]
        genres = pl.concat_list(flags).list.drop_nulls()
    else:
        table = _read(path, ("movieId" if path.suffix == ".csv" else "movie_id", "title", "genres"))
        genres = pl.col("genres").str.split("|").fill_null([])
    ids = _numbers(path, table.select(pl.first())).to_series()
    require_unique(path, "movie", ids)
    title = pl.col("title").fill_null("")
    year = (
        title.str.extract(r"(\d{4})\S\s*$").cast(pl.Int64).fill_null(0)
    )  # in brackets, at the end
    return table.select(movie_id=ids, title=title, genres=genres, year=year)


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns of a file; of a text without a header they are all that there are, in order."""
    with readable(path):
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        elif path.suffix == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        else:  # read as lines, because polars splits by one byte only, and reads no Latin-1
            return _fields(path, path.read_text(encoding="latin-1").splitlines(), columns)
    require_columns(path, table.columns, list(columns))
    return table.select(columns)


def _fields(path: Path, lines: list[str], columns: tuple[str, ...]) -> pl.DataFrame:
    separator = SEPARATORS[path.suffix]
    fields = pl.Series(lines, dtype=pl.String).str.split(separator)
    bad = (fields.list.len() != len(columns)).arg_true()
    if len(bad):
        raise UserError(
            f"{path}, line {bad[0] + 1} is {lines[bad[0]]!r}; it must hold {len(columns)} fields "
            f"with {separator!r} between them: {', '.join(columns)}"
        )
    return pl.DataFrame({name: fields.list.get(i) for i, name in enumerate(columns)})


def _numbers(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    """The columns as whole numbers, ``rating`` as a fraction."""
    for name in table.columns:
        kind, what = (pl.Float64, "a number") if name == "rating" else (pl.Int64, "a whole number")
        numbers = table[name].cast(kind, strict=False)
        bad = numbers.is_null().arg_true()
        if len(bad):
            raise UserError(
                f"{path}, line {_line(path, bad[0])}, column {name}: {table[name][bad[0]]!r} is not "
                f"{what}"
            )
        table = table.with_columns(numbers)
    return table


def _line(path: Path, row: int) -> int:
    """The line of a row, counted from 1; a CSV file has its header in the first."""
    return row + (2 if path.suffix == ".csv" else 1)


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
