"""Mixed precision (``amp: bf16``): which matrix products are rounded, and which are not.

These products are not rounded:

- products that make a choice: routers, hashes and top-k scores;
- products that are summed over many steps: codebooks and scan states;
- logits, since their order is what counts;
- the product of a single query with a history. Its time is that of reading the history, and a cast
  would read it once more.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor


@contextmanager
def bf16_products(device: torch.device, enabled: bool) -> Iterator[None]:
    """A context with matrix products in bf16; on CUDA, ``unrounded`` products are in TF32."""
    if not enabled:
        yield
        return
    with _matmul_precision(device, "high"), torch.autocast(device.type, torch.bfloat16):
        yield


def unrounded(x: Tensor) -> AbstractContextManager[Any]:
    """A context within ``bf16_products`` whose products keep the type of their inputs."""
    if not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def all_digits(x: Tensor) -> Iterator[None]:
    """A context like ``unrounded`` in which CUDA does not use TF32 either."""
    with _matmul_precision(x.device, "highest"), unrounded(x):
        yield


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half types to float32, and leave others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def _matmul_precision(device: torch.device, precision: str) -> Iterator[None]:
    """A context that sets the precision of float32 products on CUDA; it does nothing on a CPU."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" or before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
