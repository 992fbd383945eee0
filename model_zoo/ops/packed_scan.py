"""Mamba's convolution and scan on packed histories, by Triton kernels on CUDA.

A segment is the positions of one sample, oldest first. The scan has N terms for each position and
channel. Each of torch's operations would write all terms to memory and read them again.

Shape suffixes: B samples, L padded length, P positions of all segments, S segments, E channels, N
state, K taps, J blocks of channels, G tiles.
"""

import logging
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .compiled import first_line
from .scan_buffers import LN_2, LOG2_E, ZERO_BELOW, compute_dtype

TILE = 16  # positions that a program computes at a time
CHANNELS = 128  # the most channels of a block


@cache
def can_fuse(device: torch.device) -> bool:
    """Whether the kernels run on this device, which needs CUDA, Triton and a C compiler."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        _try_kernels(device)
    except Exception as error:  # Triton and each compiler have errors of their own
        logging.warning(
            "histories stay padded and the selective scan unfused, which is slower: the kernels "
            f"need Triton and a C compiler ({first_line(error)})"
        )
        return False
    return True


def _try_kernels(device: torch.device) -> None:
    """Run all four kernels on one position."""
    with torch.enable_grad():
        x_1PE = torch.ones(1, 1, 1, device=device, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        u_1PE = segment_conv(x_1PE, x_1PE[0], x_1PE[0, 0], zero.int())
        segment_scan(u_1PE, u_1PE, -x_1PE[0], u_1PE, u_1PE, zero, zero + 1).backward()


def segment_conv(x_1PE: Tensor, taps_EK: Tensor, bias_E: Tensor, age_P: Tensor) -> Tensor:
    """Compute ``causal_conv`` of each segment, ``(1, P, E)``; see ``Segments`` for ``age_P``."""
    dtype = torch.promote_types(x_1PE.dtype, taps_EK.dtype)  # under autocast x has a half type
    return _Conv.apply(x_1PE[0].to(dtype), taps_EK.T, bias_E, age_P)[None]


def segment_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, start_S: Tensor, stop_S: Tensor
) -> Tensor:
    """The newest output of ``selective_scan`` for each segment, ``(S, 1, E)``, without ``D u``.

    It is in float32 or float64.

    Args:
        u: ``(..., E)``, P positions in all.
        delta: step sizes, ``(..., E)``, not negative.
        A: ``(E, N)``, negative.
        B: ``(..., N)``.
        C: ``(S, 1, N)``, of the newest positions.
        start_S, stop_S: the first position of each segment, and the position after its last. Every
            position is in one segment.
    """
    dtype = compute_dtype(u, delta, A, B, C)
    rate_NE = (A.to(dtype) * LOG2_E).T
    u_PE, delta_PE, B_PN, C_SN = (x.to(dtype).flatten(0, -2) for x in (u, delta, B, C))
    return _Scan.apply(start_S, stop_S, u_PE, delta_PE, rate_NE, B_PN, C_SN)[:, None]


class _Conv(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        inputs = tuple(x.contiguous() for x in inputs)
        x_PE, taps_KE, _, age_P = inputs  # _: the bias
        ctx.save_for_backward(x_PE, taps_KE, age_P)
        out_PE = torch.empty_like(x_PE)
        _launch("conv_forward", _tiles(x_PE), inputs, out_PE, *x_PE.shape, len(taps_KE))
        return out_PE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_PE: Tensor) -> tuple[Tensor | None, ...]:
        x_PE, taps_KE, age_P = ctx.saved_tensors
        K, E = taps_KE.shape
        tiles, dx_PE = _tiles(x_PE), torch.empty_like(x_PE)
        dtaps_GKE = x_PE.new_empty(tiles, K + 1, E)
        inputs = x_PE, taps_KE, age_P, dout_PE.contiguous()
        _launch("conv_backward", tiles, inputs, dx_PE, dtaps_GKE, *x_PE.shape, K)
        dtaps_KE, dbias_1E = dtaps_GKE.sum(0).split([K, 1])
        return dx_PE, dtaps_KE, dbias_1E[0], None


class _Scan(Function):
    """``y = sum_t weight_t delta_t u_t``, as in ``scan_last``.

    Backward computes the terms again, which costs less than keeping them.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        start_S, stop_S, u_PE, delta_PE, rate_NE, B_PN, C_SN = (x.contiguous() for x in inputs)
        later_PE, y_SE = torch.empty_like(delta_PE), u_PE.new_empty(len(C_SN), u_PE.shape[1])
        inputs = u_PE, delta_PE, rate_NE, rate_NE.amax(1), B_PN, C_SN, start_S, stop_S
        ctx.save_for_backward(*inputs, later_PE)
        sizes = u_PE.shape[1], len(rate_NE), ZERO_BELOW[u_PE.dtype]
        _launch("scan_forward", len(C_SN), inputs, later_PE, y_SE, *sizes)
        return y_SE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_SE: Tensor) -> tuple[Tensor | None, ...]:
        u_PE, delta_PE, rate_NE, _, B_PN, C_SN, *_ = ctx.saved_tensors
        S, J = len(C_SN), _blocks(u_PE)[1]
        du_PE, ddelta_PE = torch.empty_like(u_PE), torch.empty_like(delta_PE)
        drate_SNE = rate_NE.new_zeros(S, *rate_NE.shape)
        dB_JPN, dC_JSN = (x.new_zeros(J, *x.shape) for x in (B_PN, C_SN))
        outputs = du_PE, ddelta_PE, drate_SNE, dB_JPN, dC_JSN
        sizes = *u_PE.shape, len(rate_NE), ZERO_BELOW[u_PE.dtype]
        _launch("scan_backward", S, (*ctx.saved_tensors, dy_SE.contiguous()), *outputs, *sizes)
        drate_NE = drate_SNE.sum(0).mul_(LN_2)
        return None, None, du_PE, ddelta_PE, drate_NE, dB_JPN.sum(0), dC_JSN.sum(0)


def _launch(kernel: str, programs: int, inputs: Sequence[Tensor], *others: Any) -> None:
    """Run ``programs`` programs of a kernel per block of channels; the first input is (P, E)."""
    from . import packed_scan_triton as segment_kernels  # needs Triton

    block, blocks = _blocks(inputs[0])
    with torch.cuda.device_of(inputs[0]):  # Triton uses the current device
        getattr(segment_kernels, kernel)[programs, blocks](*inputs, *others, TILE=TILE, BLOCK=block)


def _tiles(x_PE: Tensor) -> int:
    return -(-len(x_PE) // TILE)


def _blocks(x_PE: Tensor) -> tuple[int, int]:
    """The number of channels in a block, which is a power of two, and the number of blocks."""
    E = x_PE.shape[1]
    block = min(CHANNELS, 1 << (E - 1).bit_length())
    return block, -(-E // block)
