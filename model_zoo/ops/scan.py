"""The selective scan, which is the recurrence of Mamba (S6), in plain torch.

For every sample and channel, with a state ``h`` of N numbers and ``h_0 = 0``:

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = sum_n C_t[n] h_t[n] + D u_t

``selective_scan`` computes all outputs or only the newest. ``selective_scan_reference`` defines
them. The caller applies softplus and bias to ``delta``, and the gate to ``y``. A position with
``delta = 0`` leaves the state exactly as it is. So masked left padding changes no later output.

Half types are computed in float32, also under autocast, and the output has the type of ``u``.
Exponents are never positive, so no step is too large.

Shape suffixes: B samples, L length, R positions read, E channels, N state, K steps of a chunk, S
samples of a tile, J chunks.
"""

from collections.abc import Callable, Iterator
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .packed_scan import can_fuse, segment_scan
from .precision import unrounded
from .scan_buffers import LN_2, LOG2_E, WorkBuffer, blocks_per_buffer, compute_dtype, sum_states
from .scan_last import LastOutput

# K: forward keeps the state every K steps, and backward computes the others again. On a GPU every
# call costs time, on a CPU every byte that does not fit into its cache.
STEPS_ON_CPU, STEPS_ON_GPU = 8, 32
MAX_STATE = 256  # the largest N of mamba_ssm's kernel


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """Compute all outputs step by step, as they are defined, in the type of the inputs."""
    h_BEN = u.new_zeros(len(u), *A.shape)
    outputs = []
    for t in range(u.shape[1]):
        decay_BEN = torch.exp(delta[:, t, :, None] * A)
        h_BEN = decay_BEN * h_BEN + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        outputs.append((h_BEN * C[:, t, None]).sum(-1) + D * u[:, t])
    return torch.stack(outputs, dim=1)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    mask: Tensor | None = None,
    *,
    last: bool = False,
) -> Tensor:
    """Run the selective scan: the outputs of all positions, or with ``last`` only the newest.

    On CUDA, ``mamba_ssm``'s kernel is used if it is installed. It computes all outputs in one pass
    over the inputs. Otherwise the newest output is a sum without recurrence (``scan_last``), and
    all outputs are computed step by step, in place. Their backward keeps ``B L E N / K`` numbers in
    addition to the inputs.

    Args:
        u: ``(B, L, E)``, L at least 1.
        delta: step sizes, ``(B, L, E)``, not negative.
        A: ``(E, N)``, negative.
        B: ``(B, L, N)``.
        C: ``(B, L, N)``, or with ``last`` only the newest position, ``(B, 1, N)``.
        D: ``(E,)``.
        mask: True at real positions, ``(B, L)``. At all others delta counts as 0. None means that
            all positions are real.
        last: compute the newest output only.

    Returns:
        ``(B, L, E)``, or with ``last`` ``(B, 1, E)``, in the type of ``u``.
    """
    if mask is not None:
        delta = delta * mask[:, :, None].to(delta.dtype)
    dtype = compute_dtype(u, delta, A, B, C)
    kernel = kernel_for(u, A, dtype)
    if kernel is not None:  # it takes positions last, and one type for all rows
        ours = u, delta, B, C.expand_as(B)
        common = reduce(torch.promote_types, (x.dtype for x in ours))
        u_BEL, delta_BEL, B_BNL, C_BNL = (x.mT.to(common) for x in ours)
        y_BEL = kernel(u_BEL, delta_BEL, A.float(), B_BNL, C_BNL, D.float())
        return y_BEL.mT[:, -1 if last else 0 :].to(u.dtype)
    A_EN, D_E, *rows = (x.to(dtype) for x in (A, D, u, delta, B, C))
    rate_NE = (A_EN * LOG2_E).T.contiguous()
    if not last:
        return _Scan.apply(torch.is_grad_enabled(), rate_NE, D_E, *rows).to(u.dtype)
    u_BLE, delta_BLE, B_BLN, C_B1N = rows
    if can_fuse(u.device):
        start_B = torch.arange(len(u), device=u.device) * u.shape[1]
        y_B1E = segment_scan(u_BLE, delta_BLE, A_EN, B_BLN, C_B1N, start_B, start_B + u.shape[1])
    else:
        y_B1E = LastOutput.apply(mask, rate_NE, delta_BLE, u_BLE, B_BLN * C_B1N)[:, None]
    return torch.addcmul(y_B1E, u_BLE[:, -1:], D_E).to(u.dtype)


def kernel_for(u: Tensor, A: Tensor, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """``mamba_ssm``'s scan if it can compute these inputs (CUDA and float32), otherwise None."""
    if u.is_cuda and dtype == torch.float32 and A.shape[1] <= MAX_STATE:
        return mamba_kernel()
    return None


@cache
def mamba_kernel() -> Callable[..., Tensor] | None:
    """``mamba_ssm``'s scan for CUDA; None if it is not installed or lacks its kernel."""
    try:
        from mamba_ssm.ops import selective_scan_interface as interface
    except ImportError:
        return None
    if getattr(interface, "selective_scan_cuda", None) is None:  # newer versions may lack it
        return None
    return interface.selective_scan_fn


class _Scan(Function):
    """Compute ``y_t = sum_n C_t[n] h_t[n] + D u_t`` for all positions.

    A tile of samples makes K steps at a time, in place, so that its work buffers stay in the cache.
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
                _, h_SKNE = _states(buffers, h_SNE, rate_NE, delta_SKE, delta_SKE * u_SKE, B_SKN)
                torch.addcmul(sum_states(h_SKNE, C_SKN), u_SKE, D_E, out=y_SKE)
                h_SNE.copy_(h_SKNE[:, -1])
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
                decay_SKNE, h_SKNE = _states(buffers, h_SNE, rate_NE, delta_SKE, x_SKE, B_SKN)
                # dh_{k-1} = C_{k-1} dy_{k-1} + decay_k dh_k; dh_0 goes to the chunk before.
                dh_SKNE = spare.outer(C_SKN, dy_SKE)
                dh_SKNE[:, -1].add_(carry_SNE)
                dh = carry_SNE.zero_(), *dh_SKNE.unbind(1)
                h = h_SNE, *h_SKNE.unbind(1)
                steps = zip(decay_SKNE.unbind(1), delta_SKE[:, :, None].unbind(1), strict=True)
                for k, (decay_SNE, delta_S1E) in reversed(list(enumerate(steps))):
                    passed_SNE = decay_SNE.mul_(dh[k + 1])
                    dh[k].add_(passed_SNE)
                    dexponent_SNE = passed_SNE.mul_(h[k])  # gradient of delta_k rate
                    drate_SNE.addcmul_(dexponent_SNE, delta_S1E)
                decay_SKNE.mul_(rate_NE)  # it now holds the gradients of the exponents
                dx_SKE, dtime_SKE = sum_states(dh_SKNE, B_SKN), sum_states(decay_SKNE)
                du_SKE, ddelta_SKE, dB_SKN, dC_SKN = found
                torch.mul(dx_SKE, delta_SKE, out=du_SKE).addcmul_(dy_SKE, D_E)
                torch.mul(dx_SKE, u_SKE, out=ddelta_SKE).add_(dtime_SKE, alpha=LN_2)
                dB_SKN.copy_(_product(x_SKE, dh_SKNE))
                dC_SKN.copy_(_product(dy_SKE, h_SKNE))
                dD_E += (dy_SKE * u_SKE).sum((0, 1))
            drate_NE += drate_SNE.sum(0)
        return None, LN_2 * drate_NE, dD_E, *gradients


def _tiles(rate_NE: Tensor, *rows: Tensor) -> Iterator[tuple[slice, list[tuple[Tensor, ...]]]]:
    """Yield the samples of each tile, and its chunks, which have K positions of each row tensor."""
    steps = _steps(rate_NE)
    size = max(1, blocks_per_buffer(rate_NE) // steps)
    for start in range(0, len(rows[0]), size):
        tile = slice(start, start + size)
        yield tile, list(zip(*(row[tile].split(steps, dim=1) for row in rows), strict=True))


def _steps(rate_NE: Tensor) -> int:
    return STEPS_ON_CPU if rate_NE.device.type == "cpu" else STEPS_ON_GPU


def _states(
    buffers: list[WorkBuffer], h_SNE: Tensor, rate_NE: Tensor, *block: Tensor
) -> tuple[Tensor, Tensor]:
    """The decays of K steps from the state h, and the state after each step.

    ``block`` is delta, x and B, each ``(S, K, .)``.
    """
    delta_SKE, x_SKE, B_SKN = block
    decay_SKNE, h_SKNE = buffers[0].decay(delta_SKE, rate_NE), buffers[1].outer(B_SKN, x_SKE)
    for decay_SNE, next_SNE in zip(decay_SKNE.unbind(1), h_SKNE.unbind(1), strict=True):
        h_SNE = next_SNE.addcmul_(decay_SNE, h_SNE)
    return decay_SKNE, h_SKNE


def _product(channels_SKE: Tensor, work_SKNE: Tensor) -> Tensor:
    """Sum the products of ``channels`` and ``work`` over the channels, ``(S, K, N)``."""
    with unrounded(work_SKNE):
        return (channels_SKE[:, :, None] @ work_SKNE.mT)[:, :, 0]
