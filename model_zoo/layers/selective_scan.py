"""Selective scan, the recurrence of Mamba (S6), as fast as plain torch gets.

For every sample and channel, with a state ``h`` of N numbers and ``h_0 = 0``:

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = sum_n C_t[n] h_t[n] + D u_t

``selective_scan`` gives all ``y_t`` (``selective_scan_last`` in ``final_state`` the newest only), and
``selective_scan_reference`` says what it computes. Softplus and bias of ``delta`` and the gate on
``y`` are the caller's. A position with ``delta = 0`` leaves the state exactly as it is, so left padding
that is masked changes no later output.

Half types are computed in float32, also under autocast, and the output has the type of ``u``.
Exponents are never positive, so no step is too large.

Shape suffixes: B samples, L length, E channels, N state, K steps of a chunk, S samples of a tile,
J chunks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .mamba_kernel import call_mamba, kernel_for
from .scan_parts import (
    LN_2,
    LOG2_E,
    Work,
    WorkBuffer,
    add_skip,
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
    """The definition, step by step, in the type of the inputs; see ``selective_scan``."""
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
        u: ``(B, L, E)``.
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
    u_BLE, delta_BLE, A_EN, B_BLN, C_BLN = (x.to(dtype) for x in (u, delta, A, B, C))
    rate_NE = (A_EN * LOG2_E).T.contiguous()
    y_BLE = _Scan.apply(torch.is_grad_enabled(), rate_NE, delta_BLE, u_BLE, B_BLN, C_BLN)
    return add_skip(y_BLE, u_BLE, D).to(u.dtype)


class _Scan(Function):
    """``sum_n C_t[n] h_t[n]`` of all positions.

    A tile of samples takes K steps at a time, in place, so that its work buffers stay in the cache.
    ``rows`` are delta, u, B and C, each ``(B, L, .)``.
    """

    @staticmethod
    def forward(ctx: Any, keep_states: bool, rate_NE: Tensor, *rows: Tensor) -> Tensor:
        tiles, chunks = _tiles_and_chunks(rows[0], rate_NE)
        buffers = [WorkBuffer(rate_NE) for _ in range(2)]
        y_BLE = torch.empty_like(rows[0])
        starts_shape = (len(chunks) if keep_states else 0, len(y_BLE), *rate_NE.shape)
        starts_JBNE = y_BLE.new_empty(starts_shape)  # the state before each chunk
        for tile in tiles:
            h_SNE = rate_NE.new_zeros(len(y_BLE[tile]), *rate_NE.shape)
            for j, chunk in enumerate(chunks):
                if keep_states:
                    starts_JBNE[j, tile] = h_SNE
                delta_SKE, u_SKE, B_SKN, C_SKN = (row[tile, chunk] for row in rows)
                _, h = _states(buffers, h_SNE, rate_NE, delta_SKE, delta_SKE * u_SKE, B_SKN)
                y_BLE[tile, chunk] = product(C_SKN, h.whole)
                h_SNE.copy_(h.steps[-1])
        ctx.save_for_backward(starts_JBNE, rate_NE, *rows)
        return y_BLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLE: Tensor) -> tuple[Tensor | None, ...]:
        starts_JBNE, rate_NE, *rows = ctx.saved_tensors
        tiles, chunks = _tiles_and_chunks(dy_BLE, rate_NE)
        *buffers, spare = (WorkBuffer(rate_NE) for _ in range(3))
        gradients = [torch.empty_like(row) for row in rows]
        drate_NE = torch.zeros_like(rate_NE)
        for tile in tiles:
            carry_SNE, drate_SNE = rate_NE.new_zeros(2, len(dy_BLE[tile]), *rate_NE.shape)
            for j, chunk in reversed(list(enumerate(chunks))):
                h_SNE = starts_JBNE[j, tile]
                delta_SKE, u_SKE, B_SKN, C_SKN, dy_SKE = (
                    row[tile, chunk] for row in (*rows, dy_BLE)
                )
                x_SKE = delta_SKE * u_SKE
                decay, h = _states(buffers, h_SNE, rate_NE, delta_SKE, x_SKE, B_SKN)
                # dh_{k-1} = C_{k-1} dy_{k-1} + decay_k dh_k; that of the chunk before is carried
                dh = spare.outer(C_SKN, dy_SKE)
                dh.steps[-1].add_(carry_SNE)
                before_h, before_dh = (h_SNE, *h.steps), (carry_SNE.zero_(), *dh.steps)
                for k, delta_SE in reversed(list(enumerate(delta_SKE.unbind(1)))):
                    passed_SNE = decay.steps[k].mul_(dh.steps[k])
                    before_dh[k].add_(passed_SNE)
                    dexponent_SNE = passed_SNE.mul_(before_h[k])  # of delta_k rate
                    drate_SNE.addcmul_(dexponent_SNE, delta_SE[:, None])
                dexponent_SKNE = decay.whole
                dx_SKE, dB_SKN = product(B_SKN, dh.whole), product(x_SKE, dh.whole.mT)
                dC_SKN = product(dy_SKE, h.whole.mT)
                ddelta_SKE = dexponent_SKNE.mul_(rate_NE).sum(2).mul_(LN_2).addcmul_(dx_SKE, u_SKE)
                found = (ddelta_SKE, dx_SKE.mul_(delta_SKE), dB_SKN, dC_SKN)
                for gradient, part in zip(gradients, found, strict=True):
                    gradient[tile, chunk] = part
            drate_NE += drate_SNE.sum(0)
        return None, LN_2 * drate_NE, *gradients


def _tiles_and_chunks(x_BLE: Tensor, rate_NE: Tensor) -> tuple[list[slice], list[slice]]:
    """The samples of each tile, and the positions of each chunk."""
    samples, length, _ = x_BLE.shape
    steps = STEPS.get(x_BLE.device.type, STEPS["cuda"])
    size = max(1, blocks_per_buffer(rate_NE) // steps)
    tiles = [slice(i, i + size) for i in range(0, samples, size)]
    return tiles, [slice(t, t + steps) for t in range(0, length, steps)]


def _states(
    buffers: list[WorkBuffer], h_SNE: Tensor, rate_NE: Tensor, *block: Tensor
) -> tuple[Work, Work]:
    """The decays of K steps from the state h, and the state after each.

    The block is delta, x and B, each ``(S, K, .)``.
    """
    delta_SKE, x_SKE, B_SKN = block
    decay, h = buffers[0].decay(delta_SKE, rate_NE), buffers[1].outer(B_SKN, x_SKE)
    for decay_SNE, next_SNE in zip(decay.steps, h.steps, strict=True):
        h_SNE = next_SNE.addcmul_(decay_SNE, h_SNE)
    return decay, h
