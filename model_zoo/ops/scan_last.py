"""The newest output of a selective scan, as a sum over positions without recurrence.

With ``h_0 = 0`` the last state of the recurrence in ``selective_scan`` is

    h_L = sum_t exp(later_t A) delta_t B_t u_t,    later_t = delta_{t+1} + ... + delta_L

and the newest output needs only this state: ``y_L = sum_n C_L[n] h_L[n] + D u_L``.

Most terms are exactly zero. The n-th state of Mamba starts with ``A = -n``. Once ``later_t n`` is
above 104, its factor in float32 is exactly 0. Such terms are not computed. They change no digit of
the result, however small the other terms are.

Shape suffixes: B samples, L length, E channels, N state, S samples of a tile, K positions of a
chunk, M states that are not zero there.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .compiled import on_eager_cpu
from .scan_buffers import LN_2, ZERO_BELOW, WorkBuffer, blocks_per_buffer

POSITIONS = 8  # K: all positions of a chunk compute as many states as its newest position


class LastOutput(Function):
    """The newest output without ``D u``, ``(B, E)``, from rates ``A log2(e)`` and ``G_t = B_t C_L``.

    It is ``y_L = sum_t weight_t delta_t u_t`` with ``weight_t = sum_n G_t[n] 2^(later_t rate[n])``.
    Positions do not depend on each other, so the work buffers hold any samples and positions at a
    time. The mask is True at real positions; None means that all are real. Steps are 0 at padding.
    """

    @staticmethod
    def forward(ctx: Any, mask_BL: Tensor | None, rate_NE: Tensor, *rows: Tensor) -> Tensor:
        delta_BLE, u_BLE, G_BLN = rows
        later_BLE = _sum_of_others(delta_BLE, later=True)
        parts = list(_parts(later_BLE, mask_BL, rate_NE))
        weight_BLE = torch.empty_like(later_BLE)
        y_BE = torch.zeros_like(u_BLE[:, 0])
        buffer = WorkBuffer(rate_NE)
        for part, M in parts:
            term_SKME = buffer.decay(later_BLE[part], rate_NE[:M])
            term_SKME.mul_(G_BLN[part][..., :M, None])
            weight_SKE = torch.sum(term_SKME, 2, out=weight_BLE[part])
            y_BE[part[0]] += (weight_SKE * delta_BLE[part]).mul_(u_BLE[part]).sum(1)
        ctx.parts = parts
        ctx.save_for_backward(rate_NE, *rows, later_BLE, weight_BLE)
        return y_BE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BE: Tensor) -> tuple[Tensor | None, ...]:
        rate_NE, delta_BLE, u_BLE, G_BLN, later_BLE, weight_BLE = ctx.saved_tensors
        du_BLE, ddelta_BLE, dlater_BLE, dG_BLN = (
            torch.zeros_like(x) for x in (u_BLE, delta_BLE, later_BLE, G_BLN)
        )
        drate_NE = torch.zeros_like(rate_NE)
        buffer, spare = WorkBuffer(rate_NE), WorkBuffer(rate_NE)
        for part, M in ctx.parts:
            later_SKE, delta_SKE, u_SKE = later_BLE[part], delta_BLE[part], u_BLE[part]
            dy_S1E = dy_BE[part[0], None]
            dx_SKE = weight_BLE[part] * dy_S1E  # gradient of x = delta u
            torch.mul(dx_SKE, delta_SKE, out=du_BLE[part])
            torch.mul(dx_SKE, u_SKE, out=ddelta_BLE[part])

            dweight_SKE = torch.mul(delta_SKE, u_SKE, out=dx_SKE).mul_(dy_S1E)
            term_SKME = buffer.decay(later_SKE, rate_NE[:M]).mul_(dweight_SKE[:, :, None])
            dG_BLN[part][..., :M] = term_SKME.sum(-1)
            term_SKME.mul_(G_BLN[part][..., :M, None])
            timed_SKME = spare.view(*term_SKME.shape)
            torch.mul(term_SKME, later_SKE[:, :, None], out=timed_SKME)
            drate_NE[:M] += timed_SKME.sum((0, 1))
            torch.sum(term_SKME.mul_(rate_NE[:M]), 2, out=dlater_BLE[part])
        ddelta_BLE.add_(_sum_of_others(dlater_BLE, later=False), alpha=LN_2)
        return None, LN_2 * drate_NE, ddelta_BLE, du_BLE, dG_BLN


def _parts(
    later_BLE: Tensor, mask_BL: Tensor | None, rate_NE: Tensor
) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Yield samples and positions that are computed together, and how many states they need."""
    live_L = _live_states(later_BLE, mask_BL, rate_NE)
    # A program runs every call that it has traced, so it gets few.
    positions = len(live_L) if torch.compiler.is_exporting() else POSITIONS
    for stop in range(len(live_L), 0, -positions):
        chunk, M = slice(max(0, stop - positions), stop), live_L[stop - 1]
        if not M:
            return  # older positions need no state either
        size = max(1, blocks_per_buffer(rate_NE[:M]) // positions)
        for start in range(0, len(later_BLE), size):
            yield (slice(start, start + size), chunk), M


def _live_states(later_BLE: Tensor, mask_BL: Tensor | None, rate_NE: Tensor) -> list[int]:
    """For each position, the number M of states to compute; all later states are exactly zero.

    The largest factor of a state is the one with the shortest time and the slowest channel. Terms
    of padding are zero anyway. On a GPU all states are computed, since the host would have to wait
    for the numbers.
    """
    N, length = len(rate_NE), later_BLE.shape[1]
    if not on_eager_cpu(later_BLE) or not later_BLE.numel():
        return [N] * length
    shortest_BL = later_BLE.amin(-1)
    if mask_BL is not None:
        shortest_BL = shortest_BL.masked_fill(~mask_BL.bool(), math.inf)
    # The shortest time of this and all older positions, since a position that is padding in all
    # samples must not hide older ones.
    shortest_L = shortest_BL.amin(0).cummin(0).values
    exponent_LN = shortest_L[:, None] * rate_NE.amax(-1)
    live_LN = ~(exponent_LN <= ZERO_BELOW[rate_NE.dtype])  # NaN counts
    return (live_LN * torch.arange(1, N + 1)).amax(1).tolist()


def _sum_of_others(x_BLE: Tensor, later: bool) -> Tensor:
    """For each position, the sum over all later positions, or over all earlier ones.

    It is not the difference of two cumulative sums, in which small sums would lose digits next to
    large ones. On a CPU positions are added one by one, because cumsum is slow there along any
    dimension but the last.
    """
    if not on_eager_cpu(x_BLE):
        x_BLE = x_BLE.flip(1) if later else x_BLE
        sum_BLE = F.pad(x_BLE[:, :-1], (0, 0, 1, 0)).cumsum(1)
        return sum_BLE.flip(1) if later else sum_BLE
    sum_BLE = torch.empty_like(x_BLE)
    sum_BLE[:, -1 if later else 0] = 0
    steps = list(zip(sum_BLE.unbind(1), x_BLE.unbind(1), strict=True))
    for (sum_BE, x_BE), (next_BE, _) in pairwise(reversed(steps) if later else steps):
        torch.add(sum_BE, x_BE, out=next_BE)
    return sum_BLE
