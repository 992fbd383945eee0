"""Item tables of any size: the train step of TWIN with ``sparse_embedding``, and without.

MicroVideo1.7M_x2's shape and LongCTR's published widths. A large table differs from a small one in
two ways: it is large, and a batch shows more distinct items of it. So the step is compared on items
drawn by popularity, as in most logs; on items drawn evenly, hardly one twice, the worst case; and on
as many distinct items as the small table has. Batches take turns, so that no cache holds the rows of
the next. Dense updates are timed on a table of which four copies (weights, gradient, two moments)
fit beside the others.

Shape suffixes: B samples, L history length, N items of the table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor

import model_zoo
from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict

from ..common.errors import UserError
from . import microvideo
from .step import model_options, train_step
from .timing import Report, alternate

BATCHES = 8
DENSE_ROWS = 1_000_000  # the most of a dense table
GOAL = "at most 1.5"


def measure(
    small: int, large: int, length: int, batch_size: int, repeats: int, device: torch.device
) -> Report:
    """See the module.

    Args:
        small, large: rows of two item tables.
        length: L.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    if not 2 <= small <= large:
        raise UserError(
            f"--rows {small} {large}: write a small and a large table, of 2 rows or more"
        )
    tables = microvideo.item_tables(device, large)
    seen: dict[str, int] = {}  # distinct items of a batch, by case

    def case(name: str, train: Callable[[Batch], Tensor], rows: int, draw: Draw) -> None:
        batches = _batches(
            {n: table[:rows] for n, table in tables.items()}, draw, batch_size, length
        )
        seen[name] = len(batches[0][1].index.unique())
        turns = cycle(batches)
        cases[name] = lambda: train(next(turns))

    cases: dict[str, Callable[[], Tensor]] = {}
    dense_rows = min(large, DENSE_ROWS)
    of_small, of_large, of_dense = (f"{rows:,} rows" for rows in (small, large, dense_rows))
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        options = model_options("TWIN", folder, device)

        def twin(rows: int, sparse: bool = True) -> Callable[[Batch], Tensor]:
            torch.manual_seed(0)
            feature_map = microvideo.feature_map(rows)
            return train_step(model_zoo.TWIN(feature_map, sparse_embedding=sparse, **options))

        for name, rows in ((of_small, small), (of_large, large)):
            train = twin(rows)
            case(f"{name}, by popularity", train, rows, by_popularity)
            case(f"{name}, evenly", train, rows, evenly)
        case(f"{of_large}, {small:,} items", train, large, from_few(small))
        for name, sparse in (("sparse", True), ("dense", False)):
            train = twin(dense_rows, sparse)
            case(f"{of_dense}, by popularity, {name}", train, dense_rows, by_popularity)
    for run in cases.values():
        for _ in range(BATCHES):
            run()
    against_small = {
        f"{of_large}, {what}": (f"{of_large}, {what}", f"{of_small}, {rival}", GOAL)
        for what, rival in (
            ("by popularity", "by popularity"),
            ("evenly", "evenly"),
            (f"{small:,} items", "evenly"),
        )
    }
    dense, sparse = (f"{of_dense}, by popularity, {name}" for name in ("dense", "sparse"))
    return Report(
        title="Train step of TWIN by size of the item table, MicroVideo1.7M_x2's shape",
        settings={
            "batch": batch_size,
            "length": length,
            "width": microvideo.WIDTH,
            "device": str(device),
            "repeats": repeats,
        },
        samples=batch_size,
        seconds=alternate(cases, repeats, device),
        ratios={f"{name} / {of_small}": ratio for name, ratio in against_small.items()}
        | {f"{of_dense}, dense / sparse": (dense, sparse, "")},
        notes=["distinct items of a batch:"]
        + [f"  {name}: {count:,}" for name, count in seen.items()],
    )


# ---------------------------------------------------------------- which items a batch shows

Draw = Callable[[int, tuple[int, ...], torch.Generator], Tensor]
"""Of a table of N rows, indices from 1 to N - 1 of some shape."""


def evenly(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    return torch.randint(1, rows, shape, generator=g)


def by_popularity(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Zipf's law: the n-th most popular item has about 1 / n of the first one's share."""
    rank = (rows - 1) ** torch.rand(shape, generator=g, dtype=torch.float64)
    return _scattered(rows)[rank.long().clamp(max=rows - 1) - 1]


def from_few(count: int) -> Draw:
    """Evenly from ``count`` items, others in each batch."""

    def draw(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
        return evenly(rows, (count,), g)[torch.randint(count, shape, generator=g)]

    return draw


def _scattered(rows: int) -> Tensor:
    """All indices, in the same random order every time."""
    return torch.randperm(rows - 1, generator=torch.Generator().manual_seed(0)) + 1


def _batches(tables: dict[str, Tensor], draw: Draw, batch_size: int, length: int) -> list[Batch]:
    batches = []
    for seed in range(BATCHES):
        device = tables["item_id"].device
        batch_dict, items, mask_BL = microvideo.random_batch(
            batch_size, length, device, seed, tables
        )
        drawn = draw(len(tables["item_id"]), items.index.shape, torch.Generator().manual_seed(seed))
        index_BL1 = drawn.to(device) * (items.index > 0)
        batches.append((batch_dict, ItemDict(tables, index_BL1), mask_BL))
    return batches
