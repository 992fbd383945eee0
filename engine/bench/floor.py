"""The least time that a piece of work can take on this machine: bytes to move, FLOPs to do.

What the machine can do is measured in the same run, on a plain copy and a plain matrix product. A
floor counts only what any implementation must do; what is above it is overhead, or arithmetic that is
no matrix product.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

REPEATS = 5
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # far beyond any cache
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns, float32
FLOAT = 4  # bytes
# Over the parameters: the gradient written; it, the parameter and two moments read; three written.
ADAM_PASSES = 8


@dataclass(frozen=True)
class Machine:
    """What a device reaches: bytes per second (read plus written) and FLOPs per second."""

    bytes_per_s: float
    flops_per_s: float

    def __str__(self) -> str:
        return (
            f"a plain copy moves {self.bytes_per_s / 1e9:.1f} GB/s, "
            f"a float32 matrix product does {self.flops_per_s / 1e9:,.0f} GFLOP/s"
        )


@dataclass(frozen=True)
class Work:
    """What has to be done: bytes to move and FLOPs of matrix products."""

    bytes: float
    flops: float = 0.0

    def floor(self, machine: Machine) -> float:
        """Seconds, if moving and computing overlap perfectly."""
        return max(self.bytes / machine.bytes_per_s, self.flops / machine.flops_per_s)


@cache
def measure_machine(device: torch.device) -> Machine:
    """The best of a few copies and matrix products."""
    source = torch.ones(COPY_BYTES[device.type] // FLOAT, device=device)
    target = torch.empty_like(source)
    size = MATRIX[device.type]
    a, b, c = (torch.ones(size, size, device=device) for _ in range(3))
    copy_s = _best(lambda: target.copy_(source), device)
    product_s = _best(lambda: torch.mm(a, b, out=c), device)
    return Machine(2 * COPY_BYTES[device.type] / copy_s, 2 * size**3 / product_s)


def step_bytes(model: nn.Module, batch_size: int, length: int, rows: int, width: int) -> float:
    """Bytes that a train step has to move: parameters, their gradients and moments once per role;
    an embedding and a gradient for each distinct item; for each position its index and its item.

    Args:
        rows: distinct items of the batch.
        width: numbers of an embedded item.
    """
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    positions = batch_size * (length + 1)
    items = 2 * FLOAT * rows * width
    return ADAM_PASSES * FLOAT * parameters + items + positions * (8 + FLOAT * width)


def _best(case: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(REPEATS + 1):  # the first one also warms up
        start = time.perf_counter()
        case()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
