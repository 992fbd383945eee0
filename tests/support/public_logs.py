"""Small random logs in the exact forms of public ones, with the traps that these have."""

import json
from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS = 12, 60
LEAST = -9_200_000_000_000_000_000  # an id that neither a fraction nor 32 bits can hold


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


def write_taobao_mm(folder: Path) -> dict[str, pl.DataFrame]:
    """The joined shards in their schema; users have lists of 3, 351 and 1,000 items."""
    rng = np.random.default_rng(0)
    items = [LEAST, *rng.integers(-(2**63), 2**63 - 1, size=80).tolist()]
    codes = {item: (int(item % 7), int(item % 3), int(item % 2)) for item in items}
    parts = {}
    for part, rows_of_user in {"train": 20, "test": 10}.items():
        rows = []
        for user, length in ((-5, 3), (7, 351), (LEAST, 1000), *((u, 5) for u in range(50, 80))):
            if part == "test" and user == 7:
                continue
            shown = rng.choice(items[: 3 if length == 3 else None], size=length).tolist()
            for n in range(rows_of_user):
                item = int(rng.choice(items))
                row = {"label_0": [0, 1] if n % 10 == 9 else [1, 0], "129_1": user}
                row |= {f"130_{k}": 1 + (user + k) % 4 for k in range(1, 5)}
                row |= {"130_5": 0 if user == 7 else 2}
                row |= {"150_2_180": shown, "151_2_180": [codes[i][0] for i in shown], "205": item}
                rows.append(row | dict(zip(("206", "213", "214"), codes[item], strict=True)))
        kinds = {"label_0": pl.List(pl.Int8), "150_2_180": pl.List(pl.Int64)}
        table = pl.DataFrame(rows, schema_overrides=kinds | {"151_2_180": pl.List(pl.Int64)})
        (folder / part).mkdir(parents=True)
        for i, shard in enumerate(table.iter_slices(300)):
            shard.write_parquet(folder / part / f"{part}-shard-{i:06d}.parquet", compression="zstd")
        (folder / part / "metadata.json").write_text(json.dumps({"mode": part}))
        parts[part] = table
    return parts


def write_mind(folder: Path) -> dict[str, list[tuple]]:
    """Behaviours and news of both parts, without headers; news stand in both, and have bare quotes.

    Returns:
        ``(user, news, label, history, impression)`` of each part.
    """
    rng = np.random.default_rng(1)
    samples: dict[str, list[tuple]] = {}
    before = {f"U{u}": [f"N{n}" for n in rng.integers(60, size=u)] for u in range(25)}
    for part, day in {"MINDsmall_train": 9, "MINDsmall_dev": 15}.items():
        (folder / part).mkdir(parents=True)
        lines, found = [], []
        for n in range(120):
            user = f"U{rng.integers(25)}"
            shown = rng.choice(60, size=rng.integers(2, 6), replace=False)
            clicked = rng.integers(len(shown))
            time = f"11/{day + n // 40}/2019 {1 + n % 12}:{n % 60:02d}:22 {'AP'[n % 2]}M"
            candidates = [(f"N{i}", int(k == clicked)) for k, i in enumerate(shown)]
            texts = [" ".join(before[user]), " ".join(f"{i}-{y}" for i, y in candidates)]
            lines.append("\t".join([str(n + 1), user, time, *texts]))
            found += [(user, item, label, before[user], n) for item, label in candidates]
        (folder / part / "behaviors.tsv").write_text("\n".join(lines) + "\n")
        news = [
            f'N{i}\tc{i % 4}\ts{i % 7}\tThe "X" of {i}\t\thttps://a.b/{i}\t[]\t[{{"Label": "x"}}]'
            for i in range(60 if part.endswith("dev") else 50)
        ]
        (folder / part / "news.tsv").write_text("\n".join(news) + "\n")
        samples[part] = found
    return samples
