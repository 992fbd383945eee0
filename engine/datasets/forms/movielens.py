"""MovieLens as click-through data: will the user like this movie, that is, rate it 4 or more?

The history holds the movies that the user liked at earlier moments, oldest first. The ratings of
each user are split in time: the last tenth is the test set, the tenth before it validation.

Ids are made here and not by ``features``, because published results rest on them: every movie of
the data has its own, and there is none for unknown values.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ...common.errors import UserError
from ...config.feature_map import POOLING
from ..raw.raw_files import PLAIN, Form
from ..raw.source import Source, require_unique
from ..raw.values import number, whole
from ..writing.encoders import Encoders
from ..writing.log import Log
from ..writing.samples import Split

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
CATEGORICAL = {"source": "item", "type": "categorical", "padding_idx": 0}


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
    events, movies = _ratings(path), _movies(Path(folder))
    unknown = events.join(movies, on="item", how="anti")
    if len(unknown):
        raise UserError(
            f"{path}: movie {unknown['item'][0]} is not in the table of movies; add it there"
        )
    return Log(
        events=events.lazy(),
        item_table=partial(_item_table, movies),
        item_names=movies.select("item", "name", category=pl.col("genres").list.first()),
        label="label",
        split=Split(by="user"),
        time_unit="order" if RATINGS[path.name][3] == "pos" else "s",
        about={"source": f"MovieLens, from {path.name}", "licence": LICENCE},
    )


def _first(folder: Path, names: Iterable[str]) -> Path:
    """The first of some files that a folder has."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(
        f"--input {folder} has none of {', '.join(names)}; name a folder of MovieLens data"
    )


def _ratings(path: Path) -> pl.DataFrame:
    """The checked ratings of a file, as events of a ``Log``."""
    table = _source(path, RATINGS[path.name])
    user, movie, rating, order = RATINGS[path.name]
    liked = number(table, rating) >= LIKED
    columns = {
        "user": whole(table, user),
        "item": whole(table, movie),
        "time": whole(table, order),
        "label": liked.cast(pl.Int8),
        "positive": liked,
    }
    table.check()
    return table.rows().select(**columns).collect().with_row_index("row")


def _movies(folder: Path) -> pl.DataFrame:
    """``item, name, genres (list of names), year (0 if unknown)``."""
    path = _first(folder, MOVIES)
    key = "movieId" if path.suffix == ".csv" else "movie_id"
    if path.name == "u.genre":
        names = [line.split("|")[0] for line in path.read_text().splitlines() if line]
        path = folder / "u.item"
        table = _source(path, (key, "title", "released", "video", "url", *names))
        flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names]
        genres = pl.concat_list(flags).list.drop_nulls()
    else:
        table = _source(path, (key, "title", "genres"))
        genres = pl.col("genres").str.split("|").fill_null([])
    item = whole(table, key)
    table.check()
    title = pl.col("title").fill_null("")
    year = title.str.extract(r"(\d{4})\S\s*$").cast(pl.Int64)  # in brackets, at the end
    columns = {"item": item, "name": title, "genres": genres, "year": year.fill_null(0)}
    movies = table.rows().select(**columns).collect()
    require_unique(path, "movie", movies["item"])
    return movies


def _source(path: Path, columns: tuple[str, ...]) -> Source:
    """A table with the given columns. A text that does not name them has no others."""
    named = path.suffix in (".csv", ".parquet")
    table = Source(path, PLAIN if named else Form("::", columns=columns, encoding="latin-1"))
    table.require(*columns)
    return table


def _item_table(
    movies: pl.DataFrame, items: pl.DataFrame, times_N: NDArray, encoders: Encoders
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """The item table and the features' specifications, see ``log.Log``.

    All ids are those of the tables, so ``encoders`` stay empty.
    """
    movies = items.join(movies, on="item", maintain_order="left")
    genre = movies["genres"].explode().drop_nulls().unique().sort()
    genre_id = pl.element().cast(pl.Enum(genre)).to_physical().cast(pl.Int64) + 1
    genres = pl.col("genres").list.eval(genre_id).list.concat([0] * MAX_GENRES)
    index = pl.int_range(1, len(movies) + 1, dtype=pl.Int64)
    table = movies.select(
        item_index=index,
        movie_id=index,
        genres=genres.list.head(MAX_GENRES),
        year=pl.col("year").rank("dense").cast(pl.Int64),
    )
    padding = {"item_index": [0], "movie_id": [0], "genres": [[0] * MAX_GENRES], "year": [0]}
    table = pl.concat([pl.DataFrame(padding), table], rechunk=True)
    known = {"movie_id": len(movies), "genres": len(genre), "year": movies["year"].n_unique()}
    specs = {name: CATEGORICAL | {"vocab_size": 1 + size} for name, size in known.items()}
    specs["genres"] |= {"type": "sequence", "feature_encoder": POOLING, "max_len": MAX_GENRES}
    return table, specs
