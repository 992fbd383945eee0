"""Sparse gradients of embedding tables: of the rows that a score reads.

Shape suffixes: R rows read, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def use_sparse_gradient(table: nn.Embedding) -> None:
    """Give a table a sparse gradient: of the rows that were read, those where it is not zero.

    As ``sparse=True`` of ``nn.Embedding``, but without copies of the rows that are left out: padding,
    and items that the score does not read.
    """
    table.sparse = True
    table.register_forward_hook(
        lambda table, args, rows: _TableRows.apply(
            table.weight, args[0], rows.detach(), table.padding_idx
        )
    )


class _TableRows(Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, index: Tensor, rows: Tensor, padding: int | None
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.padding = weight.shape, padding
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        index_R = ctx.saved_tensors[0].flatten()
        gradient_RD = gradient.reshape(-1, gradient.shape[-1])
        keep_R = gradient_RD.abs().amax(1) != 0
        if ctx.padding is not None:
            keep_R &= index_R != ctx.padding
        kept = keep_R.nonzero().flatten()
        of_table = torch.sparse_coo_tensor(
            index_R.index_select(0, kept)[None],
            gradient_RD.index_select(0, kept),
            ctx.shape,
            check_invariants=False,
        )
        return of_table, None, None, None
