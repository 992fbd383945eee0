"""torch's counter of FLOPs, told about the products that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula


def product_flops(function: Callable[[], object]) -> float:
    """FLOPs of the matrix products of one call, backward included, by torch's counter."""
    # The counter does not know every fused attention kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@register_flop_formula(torch.ops.aten.sparse_sampled_addmm, get_raw=True)
def _sampled_product(pattern: torch.Tensor, left: torch.Tensor, *rest: Any, **kwargs: Any) -> int:
    """Dot products at some places."""
    return 2 * pattern.values().numel() * left.shape[1]


@register_flop_formula(
    [torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only], get_raw=True
)
def _weighted_sum(weight: torch.Tensor, index: torch.Tensor, *rest: Any, **kwargs: Any) -> int:
    """Sums of rows by weights, which are a sparse matrix times a dense one."""
    return 2 * index.numel() * weight.shape[1]
