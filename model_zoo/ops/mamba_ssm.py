"""``mamba_ssm``'s fused selective scan for CUDA, where it is installed.

Shape suffixes: B samples, L length, E channels, N state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce

import torch
from torch import Tensor

MAX_STATE = 256  # of the kernel


def kernel_for(u: Tensor, A: Tensor, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """``mamba_ssm``'s scan where it serves these inputs: on CUDA, computed in float32."""
    if u.is_cuda and dtype == torch.float32 and A.shape[1] <= MAX_STATE:
        return mamba_kernel()
    return None


@cache
def mamba_kernel() -> Callable[..., Tensor] | None:
    """``mamba_ssm``'s scan for CUDA, or None where it is not installed with its kernel."""
    try:
        from mamba_ssm.ops import selective_scan_interface as interface
    except ImportError:
        return None
    if getattr(interface, "selective_scan_cuda", None) is None:  # newer ones may lack the kernel
        return None
    return interface.selective_scan_fn


def call_mamba(
    kernel: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
) -> Tensor:
    """``selective_scan`` by ``mamba_ssm``'s kernel, with positions last and one type for all."""
    dtype = reduce(torch.promote_types, (x.dtype for x in (u, delta, B, C)))
    u_BEL, delta_BEL, B_BNL, C_BNL = (x.transpose(1, 2).to(dtype) for x in (u, delta, B, C))
    skip_E = None if D is None else D.float()
    y_BEL = kernel(u_BEL, delta_BEL, A.float(), B_BNL, C_BNL, skip_E, delta_softplus=False)
    return y_BEL.transpose(1, 2).to(u.dtype)
