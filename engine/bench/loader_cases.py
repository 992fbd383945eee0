"""The loader: ``SequenceLoader`` against LongCTR's ``LongCTRDataLoader`` without worker processes.

Each case makes one shuffled training batch:

- LongCTR's loader builds every item feature of every position on the host;
- ours, no feature read: labels, indices, lengths and mask are there, item features are not yet
  gathered. This is what our models take, for they gather once per distinct item;
- ours, all features read: also every feature of ``item_dict``, which is then LongCTR's batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from model_zoo.batch import Batch

from ..common.errors import UserError
from ..loader.loader import SequenceLoader
from ..run.cpu import keep_freed_memory
from . import rivals
from .child import in_own_process, with_peak
from .harness import COMMON, Case, Report
from .inputs import SIZE, ensure_data, feature_map

RIVAL, LAZY, READ = "LongCTR's loader", "ours, no feature read", "ours, all features read"
FEW = 40  # users of the data set with which libraries are warmed up
DEFAULTS = COMMON | {"batch": 8192, "repeats": 7, "length": 200, "data": None}
DEFAULTS |= {"users": SIZE.users, "longctr": None}


def measure(args: argparse.Namespace) -> Report:
    """Time the loaders on a generated data set, or on that of ``--data``."""
    rival = args.longctr and rivals.load_class(args.longctr, rivals.LOADER, "LongCTRDataLoader")
    folder, few = Path(args.data or args.folder / "microvideo"), args.folder / "few"
    ensure_data(folder, SIZE, args.users)
    ensure_data(few, SIZE, FEW)
    sizes: dict[str, Any] = {"batch_size": args.batch, "max_len": args.length}
    shuffled = sizes | {"shuffle": True}
    ours = _loader(folder, **shuffled, device=args.device)
    if len(ours.samples) < args.batch:
        raise UserError(
            f"--batch {args.batch}: {folder} has {len(ours.samples)} training samples; "
            "write a smaller batch, or more --users"
        )
    report = Report("Loader: one shuffled training batch of MicroVideo1.7M_x2's shape", args)
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
        own = next(iter(_loader(folder, **sizes)))
        theirs = next(iter(_loader(folder, rival, **sizes, num_workers=0)))
        a, b = ([*dict(x[1]).values(), x[2], x[0]["is_click"]] for x in (own, theirs))
        report.agree("first batch of both loaders", a, b, tolerance=0.0)
        batches = _whole_batches(_loader(folder, rival, **shuffled, num_workers=0))
        over = {LAZY: "at least 200", READ: "at least 12"}
        cases.insert(0, Case(RIVAL, lambda: _all_features(next(batches), args), over))
    resident, loading, epoch = in_own_process(_memory, few, folder, sizes)
    report.notes.append(
        f"resident tables {resident / 1e6:,.1f} MB; peak memory of loading {loading / resident:.2f}x "
        f"that (goal: at most 1.3); an epoch adds {epoch / 1e6:,.1f} MB"
    )
    report.time(cases, args.batch, args.repeats)
    return report


def _memory(few: Path, folder: Path, sizes: dict[str, Any]) -> tuple[int, int, int]:
    """Bytes of the resident tables, at the peak of loading them, and of an epoch on top of them.

    The data set ``few`` is read before: code and pools of the libraries are not the tables'.
    """
    for _ in _loader(few, **sizes):
        pass
    keep_freed_memory()  # as run_expid.py does
    loader, loading = with_peak(lambda: _loader(folder, **sizes))
    _, epoch = with_peak(lambda: [None for _ in loader])
    return loader.histories.nbytes + loader.items.nbytes + loader.samples.nbytes, loading, epoch


def _loader(folder: Path, loader: Any = SequenceLoader, **options: Any) -> Any:
    """A loader of the training data in a folder."""
    files = (folder / f"{name}.parquet" for name in ("train", "user_info", "item_info"))
    return loader(feature_map(), *map(str, files), **options)


def _whole_batches(loader: Any) -> Iterator[Batch]:
    """Epoch after epoch, without the smaller batch at the end of each."""
    while True:
        yield from islice(loader, loader.num_samples // loader.batch_size)


def _all_features(batch: Batch, args: argparse.Namespace) -> tuple[list[Tensor], Batch]:
    """All item features of a batch on the device, as a LongCTR model reads them."""
    return [rows.to(args.device) for rows in dict(batch[1]).values()], batch
