"""Small random logs in the exact forms of public ones, with the traps that these have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS = 12, 60


def _events(
    rng: np.random.Generator, start: int, end: int, count: int
) -> list[tuple[int, int, int]]:
    """User, item and second; items repeat."""
    seconds = np.sort(rng.integers(start, end, size=count))
    return [(int(rng.integers(1, 1 + USERS)), int(rng.integers(ITEMS)), int(t)) for t in seconds]


def write_taobao(folder: Path, seed: int = 0) -> list[tuple]:
    """``UserBehavior.csv`` without a header; returns the rows that are inside of its nine days.

    Some rows lie outside, one twice, and an item changes its category.
    """
    rng = np.random.default_rng(seed)
    events = _events(rng, 1511539200, 1512316800, 600)
    rows = [
        (u, 2268 + i, 2520 + i % 7 + (t % 50 == 0), rng.choice(["pv", "fav", "cart", "buy"]), t)
        for u, i, t in events
    ]
    outside = [
        (2, 31, 4145813, "buy", -1),
        (3, 32, 2520, "pv", 2_122_867_355),
        (4, 33, 2520, "pv", 0),
    ]
    shuffled = [*rows, rows[7], *outside]
    rng.shuffle(shuffled)
    folder.mkdir(parents=True)
    (folder / "UserBehavior.csv").write_text(
        "".join(",".join(map(str, row)) + "\n" for row in shuffled)
    )
    return rows


def write_lfm(folder: Path, seed: int = 0) -> list[tuple]:
    """``LFM-1b_LEs.txt``, tabs and no header; returns its rows."""
    rng = np.random.default_rng(seed)
    events = _events(rng, 1385212000, 1395212000, 500)
    rows = [(300 + u, i % 9, i % 20, 10**7 + i, t) for u, i, t in events]
    folder.mkdir(parents=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (folder / "LFM-1b_LEs.txt").write_text(text)
    (folder / "LFM-1b_artists.txt").write_text('3\tThe "X" Band\n')
    return rows


def write_amazon_reviews(folder: Path, header: bool, seed: int = 0) -> list[tuple]:
    """``Toys.csv`` in milliseconds, with or without a header; returns its rows. No review repeats."""
    rng = np.random.default_rng(seed)
    events = {(u, i): t for u, i, t in _events(rng, 1452647000, 1658002729, 500)}
    rows = [
        (f"AGKX{u}", f"B{i:03}", float(rng.integers(1, 6)), 1000 * t + int(rng.integers(1000)))
        for (u, i), t in events.items()
    ]
    lines = [",".join(map(str, row)) for row in rows]
    names = ["user_id,parent_asin,rating,timestamp"] if header else []
    folder.mkdir(parents=True)
    (folder / "Toys.csv").write_text("\n".join([*names, *lines]) + "\n")
    return rows


def write_yambda(folder: Path, sequential: bool, seed: int = 0) -> pl.DataFrame:
    """``listens.parquet``, flat or with a row for each user; returns the flat one."""
    rng = np.random.default_rng(seed)
    events = _events(rng, 0, 26_000_000, 700)
    kinds = {"uid": pl.UInt32, "timestamp": pl.UInt32, "item_id": pl.UInt32, "is_organic": pl.UInt8}
    kinds |= {"played_ratio_pct": pl.UInt16, "track_length_seconds": pl.UInt32}
    rows = [
        (10 * u, t // 20_000 * 5, 7 + 3 * i, i % 2, int(rng.choice([3, 49, 50, 100, 130])), 100 + i)
        for u, i, t in events
    ]
    flat = pl.DataFrame(rows, kinds, orient="row").sort("uid", "timestamp", maintain_order=True)
    folder.mkdir(parents=True)
    table = flat.group_by("uid", maintain_order=True).all() if sequential else flat
    table.write_parquet(folder / "listens.parquet")
    return flat
