"""Products with rows, differentiable, and the one gradient of the rows that all of them add to.

Autograd would give each product a dense gradient of its own and add them up. Here each product of a
table takes the table's anchor, a scalar, as an input. In backward it hands its part to a ``RowGradient``
and gives the anchor the gradient 1, so that the rows' turn comes when every part is there, and the
anchor's gradient is how many there are. Derivatives of a derivative are not available.

The last two inputs of each product, ``hook``, are the anchor (None where the rows need no gradient) and
the ``RowGradient``.

Shape suffixes: B samples, H heads, L positions, P = B * L, U rows, V sums of S rows, R of them in use,
D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..ops.dropout import keep_factors
from ..ops.functional import masked_softmax
from .rows_ops import outer, scores, sums


class RowGradient:
    """The parts of a table's gradient, to be summed at once.

    Args:
        rows: U.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, weights_BHL: Tensor, vectors_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """A part, as ``outer`` has it; returns the gradient of the anchor: one part."""
        self._parts.append((weights_BHL, vectors_BHD, index_BL))
        return vectors_BHD.new_ones(())

    def take(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of that many parts ``(U, D)``, and how many terms each row has."""
        if int(count) != len(self._parts):
            raise RuntimeError(
                "a gradient that left out the item rows was taken before; ask for all in one call"
            )
        parts, self._parts = self._parts, []
        return outer(parts, self._rows)


class Anchor(Function):
    """A scalar that stands for the rows; its gradient counts the parts that were added."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, gradient: RowGradient) -> Tensor:
        ctx.gradient = gradient
        return rows_UD.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, parts: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.take(parts)[0], None


class BagAnchor(Function):
    """The same for a ``BagTable``: its gradient becomes a part of its parent's."""

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
    def backward(ctx: Any, parts: Tensor) -> tuple[Tensor | None, ...]:
        index_VS, share_VS = ctx.saved_tensors
        parent, own = ctx.gradients
        sum_VD, count_V = own.take(parts)
        row_R = count_V.nonzero().flatten()
        part = share_VS[row_R, None], sum_VD[row_R, None], index_VS[row_R]
        return parent.add(*part), None, None, None, None


class Gather(Function):
    """The rows of the positions."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, index_BL: Tensor, *hook: Any) -> Tensor:
        ctx.save_for_backward(index_BL)
        ctx.gradient = hook[1]
        return F.embedding(index_BL, rows_UD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_BLD: Tensor) -> tuple[Tensor | None, ...]:
        (index_BL,) = ctx.saved_tensors
        dx_P1D = dx_BLD.reshape(-1, 1, dx_BLD.shape[-1])  # a position is a sum of one row
        part = dx_P1D.new_ones(len(dx_P1D), 1, 1), dx_P1D, index_BL.reshape(-1, 1)
        return None, None, ctx.gradient.add(*part), None


class Sums(Function):
    """``sums``."""

    @staticmethod
    def forward(
        ctx: Any, weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor, *hook: Any
    ) -> Tensor:
        ctx.save_for_backward(weights_BHL, rows_UD, index_BL)
        ctx.gradient = hook[1]
        return sums(weights_BHL, rows_UD, index_BL)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor) -> tuple[Tensor | None, ...]:
        weights_BHL, rows_UD, index_BL = ctx.saved_tensors
        dweights_BHL = scores(dy_BHD, rows_UD, index_BL) if ctx.needs_input_grad[0] else None
        part = None
        if ctx.needs_input_grad[3]:
            part = ctx.gradient.add(weights_BHL, dy_BHD, index_BL)
        return dweights_BHL, None, None, part, None


class Attend(Function):
    """``functional.attend`` with rows as keys and values.

    With p the softmax and m the dropout's factors: ``y = sums(m p)`` and ``t = sum_l m p``, so that
    with ``dp = m (scores(dy) + dt)``, ``ds = p (dp - p . dp)``."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BHD: Tensor,
        mask_BL: Tensor,
        dropout: float,
        rows_UD: Tensor,
        index_BL: Tensor,
        *hook: Any,
    ) -> tuple[Tensor, Tensor]:
        p_BHL = masked_softmax(scores(query_BHD, rows_UD, index_BL), mask_BL[:, None, :])
        factor_BHL = keep_factors(p_BHL, dropout) if dropout else None
        weights_BHL = p_BHL if factor_BHL is None else p_BHL * factor_BHL
        ctx.save_for_backward(query_BHD, rows_UD, index_BL, p_BHL, factor_BHL)
        ctx.gradient = hook[1]
        return sums(weights_BHL, rows_UD, index_BL), weights_BHL.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor, dt_BH: Tensor) -> tuple[Tensor | None, ...]:
        query_BHD, rows_UD, index_BL, p_BHL, factor_BHL = ctx.saved_tensors
        dp_BHL, weights_BHL = scores(dy_BHD, rows_UD, index_BL) + dt_BH[:, :, None], p_BHL
        if factor_BHL is not None:
            dp_BHL, weights_BHL = dp_BHL * factor_BHL, p_BHL * factor_BHL
        ds_BHL = p_BHL * (dp_BHL - (p_BHL * dp_BHL).sum(-1, keepdim=True))
        dquery_BHD = sums(ds_BHL, rows_UD, index_BL)
        part = None
        if ctx.needs_input_grad[5]:
            weights = torch.cat([weights_BHL, ds_BHL], dim=1)
            vectors = torch.cat([dy_BHD, query_BHD], dim=1)
            part = ctx.gradient.add(weights, vectors, index_BL)
        return dquery_BHD, None, None, None, None, part, None
