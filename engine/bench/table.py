"""Embedding tables of any size: the train step of TWIN with ``sparse_embedding``, and without.

MicroVideo1.7M_x2's shape and LongCTR's published widths, with item tables of the sizes asked for.
Two things set the large table apart: its size, and that a batch shows more distinct items. So the
step of the largest table is compared with that of the smallest twice: on batches with as many
distinct items, and on items drawn evenly, hardly any twice. Batches take turns, so that no cache
holds the rows of the next. Dense updates are timed at a size where four dense copies of a table
(weights, gradient, two moments) fit beside the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import cycle

import torch

import model_zoo
from model_zoo.sequence_model import Batch

from ..errors import UserError
from . import microvideo
from .step import model_options, train_step
from .timing import Report, alternate

BATCHES = 8
DENSE_ROWS = 1_000_000  # the most of a dense table
GOAL = "at most 1.5"


def measure(
    rows: list[int], length: int, batch_size: int, repeats: int, device: torch.device
) -> Report:
    """See the module.

    Args:
        rows: sizes of item tables.
        length: L.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    small, large = min(rows), max(rows)
    if small < 2:
        raise UserError(f"--rows {small}: row 0 is padding; write 2 or more")
    dense = min(large, DENSE_ROWS)
    tables = microvideo.item_tables(device, large)

    def batches(count: int, distinct: int | None = None) -> list[Batch]:
        cut = {name: table[:count] for name, table in tables.items()}
        sizes = (batch_size, length, device)
        return [microvideo.random_batch(*sizes, n, cut, distinct) for n in range(BATCHES)]

    cases = {}
    few, dense_case = f"{_name(large)}, as many distinct items", f"{_name(dense)}, dense"
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        options = model_options("TWIN", folder, device)

        def train(count: int, sparse: bool) -> Callable[[Batch], torch.Tensor]:
            torch.manual_seed(0)
            feature_map = microvideo.feature_map(count)
            return train_step(model_zoo.TWIN(feature_map, sparse_embedding=sparse, **options))

        for count in sorted({*rows, dense}):
            step = train(count, sparse=True)
            cases[_name(count)] = _in_turns(step, batches(count))
            if count == large:
                cases[few] = _in_turns(step, batches(count, distinct=small))
        cases[dense_case] = _in_turns(train(dense, sparse=False), batches(dense))
    for case in cases.values():
        for _ in range(BATCHES):
            case()
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
        ratios={
            f"{few} / {_name(small)}": (few, _name(small), GOAL),
            f"{_name(large)} / {_name(small)}": (_name(large), _name(small), GOAL),
            f"{dense_case} / sparse": (dense_case, _name(dense), ""),
        },
    )


def _in_turns(
    step: Callable[[Batch], torch.Tensor], batches: list[Batch]
) -> Callable[[], torch.Tensor]:
    turns = cycle(batches)
    return lambda: step(next(turns))


def _name(rows: int) -> str:
    return f"{rows:,} rows"
