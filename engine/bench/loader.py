"""The loader: ``SequenceLoader`` against LongCTR's ``LongCTRDataLoader`` without worker processes.

Four cases, each making one shuffled training batch:

- LongCTR's loader: every item feature of every position is built on the host;
- ours, no feature read: labels, indices, lengths and mask are there, item features are not yet
  gathered. This is what our models take: they gather per distinct item;
- ours, all features read: also every feature of ``item_dict``, which is then LongCTR's batch;
- plain gather: ``table[index]`` of the same features with ready-made indices, the floor of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch

from model_zoo.batch import Batch

from ..common.errors import UserError
from ..loader.loader import SequenceLoader
from . import longctr, microvideo
from .floor import Work, measure_machine
from .loader_memory import loader_bytes
from .timing import Report, alternate, require_close

RIVAL = "LongCTR's loader"
LAZY, READ, PLAIN = "ours, no feature read", "ours, all features read", "plain gather"


def measure(
    checkout: str | None,
    folder: Path,
    users: int,
    length: int,
    batch_size: int,
    repeats: int,
    device: torch.device,
) -> Report:
    """See the module.

    Args:
        checkout: LongCTR's root folder, or None for ours alone.
        folder: the data set; generated with ``users`` if it is not there.
        users: users of a generated data set.
        length: ``max_len``.
        batch_size: B.
        repeats: rounds.
        device: where item tables live and batches end up.
    """
    rival_class = checkout and longctr.load_class(checkout, longctr.LOADER, "LongCTRDataLoader")
    microvideo.ensure_dataset(folder, users)
    files = {name: str(folder / f"{name}.parquet") for name in ("train", "user_info", "item_info")}
    paths = (microvideo.feature_map(), *files.values())
    options = {"batch_size": batch_size, "max_len": length}
    ordered = SequenceLoader(*paths, **options, device=device)
    if len(ordered.samples) < batch_size:
        raise UserError(
            f"--batch {batch_size}: {folder} has {len(ordered.samples)} training samples; "
            "write a smaller batch, or more --users"
        )
    memory = _memory(folder, length, batch_size)
    ours = SequenceLoader(
        paths[0], paths[1], ordered.histories, ordered.items, **options, shuffle=True, device=device
    )
    lazy, read = _whole_batches(ours), _whole_batches(ours)
    tables, index = ours.items.tables, next(read)[1].index.flatten()
    cases = {
        LAZY: lambda: next(lazy),
        READ: lambda: _read(next(read), device),
        PLAIN: lambda: [table[index] for table in tables.values()],
    }
    ratios = {f"{READ} / {PLAIN}": (READ, PLAIN, "at most 2")}
    differences = {}
    if rival_class:
        rival = rival_class(*paths, **options, num_workers=0)
        try:
            first = next(iter(rival))
        except Exception as error:  # foreign code, which needs whole-number labels
            raise UserError(
                f"LongCTR's loader cannot read {folder} ({type(error).__name__}: {error}); "
                "name a new folder with --data, to be generated"
            ) from error
        differences["first batch of both loaders"] = _compare(next(iter(ordered)), first)
        theirs = _whole_batches(rival_class(*paths, **options, num_workers=0, shuffle=True))
        cases = {RIVAL: lambda: _read(next(theirs), device)} | cases
        ratios[f"{RIVAL} / {LAZY}"] = (RIVAL, LAZY, "at least 200")
        ratios[f"{RIVAL} / {READ}"] = (RIVAL, READ, "at least 12")
    for case in cases.values():
        case()
    # Indices are read (4 bytes) and written (8), the mask is written; features are read and written.
    positions = batch_size * (length + 1)
    moved = positions * (4 + 8 + 4)
    features = 2 * sum(table[0].numel() * table.element_size() for table in tables.values())
    work = {LAZY: Work(moved), READ: Work(moved + positions * features)}
    work |= {PLAIN: Work(positions * (8 + features))}
    return Report(
        title="Loader: one shuffled training batch of MicroVideo1.7M_x2's shape",
        settings={**options, "device": str(device), "repeats": repeats},
        samples=batch_size,
        seconds=alternate(cases, repeats, device),
        ratios=ratios,
        differences=differences,
        work=work,
        machine=measure_machine(device),
        notes=[memory, *([] if checkout else [longctr.MISSING])],
    )


def _memory(folder: Path, length: int, batch_size: int) -> str:
    """What the tables take, and the most that loading them and an epoch take."""
    resident, loading, epoch = loader_bytes(folder, length, batch_size)
    return (
        f"resident tables {resident / 1e6:,.1f} MB; peak memory of loading {loading / resident:.2f}x that "
        f"(goal: at most 1.3), of an epoch {epoch / 1e6:,.1f} MB"
    )


def _whole_batches(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch, without the smaller batch at the end of each."""
    while True:
        yield from islice(loader, loader.num_samples // loader.batch_size)


def _read(batch: Batch, device: torch.device) -> tuple[list[torch.Tensor], Batch]:
    """All item features of a batch on the device, as a LongCTR model reads them."""
    return [rows.to(device) for rows in dict(batch[1]).values()], batch


def _compare(ours: Batch, theirs: Batch) -> float:
    """The largest difference between two batches: item features, mask, label."""
    pairs = [(rows, theirs[1][name]) for name, rows in dict(ours[1]).items()]
    pairs += [(ours[2], theirs[2]), (ours[0]["is_click"], theirs[0]["is_click"])]
    return max(require_close("loaders", own.cpu(), rival, 0.0) for own, rival in pairs)
