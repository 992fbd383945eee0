"""Kernels for a CPU that read rows by index and gather none, with one shared gradient of the rows.

    gather_dot    s[b, h, l] = q[b, h] . rows[index[b, l]]
    gather_sum    y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    scatter_sum   g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need. The gradients of s are ``gather_sum(ds)`` at q and
``scatter_sum(ds, q)`` at the rows; those of y are ``gather_dot(dy)`` at w and ``scatter_sum(w,
dy)`` at the rows. A gather would write and read again ``B L D`` numbers; these kernels read each
row where it lies.

Autograd would give each operation a dense gradient of the rows and add them up. Here each operation
takes the rows' anchor, a scalar, as an input. In backward it hands its part to a ``RowGradient``,
and autograd calls the anchor when every part is there. Derivatives of a derivative are not
available. The last two inputs of each operation are the anchor (None where the rows need no
gradient) and the ``RowGradient``.

Shape suffixes: B samples, H heads, L positions, U rows, V sums of S rows, R of them in use, D
width; in ``scatter_sum`` V vectors and P positions of all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..ops.dropout import keep_factors

# Under autocast too, these operations take float32 and round nothing.
unrounded = custom_fwd(device_type="cpu", cast_inputs=torch.float32)
unrounded_backward = custom_bwd(device_type="cpu")


def gather_dot(query_BHD: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """The product of each query with each position's row, ``(B, H, L)``; not differentiable."""
    B, H, _ = query_BHD.shape
    L = index_BL.shape[1]
    index = index_BL.repeat_interleave(H, dim=0)
    query = query_BHD.flatten(0, 1)
    if len(rows_UD) < L:  # less work, and torch allows a sparse line no more entries than columns
        return (query @ rows_UD.T).gather(1, index).view(B, H, L)
    silence_warning()
    # A sparse matrix whose every line has L entries, at the positions' rows.
    line = torch.arange(0, index.numel() + 1, L, device=index.device)
    zeros = rows_UD.new_zeros(index.numel())
    pattern = torch.sparse_csr_tensor(
        line, index.flatten(), zeros, (B * H, len(rows_UD)), check_invariants=False
    )
    found = torch.sparse.sampled_addmm(pattern, query.contiguous(), rows_UD.T, beta=0.0)
    return found.values().view(B, H, L)


@cache
def silence_warning() -> None:
    """Use up torch's only warning that sparse rows are in beta, where nobody sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


def gather_sum(weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """The weighted sum of the positions' rows, ``(B, H, D)``; not differentiable."""
    B, H, _ = weights_BHL.shape
    index = index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    return F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights).view(B, H, -1)


def scatter_sum(parts: Sequence[tuple[Tensor, Tensor, Tensor]], rows: int) -> tuple[Tensor, Tensor]:
    """The gradient of the rows, summed over several operations: all positions are sorted at once.

    Args:
        parts: weights ``(B, H, L)``, vectors ``(B, H, D)`` and index ``(B, L)`` of each.
        rows: U.

    Returns:
        The sums ``(U, D)``, and how many terms each row has, ``(U,)``.
    """
    index, weights, vectors, lengths = [], [], [], []
    for weights_BHL, vectors_BHD, index_BL in parts:
        B, H, L = weights_BHL.shape
        index.append(index_BL[:, None].expand(B, H, L).reshape(-1))
        weights.append(weights_BHL.reshape(-1))
        vectors.append(vectors_BHD.flatten(0, 1))
        lengths.append(index_BL.new_full((B * H,), L))
    row_P, order_P = torch.cat(index).sort(stable=True)
    count_U = row_P.bincount(minlength=rows)
    vector_P = torch.repeat_interleave(torch.cat(lengths), output_size=len(row_P))
    sum_UD = F.embedding_bag(
        vector_P[order_P],
        torch.cat(vectors),
        count_U.cumsum(0) - count_U,
        mode="sum",
        per_sample_weights=torch.cat(weights)[order_P],
    )
    return sum_UD, count_U


class RowGradient:
    """The parts of the gradient of some rows, to be summed at once.

    Args:
        rows: U.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._backward = -1
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, weights_BHL: Tensor, vectors_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """Add a part, as ``scatter_sum`` has it; returns what the anchor gets as its gradient."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # drop parts of one that did not ask for the rows
            self._backward, self._parts = backward, []
        self._parts.append((weights_BHL, vectors_BHD, index_BL))
        return vectors_BHD.new_zeros(())

    def take(self) -> tuple[Tensor, Tensor]:
        """The sum of the parts ``(U, D)``, and how many terms each row has."""
        parts, self._parts = self._parts, []
        return scatter_sum(parts, self._rows)


class Anchor(Function):
    """A scalar that stands for the rows in the graph."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, gradient: RowGradient) -> Tensor:
        ctx.gradient = gradient
        return rows_UD.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.take()[0], None


class SumsAnchor(Function):
    """The anchor of sums of rows: their gradient becomes a part of that of the rows."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        parent: RowGradient,
        own: RowGradient,
        index_VS: Tensor,
        share_VS: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(index_VS, share_VS)
        ctx.gradients = parent, own
        return anchor.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        index_VS, share_VS = ctx.saved_tensors
        parent, own = ctx.gradients
        sum_VD, count_V = own.take()
        row_R = count_V.nonzero().flatten()
        part = share_VS[row_R, None], sum_VD[row_R, None], index_VS[row_R]
        return parent.add(*part), None, None, None, None


class GatherRows(Function):
    """The rows of the positions, ``(B, L, D)``."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, index_BL: Tensor, *anchor: Any) -> Tensor:
        ctx.save_for_backward(index_BL)
        ctx.gradient = anchor[1]
        return F.embedding(index_BL, rows_UD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_BLD: Tensor) -> tuple[Tensor | None, ...]:
        (index_BL,) = ctx.saved_tensors
        dx_P1D = dx_BLD.reshape(-1, 1, dx_BLD.shape[-1])  # a position is a sum of one row
        part = dx_P1D.new_ones(len(dx_P1D), 1, 1), dx_P1D, index_BL.reshape(-1, 1)
        return None, None, ctx.gradient.add(*part), None


class SumRows(Function):
    """``gather_sum``, differentiable."""

    @staticmethod
    @unrounded
    def forward(
        ctx: Any, weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor, *anchor: Any
    ) -> Tensor:
        ctx.save_for_backward(weights_BHL, rows_UD, index_BL)
        ctx.gradient = anchor[1]
        return gather_sum(weights_BHL, rows_UD, index_BL)

    @staticmethod
    @unrounded_backward
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor) -> tuple[Tensor | None, ...]:
        weights_BHL, rows_UD, index_BL = ctx.saved_tensors
        dweights_BHL = gather_dot(dy_BHD, rows_UD, index_BL) if ctx.needs_input_grad[0] else None
        part = None
        if ctx.needs_input_grad[3]:
            part = ctx.gradient.add(weights_BHL, dy_BHD, index_BL)
        return dweights_BHL, None, None, part, None


class AttendRows(Function):
    """``functional.attend`` with rows as keys and values, differentiable.

    With p the softmax and m the dropout's factors, ``y = gather_sum(m p)`` and ``t = sum_l m p``.
    So ``dp = m (gather_dot(dy) + dt)`` and ``ds = p (dp - p . dp)``.
    """

    @staticmethod
    @unrounded
    def forward(
        ctx: Any,
        query_BHD: Tensor,
        mask_BL: Tensor,
        dropout: float,
        rows_UD: Tensor,
        index_BL: Tensor,
        *anchor: Any,
    ) -> tuple[Tensor, Tensor]:
        scores_BHL, mask_B1L = gather_dot(query_BHD, rows_UD, index_BL), mask_BL[:, None]
        scores_BHL.masked_fill_(~mask_B1L, torch.finfo(scores_BHL.dtype).min)
        p_BHL = scores_BHL.softmax(-1).mul_(mask_B1L)
        factor_BHL = keep_factors(p_BHL, dropout) if dropout else None
        weights_BHL = p_BHL if factor_BHL is None else p_BHL * factor_BHL
        ctx.save_for_backward(query_BHD, rows_UD, index_BL, p_BHL, factor_BHL)
        ctx.gradient = anchor[1]
        return gather_sum(weights_BHL, rows_UD, index_BL), weights_BHL.sum(-1)

    @staticmethod
    @unrounded_backward
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor, dt_BH: Tensor) -> tuple[Tensor | None, ...]:
        query_BHD, rows_UD, index_BL, p_BHL, factor_BHL = ctx.saved_tensors
        dp_BHL, weights_BHL = gather_dot(dy_BHD, rows_UD, index_BL) + dt_BH[:, :, None], p_BHL
        if factor_BHL is not None:
            dp_BHL, weights_BHL = dp_BHL * factor_BHL, p_BHL * factor_BHL
        ds_BHL = p_BHL * (dp_BHL - (p_BHL * dp_BHL).sum(-1, keepdim=True))
        dquery_BHD = gather_sum(ds_BHL, rows_UD, index_BL)
        part = None
        if ctx.needs_input_grad[5]:
            weights = torch.cat([weights_BHL, ds_BHL], dim=1)
            vectors = torch.cat([dy_BHD, query_BHD], dim=1)
            part = ctx.gradient.add(weights, vectors, index_BL)
        return dquery_BHD, None, None, None, None, part, None
