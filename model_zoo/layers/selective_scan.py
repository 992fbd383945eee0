"""Selective scan, the recurrence of Mamba (S6), as fast as plain torch gets.

For every sample and channel, with a state ``h`` of N numbers and ``h_0 = 0``:

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = sum_n C_t[n] h_t[n] + D u_t

``selective_scan`` gives all ``y_t``, ``selective_scan_last`` the newest only, and
``selective_scan_reference`` says what they compute. Softplus and bias of ``delta`` and the gate on
``y`` are the caller's. A position with ``delta = 0`` leaves the state exactly as it is, so left padding
that is zeroed there changes no later output.

Half types are computed in float32, also under autocast, and the output has the type of ``u``.
Exponents are never positive, so no step is too large.

Shape suffixes: B samples, L length, E channels, N state, K steps of a chunk, S samples of a tile,
P positions of all samples. In work buffers the state comes before the channels: those are many, so
that vector instructions run along them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .mamba_kernel import call_mamba, kernel_for

STEPS = 32  # K: forward keeps the state every K steps, backward computes the others again
# Numbers in a work buffer: few enough for the cache of a CPU, enough to keep a GPU busy.
BUFFER_SIZE = {"cpu": 2**20, "cuda": 2**25}
# exp(x) is computed as exp2(x log2 e): on a CPU torch's exp2 is 2 to 4 times faster than its exp.
LOG2_E, LN_2 = math.log2(math.e), math.log(2)


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    """The definition, step by step, in the type of the inputs; see ``selective_scan``."""
    h_BEN = u.new_zeros(len(u), *A.shape)
    outputs = []
    for t in range(u.shape[1]):
        decay_BEN = torch.exp(delta[:, t, :, None] * A)
        h_BEN = decay_BEN * h_BEN + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        outputs.append((h_BEN * C[:, t, None]).sum(-1))
    y_BLE = torch.stack(outputs, dim=1)
    return y_BLE if D is None else y_BLE + D * u


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    """The outputs of all positions.

    On CUDA this is ``mamba_ssm``'s kernel where that is installed. Else it goes step by step, in
    place; backward keeps ``B L E N / STEPS`` numbers beside the inputs.

    Args:
        u: ``(B, L, E)``.
        delta: step sizes, ``(B, L, E)``, not negative.
        A: ``(E, N)``, negative.
        B: ``(B, L, N)``.
        C: ``(B, L, N)``.
        D: ``(E,)``; None leaves the last term out.

    Returns:
        ``(B, L, E)``, in the type of ``u``.
    """
    dtype = _compute_dtype(u, delta, A, B, C)
    kernel = kernel_for(u, A, dtype)
    if kernel is not None:
        return call_mamba(kernel, u, delta, A, B, C, D)
    u_BLE, delta_BLE, A_EN, B_BLN, C_BLN = (x.to(dtype) for x in (u, delta, A, B, C))
    rate_NE = (A_EN * LOG2_E).T.contiguous()
    rows = (delta_BLE, delta_BLE * u_BLE, B_BLN, C_BLN)
    y_BLE = _Scan.apply(torch.is_grad_enabled(), rate_NE, *rows)
    return _add_skip(y_BLE, u_BLE, D).to(u.dtype)


def selective_scan_last(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    """``selective_scan(...)[:, -1]`` without the other outputs.

    Only the last state is read, and that is a plain sum over positions, by the steps after each:
    ``h_L = sum_t exp((delta_{t+1} + ... + delta_L) A) delta_t B_t u_t``. ``mamba_ssm``'s kernel, where
    it is used, computes all outputs, in one pass over the inputs.

    Args:
        u: ``(B, L, E)``, L at least 1; the others as in ``selective_scan``.

    Returns:
        ``(B, E)``, in the type of ``u``.
    """
    dtype = _compute_dtype(u, delta, A, B, C)
    kernel = kernel_for(u, A, dtype)
    if kernel is not None:
        return call_mamba(kernel, u, delta, A, B, C, D)[:, -1]
    u_BLE, delta_BLE, A_EN, B_BLN, C_BN = (x.to(dtype) for x in (u, delta, A, B, C[:, -1]))
    rate_NE = (A_EN * LOG2_E).T.contiguous()
    weight_BLE = _LastWeights.apply(delta_BLE, rate_NE, B_BLN * C_BN[:, None])
    y_BE = (weight_BLE * (delta_BLE * u_BLE)).sum(1)
    return _add_skip(y_BE, u_BLE[:, -1], D).to(u.dtype)


class _Buffer:
    """Memory that is used again and again: fresh memory costs more than the arithmetic on it."""

    def __init__(self, like: Tensor) -> None:
        self.flat = like.new_empty(0)

    def view(self, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape, with whatever the last one left in it."""
        size = math.prod(shape)
        if size > len(self.flat):
            self.flat = self.flat.new_empty(size)
        return self.flat[:size].view(shape)


class _Scan(Function):
    """``sum_n C_t[n] h_t[n]`` of all positions, with ``x = delta u``.

    A tile of samples takes K steps at a time, in place, so that its work buffers stay in the cache.
    ``rows`` are delta, x, B and C, each ``(B, L, .)``.
    """

    @staticmethod
    def forward(ctx: Any, keep_states: bool, rate_NE: Tensor, *rows: Tensor) -> Tensor:
        tiles, chunks = _tiles_and_chunks(rows[0], rate_NE)
        buffers = (_Buffer(rate_NE), _Buffer(rate_NE))
        y_BLE = torch.empty_like(rows[0])
        starts_shape = (len(chunks) if keep_states else 0, len(y_BLE), *rate_NE.shape)
        starts_JBNE = y_BLE.new_empty(starts_shape)  # the state before each chunk
        for tile in tiles:
            h_SNE = rate_NE.new_zeros(len(y_BLE[tile]), *rate_NE.shape)
            for j, chunk in enumerate(chunks):
                if keep_states:
                    starts_JBNE[j, tile] = h_SNE
                *inputs, C_SKN = (row[tile, chunk] for row in rows)
                _, h_SKNE = _states(buffers, h_SNE, rate_NE, *inputs)
                y_BLE[tile, chunk] = _product(C_SKN, h_SKNE)
                h_SNE.copy_(h_SKNE[:, -1])
        ctx.save_for_backward(starts_JBNE, rate_NE, *rows)
        return y_BLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLE: Tensor) -> tuple[Tensor | None, ...]:
        starts_JBNE, rate_NE, *rows = ctx.saved_tensors
        tiles, chunks = _tiles_and_chunks(dy_BLE, rate_NE)
        buffers, spare = (_Buffer(rate_NE), _Buffer(rate_NE)), _Buffer(rate_NE)
        gradients = [torch.empty_like(row) for row in rows]
        drate_NE = torch.zeros_like(rate_NE)
        for tile in tiles:
            carry_SNE = rate_NE.new_zeros(len(dy_BLE[tile]), *rate_NE.shape)
            for j, chunk in reversed(list(enumerate(chunks))):
                delta_SKE, x_SKE, B_SKN, C_SKN, dy_SKE = (
                    row[tile, chunk] for row in (*rows, dy_BLE)
                )
                decay_SKNE, h_SKNE = _states(
                    buffers, starts_JBNE[j, tile], rate_NE, delta_SKE, x_SKE, B_SKN
                )
                # dh_t = C_t dy_t + decay_{t+1} dh_{t+1}; carry is that last term across chunks
                dh_SKNE = spare.view(decay_SKNE.shape)
                torch.mul(C_SKN[..., None], dy_SKE[:, :, None], out=dh_SKNE)
                decays, dh = decay_SKNE.unbind(1), dh_SKNE.unbind(1)
                dh[-1].add_(carry_SNE)
                for k in reversed(range(len(dh) - 1)):
                    dh[k].addcmul_(decays[k + 1], dh[k + 1])
                torch.mul(decays[0], dh[0], out=carry_SNE)

                dx_SKE, dB_SKN = _product(B_SKN, dh_SKNE), _product(x_SKE, dh_SKNE.mT)
                dC_SKN = _product(dy_SKE, h_SKNE.mT)
                dlog_SKNE = decay_SKNE.mul_(dh_SKNE)
                dlog_SKNE[:, 1:].mul_(h_SKNE[:, :-1])
                dlog_SKNE[:, 0].mul_(starts_JBNE[j, tile])
                drate_NE += torch.mul(dlog_SKNE, delta_SKE[:, :, None], out=dh_SKNE).sum((0, 1))
                ddelta_SKE = dlog_SKNE.mul_(rate_NE).sum(2).mul_(LN_2)
                found = (ddelta_SKE, dx_SKE, dB_SKN, dC_SKN)
                for gradient, part in zip(gradients, found, strict=True):
                    gradient[tile, chunk] = part
        return None, LN_2 * drate_NE, *gradients


class _LastWeights(Function):
    """How much ``x_t = delta_t u_t`` counts in ``y_L``: ``sum_n G_t[n] 2^(later_t rate[n])``.

    ``later_t`` is the sum of the steps after t, and ``G_t = B_t C_L``. Positions do not depend on
    each other; some at a time fill a work buffer.
    """

    @staticmethod
    def forward(ctx: Any, delta_BLE: Tensor, rate_NE: Tensor, G_BLN: Tensor) -> Tensor:
        later_BLE = _sum_of_others(delta_BLE, later=True)
        ctx.save_for_backward(later_BLE, rate_NE, G_BLN)
        weight_BLE = torch.empty_like(later_BLE)
        buffer = _Buffer(rate_NE)
        for later_PE, G_PN, weight_PE in _by_positions(rate_NE, later_BLE, G_BLN, weight_BLE):
            weight_PE[:] = _product(G_PN, _decay(buffer, later_PE, rate_NE))
        return weight_BLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dweight_BLE: Tensor) -> tuple[Tensor, ...]:
        later_BLE, rate_NE, G_BLN = ctx.saved_tensors
        dlater_BLE, dG_BLN = torch.empty_like(later_BLE), G_BLN.new_empty(G_BLN.shape)
        drate_NE = torch.zeros_like(rate_NE)
        buffer, spare = _Buffer(rate_NE), _Buffer(rate_NE)
        for later_PE, G_PN, dweight_PE, dlater_PE, dG_PN in _by_positions(
            rate_NE, later_BLE, G_BLN, dweight_BLE, dlater_BLE, dG_BLN
        ):
            decay_PNE = _decay(buffer, later_PE, rate_NE)
            dG_PN[:] = _product(dweight_PE, decay_PNE.mT)
            term_PNE = decay_PNE.mul_(G_PN[..., None])
            drate_PNE = spare.view(term_PNE.shape)
            torch.mul(term_PNE, (later_PE * dweight_PE)[:, None], out=drate_PNE)
            drate_NE += drate_PNE.sum(0)
            dlater_PE[:] = term_PNE.mul_(rate_NE).sum(1) * dweight_PE * LN_2
        return _sum_of_others(dlater_BLE, later=False), LN_2 * drate_NE, dG_BLN


def _compute_dtype(*inputs: Tensor) -> torch.dtype:
    """float32, or float64 if an input is."""
    return reduce(torch.promote_types, (x.dtype for x in inputs), torch.float32)


def _add_skip(y: Tensor, u: Tensor, D: Tensor | None) -> Tensor:
    return y if D is None else torch.addcmul(y, u, D.to(y.dtype))


def _tiles_and_chunks(x_BLE: Tensor, rate_NE: Tensor) -> tuple[list[slice], list[slice]]:
    """The samples of each tile, and the positions of each chunk."""
    samples, length, _ = x_BLE.shape
    size = max(1, _blocks_per_buffer(rate_NE) // STEPS)
    tiles = [slice(i, i + size) for i in range(0, samples, size)]
    return tiles, [slice(t, t + STEPS) for t in range(0, length, STEPS)]


def _by_positions(rate_NE: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """``(B, L, ...)`` as ``(P, ...)``, as many positions at a time as a work buffer holds."""
    size = _blocks_per_buffer(rate_NE)
    return zip(*(x.flatten(0, 1).split(size) for x in tensors), strict=True)


def _blocks_per_buffer(rate_NE: Tensor) -> int:
    """How many blocks of N x E a work buffer holds."""
    numbers = BUFFER_SIZE.get(rate_NE.device.type, BUFFER_SIZE["cuda"])
    return max(1, numbers // max(1, rate_NE.numel()))


def _states(
    buffers: tuple[_Buffer, _Buffer], h_SNE: Tensor, rate_NE: Tensor, *block: Tensor
) -> tuple[Tensor, Tensor]:
    """The decays of K steps from the state h, and the state after each, in two work buffers.

    The block is delta, x and B, each ``(S, K, .)``.
    """
    delta_SKE, x_SKE, B_SKN = block
    decay_SKNE = _decay(buffers[0], delta_SKE, rate_NE)
    h_SKNE = buffers[1].view(decay_SKNE.shape)
    torch.mul(B_SKN[..., None], x_SKE[:, :, None], out=h_SKNE)
    for decay_SNE, next_SNE in zip(decay_SKNE.unbind(1), h_SKNE.unbind(1), strict=True):
        h_SNE = next_SNE.addcmul_(decay_SNE, h_SNE)
    return decay_SKNE, h_SKNE


def _decay(buffer: _Buffer, time: Tensor, rate_NE: Tensor) -> Tensor:
    """``2^(time rate)`` in the buffer; ``(..., E)`` becomes ``(..., N, E)``."""
    exponent = buffer.view((*time.shape[:-1], *rate_NE.shape))
    return torch.mul(time.unsqueeze(-2), rate_NE, out=exponent).exp2_()


def _product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each vector times its matrix: ``(..., I)`` and ``(..., I, J)`` to ``(..., J)``."""
    with torch.autocast(vectors.device.type, enabled=False):  # it would round to a half type
        return (vectors.unsqueeze(-2) @ matrices).squeeze(-2)


def _sum_of_others(x_BLE: Tensor, later: bool) -> Tensor:
    """At each position the sum over all later, or all earlier, positions.

    Added up, not a difference of two cumulative sums: small sums next to large ones would lose their
    digits. On a CPU one by one, for there cumsum is slow along a dimension that is not the last.
    """
    if x_BLE.is_cuda:
        x_BLE = x_BLE.flip(1) if later else x_BLE
        sum_BLE = F.pad(x_BLE[:, :-1], (0, 0, 1, 0)).cumsum(1)
        return sum_BLE.flip(1) if later else sum_BLE
    sum_BLE = x_BLE.new_zeros(x_BLE.shape)
    steps = list(zip(sum_BLE.unbind(1), x_BLE.unbind(1), strict=True))
    for (sum_BE, x_BE), (next_BE, _) in pairwise(reversed(steps) if later else steps):
        torch.add(sum_BE, x_BE, out=next_BE)
    return sum_BLE
