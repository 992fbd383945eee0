"""``data/prepare.py generic`` on a random log, as a process of its own: time and peak memory.

Against a plain streaming pass of polars over the same file (count and a sum), which is the least
that any preparation has to do once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from .process import ROOT, run_python
from .timing import Report

BLOCK = 1_000_000  # rows drawn at a time
PREPARE, PASS = "data/prepare.py generic", "one pass of polars"
SCAN = """
import polars as pl, sys
path = sys.argv[1]
scan = pl.scan_csv if path.endswith(".csv") else pl.scan_parquet
print(scan(path).select(pl.len(), pl.col("time").sum()).collect(engine="streaming"))
"""


def measure(rows: int, users: int, form: str, folder: Path) -> Report:
    """See the module.

    Args:
        rows: interactions.
        users: users; half as many items.
        form: ``csv`` or ``parquet``.
        folder: for the log and the data set.
    """
    log = folder / f"log.{form}"
    write_log(log, rows, users)
    columns = ["--user", "user", "--item", "item", "--time", "time", "--label", "click"]
    features = ["--item-features", "category", "--sample-features", "place"]
    prepare = [
        str(ROOT / "data" / "prepare.py"),
        "generic",
        "--input",
        str(log),
        *columns,
        *features,
    ]
    prepare += ["--output", str(folder / "data")]
    ours = run_python(*prepare, log=folder / "prepare.txt")
    one_pass = run_python("-c", SCAN, str(log), log=folder / "pass.txt")
    return Report(
        title="data/prepare.py generic",
        settings={"rows": f"{rows:,}", "users": f"{users:,}", "form": form},
        samples=rows,
        seconds={PREPARE: [ours.seconds], PASS: [one_pass.seconds]},
        ratios={"time of one pass over the file": (PREPARE, PASS, "")},
        notes=[
            f"the log: {log.stat().st_size / 2**30:.2f} GiB on disk",
            f"peak memory of data/prepare.py: {ours.peak_bytes / 2**30:.2f} GiB (goal: under 4 at 50M rows)",
        ],
    )


def write_log(path: Path, rows: int, users: int, seed: int = 0) -> None:
    """A random log in no order, with text ids."""
    rng = np.random.default_rng(seed)
    writer = None
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        item = (rng.random(n) ** 3 * max(users // 2, 1)).astype(np.int64)
        table = pa.table(
            {
                "user": pa.array(rng.integers(users, size=n)).cast(pa.string()),
                "item": pa.array(item).cast(pa.string()),
                "time": 1_600_000_000 + rng.integers(365 * 86_400, size=n),
                "click": (rng.random(n) < 0.3).astype(np.int8),
                "category": item % 300,
                "place": rng.integers(20, size=n),
            }
        )
        if writer is None:
            kind = pyarrow.csv.CSVWriter if path.suffix == ".csv" else pyarrow.parquet.ParquetWriter
            writer = kind(path, table.schema)
        writer.write_table(table)
    writer.close()
