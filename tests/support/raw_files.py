"""Random raw files in the forms of EB-NeRD and KuaiRand."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2023, 5, 18)
SHOWN = pl.List(pl.Int32)


def write_ebnerd(folder: Path, seed: int = 0, users: int = 25, articles: int = 60) -> None:
    """``train/`` and ``validation/`` of a week each, and ``articles.parquet``.

    Histories reach into the week before and, in the validation folder, over the training week, as
    the real ones do.
    """
    rng = np.random.default_rng(seed)
    clicks: dict[int, list[tuple[datetime, int]]] = {}
    for user in range(100, 100 + users):
        moments = sorted(rng.integers(7 * 24 * 60, size=rng.integers(0, 12)).tolist())
        before = START - timedelta(days=7)
        clicks[user] = [
            (before + timedelta(minutes=m), int(rng.integers(articles))) for m in moments
        ]
    for week, part in enumerate(("train", "validation")):
        (folder / part).mkdir(parents=True)
        history = [(u, [t for t, _ in c], [i for _, i in c]) for u, c in clicks.items()]
        rows = [_impression(rng, week, users, articles) for _ in range(200)]
        for row in rows:
            clicks[row["user_id"]] += [
                (row["impression_time"], i) for i in row["article_ids_clicked"]
            ]
        types = {"article_ids_inview": SHOWN, "article_ids_clicked": SHOWN, "gender": pl.Int8}
        pl.DataFrame(rows, schema_overrides=types).write_parquet(
            folder / part / "behaviors.parquet"
        )
        names = ["user_id", "impression_time_fixed", "article_id_fixed"]
        kinds = [pl.UInt32, pl.List(pl.Datetime("us")), SHOWN]
        table = pl.DataFrame(history, dict(zip(names, kinds, strict=True)), orient="row")
        table.write_parquet(folder / part / "history.parquet")
    pl.DataFrame(
        {
            "article_id": pl.Series(range(articles - 5), dtype=pl.Int32),  # some are missing
            "category": rng.integers(5, size=articles - 5),
            "article_type": rng.choice(["article_default", "video"], size=articles - 5),
            "sentiment_label": rng.choice(["Positive", "Neutral"], size=articles - 5),
            "premium": rng.random(articles - 5) < 0.3,
            "subcategory": [rng.integers(9, size=i % 4).tolist() for i in range(articles - 5)],
            "total_pageviews": rng.integers(1000, size=articles - 5),
        }
    ).write_parquet(folder / "articles.parquet")


def _impression(rng: np.random.Generator, week: int, users: int, articles: int) -> dict:
    shown = rng.choice(articles, size=rng.integers(1, 8), replace=False).tolist()
    clicked = rng.choice(shown, size=min(len(shown), int(rng.random() < 0.9)), replace=False)
    moment = START + timedelta(days=7 * week, minutes=int(rng.integers(7 * 24 * 60)))
    return {
        "impression_time": moment,
        "user_id": int(100 + rng.integers(users)),
        "article_ids_inview": shown,
        "article_ids_clicked": clicked.tolist(),
        "device_type": int(rng.integers(1, 4)),
        "is_sso_user": bool(rng.random() < 0.5),
        "gender": None if rng.random() < 0.7 else int(rng.integers(2)),
        "postcode": None,
        "age": int(rng.integers(2, 6) * 10),
        "is_subscriber": bool(rng.random() < 0.5),
        "read_time": float(rng.random()),
        "next_read_time": float(rng.random()),
    }


def write_kuairand(folder: Path, seed: int = 0) -> pl.DataFrame:
    """Two standard logs, one of random exposures, and the basic video features; returns the
    standard log."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    n, videos = 3000, 80
    log = pl.DataFrame(
        {
            "user_id": rng.integers(20, size=n),
            "video_id": rng.integers(videos, size=n),
            "hourmin": rng.integers(24, size=n) * 100,
            "time_ms": 1_650_000_000_000 + rng.permutation(n) * 1000,
            "is_click": (rng.random(n) < 0.4).astype(int),
            "long_view": (rng.random(n) < 0.2).astype(int),
            "tab": rng.integers(5, size=n),
        }
    )
    log[: n // 2].write_csv(folder / "log_standard_4_08_to_4_21_1k.csv")
    log[n // 2 :].write_csv(folder / "log_standard_4_22_to_5_08_1k.csv")
    log[:50].write_csv(folder / "log_random_4_22_to_5_08_1k.csv")
    pl.DataFrame(
        {
            "video_id": range(videos),
            "author_id": rng.integers(30, size=videos),
            "video_type": rng.choice(["NORMAL", "AD"], size=videos),
            "upload_type": rng.choice(["LongImport", "Web"], size=videos),
            "music_id": rng.integers(40, size=videos),
            "tag": [
                "" if i % 7 == 0 else ",".join(map(str, range(i % 3 + 1))) for i in range(videos)
            ],
        }
    ).write_csv(folder / "video_features_basic_1k.csv")
    return log
