"""EB-NeRD, the Ekstra Bladet news data, from its raw files: will the user click this article?

Each article that an impression showed is a sample, and its label says whether it was clicked. The
history of a sample holds every click of the user before the moment of the impression, from
``history.parquet`` and from earlier impressions.

What is known only after the moment of an impression is no feature. This excludes the time and the
scrolling of the impression itself and of the article that is read next (``next_*``). It also
excludes the articles' counts of views, which were taken at the end of the collection.
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
USER = ("device_type", "is_sso_user", "gender", "postcode", "age", "is_subscriber")
MOMENT = ("impression_hour", "impression_weekday")
ARTICLE = ("article_id", "category", "article_type", "sentiment_label", "premium", "subcategory")
BEHAVIORS = ("user_id", "impression_time", "article_ids_inview", "article_ids_clicked", *USER)
HISTORY = ("user_id", "article_id_fixed", "impression_time_fixed")
PARTS = ("train", "validation")


def load(folder: str | Path) -> Log:
    """The log of an EB-NeRD folder.

    Args:
        folder: holds ``behaviors.parquet`` and ``history.parquet``, split in time into 80, 10 and
            10 % of the samples; or ``train/`` and ``validation/`` with one of each, whose second
            half of the validation week becomes the test. ``articles.parquet`` may lie there.

    Raises:
        UserError: a file or column is missing, or the validation week is empty.
    """
    folder = Path(folder)
    parts = [folder / part for part in PARTS if (folder / part).is_dir()] or [folder]
    behaviors = [_scan(part / "behaviors.parquet", *BEHAVIORS) for part in parts]
    history = [_scan(part / "history.parquet", *HISTORY) for part in parts]
    split = Split()
    if len(parts) > 1:  # from the first moment of the second part on, and from its middle on
        moment = _microseconds("impression_time")
        edges = behaviors[1].select(moment.min(), moment.quantile(0.5, "lower").alias("middle"))
        first, middle = edges.collect().row(0)
        if first is None:
            raise UserError(
                f"{parts[1] / 'behaviors.parquet'} has no impressions; name data with some"
            )
        split = Split(starts=(first, int(middle)))
    events = [*map(_read, history), *map(_shown, behaviors)]
    return Log(
        events=pl.concat(events, how="diagonal").with_row_index("row"),
        item_table=partial(_item_table, folder / "articles.parquet"),
        label="click",
        split=split,
        about={"source": f"EB-NeRD, from {folder.name}", "licence": LICENCE},
        sample_features=[Feature(name, "categorical") for name in (*USER, *MOMENT)],
    )


def _scan(path: Path, *columns: str) -> pl.LazyFrame:
    """A file, once it is there and has the columns."""
    table = Source(path)
    table.require(*columns)
    return table.frame.drop(ROW)


def _read(history: pl.LazyFrame) -> pl.LazyFrame:
    """The articles that users read before."""
    item, time = "article_id_fixed", "impression_time_fixed"
    read = history.explode(item, time, empty_as_null=False)
    return _events(read, item, time, label=pl.lit(None, pl.Int8), positive=pl.lit(True))


def _shown(behaviors: pl.LazyFrame) -> pl.LazyFrame:
    """The articles that impressions showed."""
    item, time = "article_ids_inview", "impression_time"
    clicked = pl.col("article_ids_clicked").list.contains(pl.col(item)).fill_null(False)
    columns = {"label": clicked.cast(pl.Int8), "positive": clicked}
    columns |= {name: pl.col(name).cast(pl.Int64) for name in USER}
    columns["impression_hour"] = pl.col(time).dt.hour().cast(pl.Int64)
    columns["impression_weekday"] = pl.col(time).dt.weekday().cast(pl.Int64)
    return _events(behaviors.explode(item, empty_as_null=False), item, time, **columns)


def _events(table: pl.LazyFrame, item: str, time: str, **columns: pl.Expr) -> pl.LazyFrame:
    """Events of a ``Log``."""
    keys = {"user": pl.col("user_id"), "item": pl.col(item), "time": _microseconds(time)}
    whole = {name: key.cast(pl.Int64) for name, key in keys.items()}
    return table.select(**whole, **columns)


def _microseconds(time: str) -> pl.Expr:
    return pl.col(time).cast(pl.Datetime("us")).cast(pl.Int64)


def _item_table(
    path: Path, items: pl.DataFrame, times_N: NDArray
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Articles with their features; without ``articles.parquet`` these are unknown."""
    if path.exists():
        articles = _scan(path, *ARTICLE).select(ARTICLE).cast({"article_id": pl.Int64}).collect()
        require_unique(path, "article", articles["article_id"])
    else:
        print(f"{path} is not there, so the features of every article are unknown")
        articles = pl.DataFrame(schema=dict.fromkeys(ARTICLE, pl.Int64))
        articles = articles.with_columns(subcategory=pl.lit([], pl.List(pl.Int64)))
    table = items.join(
        articles, left_on="item", right_on="article_id", how="left", maintain_order="left"
    )
    features = [
        Feature(name, "sequence" if name == "subcategory" else "categorical") for name in ARTICLE
    ]
    return item_table(table.rename({"item": "article_id"}), features, times_N)
