"""EB-NeRD, the Ekstra Bladet news data, from its raw files: will the user click this article?

Each article that an impression showed is a sample, and its label says whether it was clicked. The
history of a sample holds every click of the user before the moment of the impression, from
``history.parquet`` and from earlier impressions.

What is known only after the moment of the impression is no feature: the time and scrolling of the
article that is read next (``next_*``), of the impression itself, and the articles' counts of views,
which were taken at the end of the collection.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ..common.errors import UserError
from .features import Feature, item_table
from .interactions import Log, Split
from .source import ROW, Source, require_unique

LICENCE = "Ekstra Bladet: research use (https://recsys.eb.dk/)"
LEAKS = {
    "next_read_time": "is measured after the impression",
    "next_scroll_percentage": "is measured after the impression",
    "read_time": "is measured during the impression",
    "scroll_percentage": "is measured during the impression",
    "total_inviews": "counts views until the end of the collection",
    "total_pageviews": "counts views until the end of the collection",
    "total_read_time": "sums reading until the end of the collection",
}
USER = ("device_type", "is_sso_user", "gender", "postcode", "age", "is_subscriber")
TIME = ("impression_hour", "impression_weekday")
ARTICLE = ("category", "article_type", "sentiment_label", "premium", "subcategory")
BEHAVIORS = ("user_id", "impression_time", "article_ids_inview", "article_ids_clicked")
HISTORY = ("user_id", "article_id_fixed", "impression_time_fixed")
PARTS = ("train", "validation")


def load(
    folder: str | Path,
    sample_features: list[str] | None = None,
    item_features: list[str] | None = None,
    embeddings: str | Path | None = None,
) -> Log:
    """The log of an EB-NeRD folder.

    Args:
        folder: holds ``behaviors.parquet`` and ``history.parquet``, split in time into 80, 10 and
            10 % of the samples; or ``train/`` and ``validation/`` with one of each, whose second
            half of the validation week becomes the test. ``articles.parquet`` may lie there.
        sample_features: columns of the behaviours, to which the hour and the weekday are added.
        item_features: columns of the articles.
        embeddings: a Parquet file with ``article_id`` and one column of vectors.

    Raises:
        UserError: a file or column is missing, or a feature would leak what comes later.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--input {folder} is no folder; name the folder of EB-NeRD's raw files")
    user = list(USER if sample_features is None else sample_features)
    article = list(ARTICLE if item_features is None else item_features)
    for name in user + article:
        if name in LEAKS:
            raise UserError(
                f"feature {name} {LEAKS[name]}, so a model that reads it sees the future; leave it out"
            )
    parts = [folder / part for part in PARTS if (folder / part).is_dir()] or [folder]
    behaviors = _scan([part / "behaviors.parquet" for part in parts], *BEHAVIORS, *user)
    history = _scan([part / "history.parquet" for part in parts], *HISTORY)
    return Log(
        events=_events(behaviors, history, user).with_row_index("row"),
        item_table=partial(_item_table, folder, article, embeddings),
        label="click",
        split=Split() if len(parts) == 1 else Split(starts=_validation_week(parts[1])),
        source=f"EB-NeRD, from {folder.name}",
        licence=LICENCE,
        sample_features=[Feature(name, "categorical") for name in (*user, *TIME)],
    )


def _events(behaviors: pl.LazyFrame, history: pl.LazyFrame, user: list[str]) -> pl.LazyFrame:
    """Articles that were read before, and those that were shown."""
    shown = behaviors.explode("article_ids_inview", empty_as_null=False)
    clicked = pl.col("article_ids_clicked").list.contains(pl.col("article_ids_inview"))
    when = pl.col("impression_time")
    shown = shown.filter(pl.col("article_ids_inview").is_not_null()).select(
        *_moment("article_ids_inview", "impression_time"),
        label=clicked.fill_null(False).cast(pl.Int8),
        positive=clicked.fill_null(False),
        **{name: pl.col(name).cast(pl.Int64) for name in user},
        impression_hour=when.dt.hour().cast(pl.Int64),
        impression_weekday=when.dt.weekday().cast(pl.Int64),
    )
    read = history.explode("article_id_fixed", "impression_time_fixed", empty_as_null=False)
    read = read.filter(pl.col("article_id_fixed").is_not_null()).select(
        *_moment("article_id_fixed", "impression_time_fixed"),
        label=pl.lit(None, pl.Int8),
        positive=pl.lit(True),
    )
    return pl.concat([read, shown], how="diagonal")


def _moment(item: str, time: str) -> list[pl.Expr]:
    """Whose event it is, of which article, and when, in microseconds."""
    columns = {"user": pl.col("user_id"), "item": pl.col(item), "time": _microseconds(time)}
    return [column.cast(pl.Int64).alias(name) for name, column in columns.items()]


def _microseconds(time: str) -> pl.Expr:
    return pl.col(time).cast(pl.Datetime("us")).cast(pl.Int64)


def _item_table(
    folder: Path,
    names: list[str],
    embeddings: str | Path | None,
    items: pl.DataFrame,
    times_N: NDArray,
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Articles with their features; without ``articles.parquet`` these are unknown."""
    path = folder / "articles.parquet"
    table = items.select(article_id="item")
    if path.exists():
        table = _joined(table, path, *names)
    elif names:
        print(f"{path} is not there, so {', '.join(names)} of every article are unknown")
        unknown = {n: pl.List(pl.Int64) if n == "subcategory" else pl.Int64 for n in names}
        table = table.with_columns(pl.lit(None, kind).alias(n) for n, kind in unknown.items())
    lists = {name for name in names if isinstance(table.schema[name], pl.List)}
    features = [Feature(n, "sequence" if n in lists else "categorical") for n in names]
    if embeddings is not None:
        schema = _scan([Path(embeddings)], "article_id").collect_schema()
        vectors = [n for n, kind in schema.items() if isinstance(kind, pl.List | pl.Array)]
        if not vectors:
            raise UserError(
                f"{embeddings} has no column of vectors beside article_id; it has "
                f"{', '.join(schema)}"
            )
        table = _joined(table, Path(embeddings), vectors[0]).rename({vectors[0]: "embedding"})
        table = table.with_columns(pl.col("embedding").cast(pl.List(pl.Float32)))
        features.append(Feature("embedding", "embedding"))
    return item_table(table, [Feature("article_id", "categorical"), *features], times_N)


def _joined(table: pl.DataFrame, path: Path, *names: str) -> pl.DataFrame:
    """The articles with columns of a file."""
    more = _scan([path], "article_id", *names).select("article_id", *names).collect()
    more = more.with_columns(pl.col("article_id").cast(pl.Int64))
    require_unique(path, "article", more["article_id"])
    return table.join(more, on="article_id", how="left", maintain_order="left")


def _validation_week(part: Path) -> tuple[int, int]:
    """The first moment of the validation folder, and the one that halves its impressions."""
    time = _microseconds("impression_time")
    moments = _scan([part / "behaviors.parquet"], *BEHAVIORS).select(
        time.min().alias("first"), time.quantile(0.5, "lower").cast(pl.Int64).alias("middle")
    )
    first, middle = moments.collect().row(0)
    return first, middle


def _scan(paths: list[Path], *columns: str) -> pl.LazyFrame:
    """Parquet files as one table, once each is there and has the columns."""
    tables = [Source(path) for path in paths]
    for table in tables:
        table.require(*columns)
    return pl.concat([table.frame.drop(ROW) for table in tables], how="vertical_relaxed")
