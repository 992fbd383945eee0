"""What needs no model: the loader, the metrics, and the preparation of a data set."""

import resource
import shutil
from argparse import Namespace
from collections.abc import Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from fuxictr.metrics import evaluate_metrics as fuxictr_metrics
from torch import Tensor

from model_zoo.batch import Batch
from model_zoo.training.metrics import evaluate_metrics

from ..common.errors import UserError
from ..common.places import HOME
from ..loader.loader import SequenceLoader
from ..run.cpu import keep_freed_memory
from . import rivals
from .child import in_own_process, run_python, with_peak
from .harness import Case, Report
from .inputs import SIZE, ensure_data, feature_map

RIVAL, LAZY, READ = "LongCTR's loader", "ours, no feature read", "ours, all features read"
FEW = 40  # users of the data set with which libraries are warmed up
METRICS = ["AUC", "gAUC", "logloss"]
BLOCK = 1_000_000  # rows of a log that are drawn at a time
COLUMNS = "--user user --item item --time time --label click --item-features category "
COLUMNS += "--sample-features place"


def loader(report: Report, args: Namespace) -> None:
    """Loader: one shuffled training batch of MicroVideo1.7M_x2's shape.

    The data set is generated, or it is that of --data. The rival, LongCTR's loader, builds every item
    feature of every position on the host. It runs without worker processes. Ours is measured in two
    ways. With no feature read, labels, indices, lengths and mask are there, but no item feature is
    gathered yet. That is what our models take, for they gather once per distinct item. With all
    features read, the batch is LongCTR's.
    """
    rival = args.longctr and rivals.load_class(args.longctr, rivals.LOADER, "LongCTRDataLoader")
    folder, few = Path(args.data or args.folder / "microvideo"), args.folder / "few"
    ensure_data(folder, SIZE, args.users)
    ensure_data(few, SIZE, FEW)
    sizes: dict[str, Any] = {"batch_size": args.batch, "max_len": args.length}
    ours = _loader(folder, **sizes, shuffle=True, device=args.device)
    if len(ours.samples) < args.batch:
        has = f"{folder} has {len(ours.samples)} training samples"
        raise UserError(f"--batch {args.batch}: {has}; write a smaller batch, or more --users")
    lazy, read = _whole_batches(ours), _whole_batches(ours)
    # Indices are read (4 bytes) and written (8), the mask is written; features are read and written.
    tables = ours.items.tables.values()
    features = 2 * sum(table[0].numel() * table.element_size() for table in tables)
    positions = args.batch * (args.length + 1)
    cases = [
        Case(LAZY, lambda: next(lazy), moved=positions * 16),
        Case(READ, lambda: _all_features(next(read), args), moved=positions * (16 + features)),
    ]
    if rival:
        loaders = _loader(folder, **sizes), _loader(folder, rival, **sizes, num_workers=0)
        batches = [next(iter(loader)) for loader in loaders]
        a, b = ([*dict(x[1]).values(), x[2], x[0]["is_click"]] for x in batches)
        report.agree("first batch of both loaders", a, b, tolerance=0.0)
        theirs = _whole_batches(_loader(folder, rival, **sizes, shuffle=True, num_workers=0))
        over = {LAZY: "at least 200", READ: "at least 12"}
        cases.insert(0, Case(RIVAL, lambda: _all_features(next(theirs), args), over))
    resident, loading, epoch = in_own_process(_memory, few, folder, sizes)
    report.notes.append(
        f"resident tables {resident / 1e6:,.1f} MB; peak memory of loading {loading / resident:.2f}x "
        f"that (goal: at most 1.3); an epoch adds {epoch / 1e6:,.1f} MB"
    )
    report.time(cases, args.batch)


def _memory(few: Path, folder: Path, sizes: dict[str, Any]) -> tuple[int, int, int]:
    """Return three sizes in bytes: resident tables, peak of loading, and what an epoch adds.

    The small data set ``few`` is read first, so that the code and the pools of the libraries do not count.
    """
    for _ in _loader(few, **sizes):
        pass
    keep_freed_memory()  # as run_expid.py does
    loader, loading = with_peak(lambda: _loader(folder, **sizes))
    _, epoch = with_peak(lambda: [None for _ in loader])
    return loader.histories.nbytes + loader.items.nbytes + loader.samples.nbytes, loading, epoch


def _loader(folder: Path, loader: Any = SequenceLoader, **options: Any) -> Any:
    """Make a loader of the training data in a folder."""
    files = (folder / f"{name}.parquet" for name in ("train", "user_info", "item_info"))
    return loader(feature_map(), *map(str, files), **options)


def _whole_batches(loader: Any) -> Iterator[Batch]:
    """Yield batches, epoch after epoch, without the smaller batch at the end of each."""
    while True:
        yield from islice(loader, loader.num_samples // loader.batch_size)


def _all_features(batch: Batch, args: Namespace) -> tuple[list[Tensor], Batch]:
    """Bring all item features of a batch to the device, as a LongCTR model reads them."""
    return [rows.to(args.device) for rows in dict(batch[1]).values()], batch


def metrics(report: Report, args: Namespace) -> None:
    """Metrics: AUC, gAUC and logloss of float32 scores with ties.

    A case is one evaluation of a data set: AUC and logloss over all predictions, gAUC over the users.
    The scores are rounded to three digits, so that ties are many. FuxiCTR runs once, for it takes some
    20 seconds for a million predictions. It gets the same scores in float64, as its own models give
    them.
    """
    rng = np.random.default_rng(0)
    group_id = rng.integers(args.users, size=args.rows)
    y_pred = rng.random(args.rows).round(3).astype(np.float32)
    y_true = (rng.random(args.rows) < y_pred).astype(np.float32)
    moved = float(y_pred.nbytes + y_true.nbytes + group_id.nbytes)
    # The rival runs only once, and keeps its values for the comparison.
    rival = cache(partial(fuxictr_metrics, y_true, y_pred.astype(np.float64), METRICS, group_id))
    ours = partial(evaluate_metrics, y_true, y_pred, METRICS, group_id)
    theirs = Case("FuxiCTR", rival, {"ours": "at least 100"}, once=True)
    report.time([theirs, Case("ours", ours, moved=moved)], args.rows)
    found = ours(), rival()
    for name in METRICS:
        a, b = ([torch.tensor(values[name], dtype=torch.float64)] for values in found)
        report.agree(name, a, b, tolerance=1e-9)


def prepare(report: Report, args: Namespace) -> None:
    """Prepare random logs by data/prepare.py generic: time and peak memory of its process.

    There is a log for each of --rows. The first has so many users, and the others have as many rows of
    each user. Linear means that a row takes as long in each log. Where other jobs use the machine, compare
    processor time.
    """
    per_row, log, output = {}, args.folder / "log.csv", args.folder / "data"
    for rows in args.rows:
        write_log(log, rows, max(1, args.users * rows // args.rows[0]))
        command = [str(HOME / "data" / "prepare.py"), "generic", *COLUMNS.split()]
        command += ["--input", str(log), "--output", str(output)]
        before = _processor_time()
        seconds, peak = run_python(*command, log=args.folder / "prepare.txt")
        per_row[rows] = (_processor_time() - before) / rows
        name = f"{rows:,} rows"
        report.record(name, [seconds], rows)
        report.notes.append(
            f"{name}, {log.stat().st_size / 2**30:.2f} GiB: {per_row[rows] * 1e6:.2f} s of processor time "
            f"per million rows; {peak / 2**30:.2f} GiB of memory at most (goal: under 4)"
        )
        shutil.rmtree(output)
    ratio = per_row[args.rows[-1]] / per_row[args.rows[0]]
    what = "processor time of a row, last log over first"
    report.notes.append(f"{what}: {ratio:.2f} (goal: at most 1.3)")


def _processor_time() -> float:
    """Seconds of processor time of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_log(path: Path, rows: int, users: int) -> None:
    """Write a random log whose rows are in no order; it is drawn block by block, to save memory."""
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            item = (rng.random(n) ** 3 * max(users // 2, 1)).astype(np.int64)
            columns = {
                "user": rng.integers(users, size=n),
                "item": item,
                "time": 1_600_000_000 + rng.integers(365 * 86_400, size=n),
                "click": (rng.random(n) < 0.3).astype(np.int8),
                "category": item % 300,
                "place": rng.integers(20, size=n),
            }
            pl.DataFrame(columns).write_csv(file, include_header=start == 0)
