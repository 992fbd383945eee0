"""What ``final_state`` sums over the states of each position, on CUDA: kernels that torch.compile fuses.

Without it the ``P N E`` terms would go to memory and back at every operation, which on a GPU is all the
time there is. Shape suffixes: P positions of all samples, E channels, N state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .compiled import compiler_problem, torch_compile
from .scan_parts import LN_2


@cache
def can_fuse(device: torch.device) -> bool:
    """Whether torch.compile makes kernels for this device: CUDA with triton and a C compiler."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    problem = compiler_problem(device)
    if problem:
        logging.warning(f"the selective scan runs unfused, which is slower: {problem}")
    return not problem


def fused_weights(later_BLE: Tensor, rate_NE: Tensor, G_BLN: Tensor) -> Tensor:
    """``weight_t = sum_n G_t[n] 2^(later_t rate[n])`` of each position, ``(B, L, E)``; differentiable."""
    inputs = later_BLE.flatten(0, 1), rate_NE, G_BLN.flatten(0, 1)
    return _Weights.apply(*inputs).view_as(later_BLE)


class _Weights(Function):
    """Terms are computed once more in backward: to keep them would cost more than to make them."""

    @staticmethod
    def forward(ctx: Any, later_PE: Tensor, rate_NE: Tensor, G_PN: Tensor) -> Tensor:
        ctx.save_for_backward(later_PE, rate_NE, G_PN)
        return _call(_weights, later_PE, G_PN, rate_NE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dweight_PE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        later_PE, rate_NE, G_PN = ctx.saved_tensors
        return _call(_gradients, dweight_PE.contiguous(), later_PE, G_PN, rate_NE)


def _weights(later_PE: Tensor, G_PN: Tensor, rate_NE: Tensor) -> Tensor:
    return (torch.exp2(later_PE[:, None] * rate_NE) * G_PN[:, :, None]).sum(1)


def _gradients(
    dweight_PE: Tensor, later_PE: Tensor, G_PN: Tensor, rate_NE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of later, rate and G."""
    dterm_PNE = torch.exp2(later_PE[:, None] * rate_NE) * dweight_PE[:, None]
    dexponent_PNE = dterm_PNE * (LN_2 * G_PN[:, :, None])
    dlater_PE = (dexponent_PNE * rate_NE).sum(1)
    drate_NE = (dexponent_PNE * later_PE[:, None]).sum(0)
    return dlater_PE, drate_NE, dterm_PNE.sum(2)


def _call(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Compiled with the number of positions left open: one graph for all batches of more than one."""
    compiled = _compiled(function)
    inputs = tuple(x.detach() for x in inputs)  # else there is one graph with autograd, one without
    for x in inputs[:-1]:
        torch._dynamo.maybe_mark_dynamic(x, 0)
    return compiled(*inputs)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch_compile(function)
