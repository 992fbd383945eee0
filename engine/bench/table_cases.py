"""Item tables of any size: the train step of TWIN with ``sparse_embedding``.

The data has MicroVideo1.7M_x2's shape, the model LongCTR's published widths. A large table differs from
a small one in two ways: it is large, and a batch shows more distinct items of it. So the step is compared
on items drawn by popularity, as in most logs; on items drawn evenly, hardly one twice, the worst case; and
on as many distinct items as the small table has. Batches take turns, so that no cache holds the rows of the
next.

Shape suffix: N items of the table.
"""

from __future__ import annotations

import argparse
from itertools import cycle

import torch
from torch import Tensor

from ..common.errors import UserError
from .harness import COMMON, Case, Report
from .inputs import Draw, evenly, item_tables, random_batch
from .step_cases import build, train_step

BATCHES = 8
GOAL = "at most 1.5"
DEFAULTS = COMMON | {"rows": [10_000, 10_000_000], "length": 200}


def measure(args: argparse.Namespace) -> Report:
    """Time the step on a small and a large table; ``--rows`` has their sizes."""
    if len(args.rows) != 2 or not 2 <= args.rows[0] <= args.rows[1]:
        written = " ".join(map(str, args.rows))
        raise UserError(f"--rows {written}: write a small and a large table, of 2 rows or more")
    report = Report("Train step of TWIN by size of the item table, MicroVideo1.7M_x2's shape", args)
    report.notes.append("distinct items of a batch:")
    small, large = args.rows
    tables, cases = item_tables(args.device, large), []
    for rows in (small, large):
        step = train_step(build("TWIN", args, items=rows, sparse_embedding=True))
        table = {name: column[:rows] for name, column in tables.items()}
        draws: dict[str, Draw] = {"by popularity": by_popularity, "evenly": evenly}
        draws |= {f"{small:,} items": from_few(small)} if rows == large else {}
        for way, draw in draws.items():
            sizes = (args.batch, args.length, args.device)
            batches = [random_batch(*sizes, seed, table, draw) for seed in range(BATCHES)]
            for batch in batches[1:]:  # the first one is the warm-up of the harness
                step(batch)
            name, steps = f"{rows:,} rows, {way}", map(step, cycle(batches))
            rival = way if way == "by popularity" else "evenly"
            over = {f"{small:,} rows, {rival}": GOAL} if rows == large else {}
            cases.append(Case(name, steps.__next__, over))
            report.notes.append(f"  {name}: {len(batches[0][1].index.unique()):,}")
    report.time(cases, args.batch, args.repeats)
    return report


# ---------------------------------------------------------------- which items a batch shows


def by_popularity(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Zipf's law: the n-th most popular item has about 1 / n of the first one's share.

    Popular items are scattered over the table, in the same places every time.
    """
    rank = (rows - 1) ** torch.rand(shape, generator=g, dtype=torch.float64)
    item_N = torch.randperm(rows - 1, generator=torch.Generator().manual_seed(0)) + 1
    return item_N[rank.long().clamp(max=rows - 1) - 1]


def from_few(count: int) -> Draw:
    """Drawing evenly from ``count`` items, others in each batch."""

    def draw(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
        return evenly(rows, (count,), g)[torch.randint(count, shape, generator=g)]

    return draw
