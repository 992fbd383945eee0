"""EB-NeRD, the Ekstra Bladet news data, from its raw files: will the user click this article?

One sample for each article that an impression showed, label: it was clicked. The history of a
sample is every click of the user before the moment of the impression, from ``history.parquet`` and
from earlier impressions.

What is known only after the moment of the impression is no feature: the time and scrolling of the
article that is read next (``next_*``), of the impression itself, and the articles' counts of views,
which were taken at the end of the collection.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl
from numpy.typing import NDArray

from ..common.errors import UserError
from ..loader.columns import require_columns
from .features import Feature, item_table
from .interactions import Log, Split
from .source import readable

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
        sample_features: columns of the behaviours beside the hour and the weekday.
        item_features: columns of the articles.
        embeddings: parquet file with ``article_id`` and one column of vectors.

    Raises:
        UserError: a file or column is missing, or a feature would leak what comes later.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--input {folder}: no such folder")
    parts = [folder / part for part in PARTS if (folder / part).is_dir()] or [folder]
    behaviors = _scan([part / "behaviors.parquet" for part in parts], BEHAVIORS)
    history = _scan([part / "history.parquet" for part in parts], HISTORY)
    user = list(USER if sample_features is None else sample_features)
    article = list(ARTICLE if item_features is None else item_features)
    _refuse_leaks(user + article)
    require_columns(parts[0] / "behaviors.parquet", behaviors.collect_schema().names(), user)
    samples = [Feature(name, "categorical") for name in (*user, *TIME)]
    return Log(
        events=_events(behaviors, history, user).with_row_index("row"),
        item_table=partial(_item_table, folder, article, embeddings),
        label="click",
        split=Split() if len(parts) == 1 else Split(starts=_validation_week(parts[1])),
        source=f"EB-NeRD, from {folder.name}",
        licence=LICENCE,
        sample_features=samples,
    )


def _events(behaviors: pl.LazyFrame, history: pl.LazyFrame, user: list[str]) -> pl.LazyFrame:
    shown = behaviors.explode("article_ids_inview", empty_as_null=False).filter(
        pl.col("article_ids_inview").is_not_null()
    )
    clicked = pl.col("article_ids_clicked").list.contains(pl.col("article_ids_inview"))
    clicked = clicked.fill_null(False)
    when = pl.col("impression_time")
    shown = shown.select(
        user=pl.col("user_id").cast(pl.Int64),
        item=pl.col("article_ids_inview").cast(pl.Int64),
        time=when.cast(pl.Datetime("us")).cast(pl.Int64),
        label=clicked.cast(pl.Int8),
        positive=clicked,
        **{name: pl.col(name).cast(pl.Int64) for name in user},
        impression_hour=when.dt.hour().cast(pl.Int64),
        impression_weekday=when.dt.weekday().cast(pl.Int64),
    )
    read = history.explode("article_id_fixed", "impression_time_fixed", empty_as_null=False)
    read = read.filter(pl.col("article_id_fixed").is_not_null()).select(
        user=pl.col("user_id").cast(pl.Int64),
        item=pl.col("article_id_fixed").cast(pl.Int64),
        time=pl.col("impression_time_fixed").cast(pl.Datetime("us")).cast(pl.Int64),
        label=pl.lit(None, pl.Int8),
        positive=pl.lit(True),
    )
    return pl.concat([read, shown], how="diagonal")


def _item_table(
    folder: Path,
    names: list[str],
    embeddings: str | Path | None,
    items: pl.DataFrame,
    times_N: NDArray,
) -> tuple[pl.DataFrame, dict[str, dict]]:
    """Articles with their features; without ``articles.parquet`` these are unknown."""
    path = folder / "articles.parquet"
    features = [Feature("article_id", "categorical")]
    table = items.select(article_id="item")
    if path.exists():
        articles = _scan([path], ("article_id", *names)).select("article_id", *names).collect()
        articles = articles.with_columns(pl.col("article_id").cast(pl.Int64))
        double = articles.filter(pl.col("article_id").is_duplicated())
        if len(double):
            raise UserError(f"{path}: article {double['article_id'][0]} stands twice; keep one row")
        table = table.join(articles, on="article_id", how="left", maintain_order="left")
    elif names:
        print(f"{path}: not there; {', '.join(names)} of every article are unknown")
        unknown = {n: pl.List(pl.Int64) if n == "subcategory" else pl.Int64 for n in names}
        table = table.with_columns(pl.lit(None, kind).alias(n) for n, kind in unknown.items())
    for name in names:
        lists = isinstance(table.schema[name], pl.List)
        features.append(Feature(name, "sequence" if lists else "categorical"))
    if embeddings is not None:
        vectors = _scan([Path(embeddings)], ("article_id",)).collect()
        name = next(
            (n for n, kind in vectors.schema.items() if isinstance(kind, pl.List | pl.Array)), None
        )
        if name is None:
            raise UserError(f"{embeddings}: has no column of vectors beside article_id")
        vectors = vectors.select(
            pl.col("article_id").cast(pl.Int64),
            pl.col(name).cast(pl.List(pl.Float32)).alias("embedding"),
        )
        table = table.join(vectors, on="article_id", how="left", maintain_order="left")
        features.append(Feature("embedding", "embedding"))
    return item_table(table, features, times_N)


def _validation_week(part: Path) -> tuple[int, int]:
    """The first moment of the validation folder, and the one that halves its impressions."""
    time = pl.col("impression_time").cast(pl.Datetime("us")).cast(pl.Int64)
    times = _scan([part / "behaviors.parquet"], BEHAVIORS).select(
        time.min().alias("first"), time.quantile(0.5, "lower").cast(pl.Int64).alias("middle")
    )
    return times.collect().row(0)


def _scan(paths: list[Path], columns: tuple[str, ...]) -> pl.LazyFrame:
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such file; a folder of EB-NeRD has behaviors.parquet and history.parquet, "
                "or train/ and validation/ with one of each"
            )
        with readable(path):
            names = pl.scan_parquet(path).collect_schema().names()
        require_columns(path, names, list(columns))
    return pl.concat([pl.scan_parquet(path) for path in paths], how="vertical_relaxed")


def _refuse_leaks(names: list[str]) -> None:
    for name in names:
        if name in LEAKS:
            raise UserError(f"feature {name}: {LEAKS[name]}; a model that reads it sees the future")
