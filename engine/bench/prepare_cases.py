"""``data/prepare.py generic`` on a random log, as a process of its own: time and peak memory."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from ..common.places import HOME
from .child import run_python
from .harness import Report

BLOCK = 1_000_000  # rows drawn at a time
COLUMNS = "--user user --item item --time time --label click --item-features category"
DEFAULTS = {"rows": 50_000_000, "users": 400_000}


def measure(args: argparse.Namespace) -> Report:
    """Prepare a log of so many rows and users."""
    log, data = args.folder / "log.csv", args.folder / "data"
    write_log(log, args.rows, args.users)
    command = [str(HOME / "data" / "prepare.py"), "generic", "--input", str(log), *COLUMNS.split()]
    command += ["--sample-features", "place", "--output", str(data)]
    seconds, peak = run_python(*command, log=args.folder / "prepare.txt")
    report = Report("data/prepare.py generic", args)
    report.record("data/prepare.py generic", [seconds], args.rows)
    report.notes.append(
        f"the log has {log.stat().st_size / 2**30:.2f} GiB; data/prepare.py took "
        f"{peak / 2**30:.2f} GiB of memory at most (goal: under 4 at 50M rows)"
    )
    return report


def write_log(path: Path, rows: int, users: int) -> None:
    """Write a random log in no order, block by block."""
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            item = (rng.random(n) ** 3 * max(users // 2, 1)).astype(np.int64)
            columns = {
                "user": rng.integers(users, size=n),
                "item": item,
                "time": 1_600_000_000 + rng.integers(365 * 86_400, size=n),
                "click": rng.random(n) < 0.3,
                "category": item % 300,
                "place": rng.integers(20, size=n),
            }
            block = pl.DataFrame(columns).with_columns(pl.col("click").cast(pl.Int8))
            block.write_csv(file, include_header=start == 0)
