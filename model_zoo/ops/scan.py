"""The selective scan, which is the recurrence of Mamba (S6), in plain torch.

For every sample and channel, with a state ``h`` of N numbers and ``h_0 = 0``:

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = sum_n C_t[n] h_t[n] + D u_t

``selective_scan`` gives all ``y_t`` (``selective_scan_last`` in ``scan_last`` only the newest), and
``selective_scan_reference`` says what it computes. Softplus and bias of ``delta`` and the gate on
``y`` are the caller's. A position with ``delta = 0`` leaves the state exactly as it is, so left
padding that is masked changes no later output.

Half types are computed in float32, also under autocast, and the output has the type of ``u``.
Exponents are never positive, so no step is too large.

Shape suffixes: B samples, L length, E channels, N state, K steps of a chunk, S samples of a tile,
J chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .mamba_ssm import call_mamba, kernel_for
from .scan_buffers import (
    LN_2,
    LOG2_E,
    Work,
    WorkBuffer,
    blocks_per_buffer,
    compute_dtype,
    mask_steps,
    product,
)

# K: forward keeps the state every K steps, backward computes the others again. A GPU pays for every
# call, a CPU for every byte that its cache cannot hold.
STEPS = {"cpu": 8, "cuda": 32}


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The definition of ``selective_scan``, step by step, in the type of the inputs."""
    delta = mask_steps(delta, mask)
    h_BEN = u.new_zeros(len(u), *A.shape)
    outputs = []
    for t in range(u.shape[1]):
        decay_BEN = torch.exp(delta[:, t, :, None] * A)
        h_BEN = decay_BEN * h_BEN + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        outputs.append((h_BEN * C[:, t, None]).sum(-1))
    y_BLE = torch.stack(outputs, dim=1)
    return y_BLE if D is None else y_BLE + D * u


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The outputs of all positions.

    On CUDA this is ``mamba_ssm``'s kernel where that is installed. Else it goes step by step, in
    place; backward keeps ``B L E N / STEPS`` numbers beside the inputs.

    Args:
        u: ``(B, L, E)``, L at least 1.
        delta: step sizes, ``(B, L, E)``, not negative.
        A: ``(E, N)``, negative.
        B: ``(B, L, N)``.
        C: ``(B, L, N)``.
        D: ``(E,)``; None leaves the last term out.
        mask: real positions, ``(B, L)``; delta counts as 0 at the others. None: all are real.

    Returns:
        ``(B, L, E)``, in the type of ``u``.
    """
    delta = mask_steps(delta, mask)
    dtype = compute_dtype(u, delta, A, B, C)
    kernel = kernel_for(u, A, dtype)
    if kernel is not None:
        return call_mamba(kernel, u, delta, A, B, C, D)
    rate_NE = (A.to(dtype) * LOG2_E).T.contiguous()
    D_E = u.new_zeros(len(A)) if D is None else D
    inputs = (x.to(dtype) for x in (D_E, u, delta, B, C))
    return _Scan.apply(torch.is_grad_enabled(), rate_NE, *inputs).to(u.dtype)


class _Scan(Function):
    """``y_t = sum_n C_t[n] h_t[n] + D u_t`` of all positions.

    A tile of samples takes K steps at a time, in place, so that its work buffers stay in the cache.
    ``rows`` are u, delta, B and C, each ``(B, L, .)``.
    """

    @staticmethod
    def forward(ctx: Any, keep_states: bool, rate_NE: Tensor, D_E: Tensor, *rows: Tensor) -> Tensor:
        buffers = [WorkBuffer(rate_NE) for _ in range(2)]
        y_BLE = torch.empty(rows[0].shape, dtype=D_E.dtype, device=D_E.device)
        kept = -(-y_BLE.shape[1] // _steps(rate_NE)) if keep_states else 0
        starts_JBNE = y_BLE.new_empty(kept, len(y_BLE), *rate_NE.shape)  # before each chunk
        for tile, chunks in _tiles(rate_NE, *rows, y_BLE):
            h_SNE = rate_NE.new_zeros(len(y_BLE[tile]), *rate_NE.shape)
            for j, (u_SKE, delta_SKE, B_SKN, C_SKN, y_SKE) in enumerate(chunks):
                if keep_states:
                    starts_JBNE[j, tile] = h_SNE
                _, h = _states(buffers, h_SNE, rate_NE, delta_SKE, delta_SKE * u_SKE, B_SKN)
                torch.addcmul(h.over_states(C_SKN), u_SKE, D_E, out=y_SKE)
                h_SNE.copy_(h.steps[-1])
        ctx.save_for_backward(starts_JBNE, rate_NE, D_E, *rows)
        return y_BLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLE: Tensor) -> tuple[Tensor | None, ...]:
        starts_JBNE, rate_NE, D_E, *rows = ctx.saved_tensors
        *buffers, spare = (WorkBuffer(rate_NE) for _ in range(3))
        gradients = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in rows]
        drate_NE, dD_E = torch.zeros_like(rate_NE), torch.zeros_like(D_E)
        for tile, chunks in _tiles(rate_NE, *rows, dy_BLE, *gradients):
            carry_SNE, drate_SNE = rate_NE.new_zeros(2, len(dy_BLE[tile]), *rate_NE.shape)
            for j, chunk in reversed(list(enumerate(chunks))):
                u_SKE, delta_SKE, B_SKN, C_SKN, dy_SKE, *found = chunk
                h_SNE, x_SKE = starts_JBNE[j, tile], delta_SKE * u_SKE
                decay, h = _states(buffers, h_SNE, rate_NE, delta_SKE, x_SKE, B_SKN)
                # dh_{k-1} = C_{k-1} dy_{k-1} + decay_k dh_k; that of the chunk before is carried
                dh = spare.outer(C_SKN, dy_SKE)
                dh.steps[-1].add_(carry_SNE)
                before_h, before_dh = (h_SNE, *h.steps), (carry_SNE.zero_(), *dh.steps)
                for k, delta_S1E in reversed(list(enumerate(delta_SKE[:, :, None].unbind(1)))):
                    passed_SNE = decay.steps[k].mul_(dh.steps[k])
                    before_dh[k].add_(passed_SNE)
                    dexponent_SNE = passed_SNE.mul_(before_h[k])  # of delta_k rate
                    drate_SNE.addcmul_(dexponent_SNE, delta_S1E)
                decay.whole.mul_(rate_NE)  # no longer decays, but what their exponents pass on
                dx_SKE, dtime_SKE = dh.over_states(B_SKN), decay.over_states()
                du_SKE, ddelta_SKE, dB_SKN, dC_SKN = found
                torch.mul(dx_SKE, delta_SKE, out=du_SKE).addcmul_(dy_SKE, D_E)
                torch.mul(dx_SKE, u_SKE, out=ddelta_SKE).add_(dtime_SKE, alpha=LN_2)
                dB_SKN.copy_(product(x_SKE, dh.whole.mT))
                dC_SKN.copy_(product(dy_SKE, h.whole.mT))
                if ctx.needs_input_grad[2]:
                    dD_E += (dy_SKE * u_SKE).sum((0, 1))
            drate_NE += drate_SNE.sum(0)
        return None, LN_2 * drate_NE, dD_E, *gradients


def _tiles(rate_NE: Tensor, *rows: Tensor) -> Iterator[tuple[slice, list[tuple[Tensor, ...]]]]:
    """The samples of each tile, and its chunks: K positions of each of the rows."""
    steps = _steps(rate_NE)
    size = max(1, blocks_per_buffer(rate_NE) // steps)
    for start in range(0, len(rows[0]), size):
        tile = slice(start, start + size)
        yield tile, list(zip(*(row[tile].split(steps, dim=1) for row in rows), strict=True))


def _steps(rate_NE: Tensor) -> int:
    """K for the device of a tensor."""
    return STEPS.get(rate_NE.device.type, STEPS["cuda"])


def _states(
    buffers: list[WorkBuffer], h_SNE: Tensor, rate_NE: Tensor, *block: Tensor
) -> tuple[Work, Work]:
    """The decays of K steps that start at the state h, and the state after each step.

    The block is delta, x and B, each ``(S, K, .)``.
    """
    delta_SKE, x_SKE, B_SKN = block
    decay, h = buffers[0].decay(delta_SKE, rate_NE), buffers[1].outer(B_SKN, x_SKE)
    for decay_SNE, next_SNE in zip(decay.steps, h.steps, strict=True):
        h_SNE = next_SNE.addcmul_(decay_SNE, h_SNE)
    return decay, h
