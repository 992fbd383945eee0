"""EB-NeRD, the Ekstra Bladet news data, from its raw files: will the user click this article?

Each article that an impression showed is a sample, and its label says whether it was clicked. The
history of a sample holds every click of the user before the moment of the impression, from
``history.parquet`` and from earlier impressions.

What is known only after the moment of an impression is no feature. This excludes the time and the
scrolling of the impression itself and of the article that is read next (``next_*``). It also
excludes the articles' counts of views, which were taken at the end of the collection.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ...common.errors import UserError
from ..raw.source import ROW, Source, require_unique
from ..writing.encoders import Encoders
from ..writing.features import Feature
from ..writing.log import Log
from ..writing.samples import Split

LICENCE = "Ekstra Bladet: research use (https://recsys.eb.dk/)"
USER = ("device_type", "is_sso_user", "gender", "postcode", "age", "is_subscriber")
MOMENT = ("impression_hour", "impression_weekday")
ARTICLE = ("category", "article_type", "sentiment_label", "premium", "subcategory")
BEHAVIORS = ("user_id", "impression_time", "article_ids_inview", "article_ids_clicked")
HISTORY = ("user_id", "article_id_fixed", "impression_time_fixed")
PARTS = ("train", "validation")
LEAKS = {
    "is measured after the impression": ("next_read_time", "next_scroll_percentage"),
    "is measured during the impression": ("read_time", "scroll_percentage"),
    "counts until the end of the collection": (
        "total_inviews",
        "total_pageviews",
        "total_read_time",
    ),
}


def load(
    folder: str | Path,
    sample_features: Iterable[str] | None = None,
    item_features: Iterable[str] | None = None,
    embeddings: str | None = None,
) -> Log:
    """The log of an EB-NeRD folder.

    Args:
        folder: holds ``behaviors.parquet`` and ``history.parquet``, split in time into 80, 10 and
            10 % of the samples; or ``train/`` and ``validation/`` with one of each, whose second
            half of the validation week becomes the test. ``articles.parquet`` may lie there.
        sample_features: columns of the behaviors, by default ``USER``. The hour and the weekday
            are always features too.
        item_features: columns of the articles, by default ``ARTICLE``.
        embeddings: a Parquet file with ``article_id`` and a column of vectors.

    Raises:
        UserError: a file or column is missing, a feature tells what comes after the impression, or
            the validation week is empty.
    """
    folder = Path(folder)
    user = tuple(USER if sample_features is None else sample_features)
    article = tuple(ARTICLE if item_features is None else item_features)
    for why, names in LEAKS.items():
        if leak := {*user, *article}.intersection(names):
            raise UserError(
                f"feature {min(leak)} {why}, so a model that reads it sees the future; leave it out"
            )
    parts = [folder / part for part in PARTS if (folder / part).is_dir()] or [folder]
    behaviors = [_scan(part / "behaviors.parquet", *BEHAVIORS, *user) for part in parts]
    history = [_scan(part / "history.parquet", *HISTORY) for part in parts]
    split = Split()
    if len(parts) > 1:  # from the first moment of the second part on, and from its middle on
        moment = _microseconds("impression_time")
        edges = behaviors[1].select(moment.min(), middle=moment.quantile(0.5, "lower"))
        first, middle = edges.collect().row(0)
        if first is None:
            raise UserError(
                f"{parts[1] / 'behaviors.parquet'} has no impressions; name data with some"
            )
        split = Split(starts=(first, int(middle)))
    events = [*map(_read, history), *(_shown(shown, user) for shown in behaviors)]
    return Log(
        events=pl.concat(events, how="diagonal").with_row_index("row"),
        item_table=partial(_item_table, folder / "articles.parquet", article, embeddings),
        label="click",
        split=split,
        about={"source": f"EB-NeRD, from {folder.name}", "licence": LICENCE},
        sample_features=[Feature(name, "categorical") for name in (*user, *MOMENT)],
        time_unit="us",
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


def _shown(behaviors: pl.LazyFrame, user: tuple[str, ...]) -> pl.LazyFrame:
    """The articles that impressions showed."""
    item, time = "article_ids_inview", "impression_time"
    clicked = pl.col("article_ids_clicked").list.contains(pl.col(item)).fill_null(False)
    columns = {"label": clicked.cast(pl.Int8), "positive": clicked}
    columns |= {name: pl.col(name).cast(pl.Int64) for name in user}
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
    path: Path,
    names: tuple[str, ...],
    embeddings: str | None,
    items: pl.DataFrame,
    times_N: NDArray,
    encoders: Encoders,
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Articles with their features; without ``articles.parquet`` these are unknown."""
    table = items.rename({"item": "article_id"})
    if path.exists():
        table = _joined(table, path, names)
    elif names:
        print(f"{path} is not there, so {', '.join(names)} of every article are unknown")
        kinds = {n: pl.List(pl.Int64) if n == "subcategory" else pl.Int64 for n in names}
        table = table.with_columns(pl.lit(None, kind).alias(n) for n, kind in kinds.items())
    features = [
        Feature(n, "sequence" if isinstance(table.schema[n], pl.List) else "categorical")
        for n in ("article_id", *names)
    ]
    if embeddings is not None:
        schema = _scan(Path(embeddings), "article_id").collect_schema()
        vectors = [n for n, kind in schema.items() if isinstance(kind, pl.List | pl.Array)]
        if not vectors:
            raise UserError(
                f"{embeddings} has no column of vectors, only {', '.join(schema)}; name another file"
            )
        table = _joined(table, Path(embeddings), vectors[:1]).rename({vectors[0]: "embedding"})
        features.append(Feature("embedding", "embedding"))
    return encoders.item_table(table, features, times_N)


def _joined(table: pl.DataFrame, path: Path, names: Sequence[str]) -> pl.DataFrame:
    """The articles with columns of a file."""
    more = _scan(path, "article_id", *names).select("article_id", *names).collect()
    require_unique(path, "article", more["article_id"])
    more = more.cast({"article_id": pl.Int64})
    return table.join(more, on="article_id", how="left", maintain_order="left")
