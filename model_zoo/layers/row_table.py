"""Products with rows that are named by index: no row is gathered, no gradient is larger than one table.

    scores   s[b, h, l] = q[b, h] . rows[index[b, l]]
    sums     y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    outer    g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need: of s they are ``sums(ds)`` at q and ``outer(ds, q)`` at
the rows, of y ``scores(dy)`` at w and ``outer(w, dy)`` at the rows. A gather writes and reads again
``B L D`` numbers; these read each row where it lies.

Shape suffixes: B samples, H heads, L positions, U rows, R rows in use, D width.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

with warnings.catch_warnings():  # torch says once that sparse rows are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


class RowTable:
    """Rows, and the one gradient that all products with them add to.

    Autograd would give each product a dense gradient of its own and add them up. Here all hang on one
    scalar, so that the rows' turn comes when every product has added its part. Derivatives of a
    derivative are not available.

    Args:
        rows_UD: differentiable.
    """

    def __init__(self, rows_UD: Tensor) -> None:
        self.rows_UD = rows_UD
        self._gradient = RowGradient()
        self._anchor: Tensor | None = None

    def scores(self, query_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """The product of each query with each position's row, ``(B, H, L)``."""
        return _Scores.apply(query_BHD, *self._inputs(index_BL))

    def sums(self, weights_BHL: Tensor, index_BL: Tensor) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``."""
        return _Sums.apply(weights_BHL, *self._inputs(index_BL))

    def gather(self, index_BL: Tensor) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if self.rows_UD.is_cuda:
            return F.embedding(index_BL, self.rows_UD)
        return _Gather.apply(*self._inputs(index_BL))

    def _inputs(self, index_BL: Tensor) -> tuple[Any, ...]:
        differentiable = torch.is_grad_enabled() and self.rows_UD.requires_grad
        if differentiable and self._anchor is None:
            self._anchor = _Anchor.apply(self.rows_UD, self._gradient)
        anchor = self._anchor if differentiable else None
        return self.rows_UD.detach(), index_BL, anchor, self._gradient


class RowGradient:
    """The sum of ``outer`` products, until the rows take it."""

    def __init__(self) -> None:
        self._sum_UD: Tensor | None = None
        self._parts = 0

    def add(self, rows_UD: Tensor, row_R: Tensor, part_RD: Tensor) -> Tensor:
        """Add to rows ``row_R``; returns the gradient of the anchor: one part."""
        if self._sum_UD is None:
            self._sum_UD = torch.zeros_like(rows_UD)
        self._sum_UD.index_add_(0, row_R, part_RD)
        self._parts += 1
        return rows_UD.new_ones(())

    def take(self, parts: int) -> Tensor:
        """The sum of that many parts."""
        if parts != self._parts:
            raise RuntimeError(
                "a gradient that left out the item rows was taken before; ask for all in one call"
            )
        total_UD, self._sum_UD, self._parts = self._sum_UD, None, 0
        return total_UD


def scores(query_BHD: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """``s`` of the module, outside autograd."""
    H, L = query_BHD.shape[1], index_BL.shape[1]
    column = index_BL.repeat_interleave(H, dim=0).flatten()
    # A sparse matrix whose every line has L entries, at the positions' rows.
    lines = torch.arange(0, len(column) + 1, L, device=column.device)
    size = (len(lines) - 1, len(rows_UD))
    pattern = torch.sparse_csr_tensor(
        lines, column, rows_UD.new_zeros(len(column)), size, check_invariants=False
    )
    query = query_BHD.flatten(0, 1).contiguous()
    found = torch.sparse.sampled_addmm(pattern, query, rows_UD.T, beta=0.0)
    return found.values().view(-1, H, L)


def sums(weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """``y`` of the module, outside autograd."""
    H = weights_BHL.shape[1]
    index = index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    return F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights).unflatten(
        0, (-1, H)
    )


def outer(weights_BHL: Tensor, vectors_BHD: Tensor, index_BL: Tensor) -> tuple[Tensor, Tensor]:
    """``g`` of the module: the rows in use, and their gradients ``(R, D)``; outside autograd."""
    H, L = weights_BHL.shape[1:]
    row, order = index_BL.repeat_interleave(H, dim=0).flatten().sort(stable=True)
    row_R, count_R = row.unique_consecutive(return_counts=True)
    part_RD = F.embedding_bag(
        order // L,
        vectors_BHD.flatten(0, 1),
        F.pad(count_R.cumsum(0)[:-1], (1, 0)),
        mode="sum",
        per_sample_weights=weights_BHL.flatten()[order],
    )
    return row_R, part_RD


class _Anchor(Function):
    """A scalar that stands for the rows; its gradient counts the parts that were added."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, gradient: RowGradient) -> Tensor:
        ctx.gradient = gradient
        return rows_UD.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, parts: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.take(int(parts)), None


class _Gather(Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_UD: Tensor,
        index_BL: Tensor,
        anchor: Tensor | None,
        gradient: RowGradient,
    ) -> Tensor:
        ctx.save_for_backward(rows_UD, index_BL)
        ctx.gradient = gradient
        return F.embedding(index_BL, rows_UD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_BLD: Tensor) -> tuple[Tensor | None, ...]:
        rows_UD, index_BL = ctx.saved_tensors
        part = None
        if ctx.needs_input_grad[2]:
            part = ctx.gradient.add(rows_UD, index_BL.flatten(), dx_BLD.flatten(0, 1))
        return None, None, part, None


class _Scores(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_BHD: Tensor,
        rows_UD: Tensor,
        index_BL: Tensor,
        anchor: Tensor | None,
        gradient: RowGradient,
    ) -> Tensor:
        ctx.save_for_backward(query_BHD, rows_UD, index_BL)
        ctx.gradient = gradient
        return scores(query_BHD, rows_UD, index_BL)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ds_BHL: Tensor) -> tuple[Tensor | None, ...]:
        query_BHD, rows_UD, index_BL = ctx.saved_tensors
        dquery_BHD = sums(ds_BHL, rows_UD, index_BL) if ctx.needs_input_grad[0] else None
        part = None
        if ctx.needs_input_grad[3]:
            part = ctx.gradient.add(rows_UD, *outer(ds_BHL, query_BHD, index_BL))
        return dquery_BHD, None, None, part, None


class _Sums(Function):
    @staticmethod
    def forward(
        ctx: Any,
        weights_BHL: Tensor,
        rows_UD: Tensor,
        index_BL: Tensor,
        anchor: Tensor | None,
        gradient: RowGradient,
    ) -> Tensor:
        ctx.save_for_backward(weights_BHL, rows_UD, index_BL)
        ctx.gradient = gradient
        return sums(weights_BHL, rows_UD, index_BL)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor) -> tuple[Tensor | None, ...]:
        weights_BHL, rows_UD, index_BL = ctx.saved_tensors
        dweights_BHL = scores(dy_BHD, rows_UD, index_BL) if ctx.needs_input_grad[0] else None
        part = None
        if ctx.needs_input_grad[3]:
            part = ctx.gradient.add(rows_UD, *outer(weights_BHL, dy_BHD, index_BL))
        return dweights_BHL, None, None, part, None
