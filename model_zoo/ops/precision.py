"""Mixed precision (``amp: bf16``): which matrix products are rounded, and which are not.

What chooses is not rounded (routers, hashes, top-k scores), nor what sums over many steps (codebooks,
scan states), nor logits, whose order is the result. A single query over a history is not either: that
product waits for memory, and casting would read the history once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def bf16_products(device: torch.device, enabled: bool) -> Iterator[None]:
    """Matrix products in bf16; on CUDA, TF32 in those that ``unrounded`` keeps in float32."""
    if not enabled:
        yield
        return
    with _matmul_precision(device, "high"), torch.autocast(device.type, torch.bfloat16):
        yield


def unrounded(x: Tensor) -> torch.autocast:
    """Within ``bf16_products``, products in the type of their inputs, on the device of ``x``."""
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def all_digits(x: Tensor) -> Iterator[None]:
    """``unrounded``, and without TF32."""
    with _matmul_precision(x.device, "highest"), unrounded(x):
        yield


def at_least_float32(x: Tensor) -> Tensor:
    """Half types as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def _matmul_precision(device: torch.device, precision: str) -> Iterator[None]:
    """torch's setting for float32 products on CUDA, put back afterwards; nothing on the CPU."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" or before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
