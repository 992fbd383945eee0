"""Tables of rows that histories show by index: items, and windows as weighted sums of items.

Shape suffixes: B samples, H heads, L positions, U rows, V windows of S rows, R of them, D width,
Z width of a layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.compiled import on_eager_cpu
from .row_kernels import (
    Anchor,
    AttendRows,
    GatherRows,
    RowGradient,
    SumRows,
    SumsAnchor,
    gather_sum,
)


def gather_rows(rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """Rows by index, ``(B, L, D)``, with autograd's own gradient.

    On a CPU the gradient of ``index_select`` takes a third of the time of ``embedding``'s, and in
    bf16 it is more exact; on a GPU it would add in any order.
    """
    if on_eager_cpu(index_BL):
        return rows_UD.index_select(0, index_BL.flatten()).view(*index_BL.shape, rows_UD.shape[1])
    return F.embedding(index_BL.int(), rows_UD)  # its gradient sorts indices: half as many bytes


class RowTable:
    """Rows, differentiable; where a CPU's kernels serve, all operations add to one gradient.

    Args:
        rows_UD: the rows.
        kernels: whether the kernels serve; None finds out.
    """

    def __init__(self, rows_UD: Tensor, kernels: bool | None = None) -> None:
        self._rows_UD = rows_UD
        self.kernels = on_eager_cpu(rows_UD) if kernels is None else kernels
        self.num_rows = len(rows_UD)
        self._gradient = RowGradient(self.num_rows)
        self._anchor: Tensor | None = None

    @property
    def rows_UD(self) -> Tensor:
        """All rows, with gradient where autograd is on."""
        return self._rows_UD

    def detached(self) -> Tensor:
        """All rows, outside autograd."""
        return self._rows_UD.detach()

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row ``(U, Z)``, outside autograd."""
        return layer(self.detached())

    def attend(
        self, query_BHD: Tensor, index_BL: Tensor, mask_BL: Tensor, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """``functional.attend`` over the positions' rows, where ``kernels``."""
        return AttendRows.apply(query_BHD, mask_BL, dropout, *self._inputs(index_BL))

    def weighted_sum(self, weights_BHL: Tensor, index_BL: Tensor) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``, where ``kernels``."""
        return SumRows.apply(weights_BHL, *self._inputs(index_BL))

    def gather(self, index_BL: Tensor) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if self.kernels:
            return GatherRows.apply(*self._inputs(index_BL))
        return gather_rows(self.rows_UD, index_BL)

    def windows(self, index_VS: Tensor, share_VS: Tensor) -> RowTable:
        """The table of V weighted sums, each of S rows of this table."""
        if self.kernels:
            return WindowTable(self, index_VS, share_VS)
        return RowTable(
            F.embedding_bag(index_VS, self.rows_UD, mode="sum", per_sample_weights=share_VS)
        )

    def anchor(self) -> Tensor | None:
        """The scalar that stands for the rows in the graph; None where no gradient is asked for."""
        if not (torch.is_grad_enabled() and self._rows_UD.requires_grad):
            return None
        if self._anchor is None:
            self._anchor = Anchor.apply(self._rows_UD, self._gradient)
        return self._anchor

    def _inputs(self, index_BL: Tensor) -> tuple[Any, ...]:
        return self.detached(), index_BL, self.anchor(), self._gradient


class WindowTable(RowTable):
    """Weighted sums of another table's rows, built when they are read.

    Of their gradients only those in use go on to the other table.

    Args:
        parent: the other table.
        index_VS: its rows, S for each of V windows.
        share_VS: their weights.
    """

    def __init__(self, parent: RowTable, index_VS: Tensor, share_VS: Tensor) -> None:
        self._parent, self._index_VS, self._share_VS = parent, index_VS, share_VS
        self.num_rows, self.kernels = len(share_VS), True
        self._gradient = RowGradient(self.num_rows)
        self._detached_VD: Tensor | None = None
        self._anchor = parent.anchor()
        if self._anchor is not None:
            gradients = (parent._gradient, self._gradient)
            self._anchor = SumsAnchor.apply(self._anchor, *gradients, index_VS, share_VS)

    @property
    def rows_UD(self) -> Tensor:
        if not torch.is_grad_enabled():
            return self.detached()
        return self.gather(torch.arange(self.num_rows)[None])[0]

    @torch.no_grad()
    def detached(self) -> Tensor:
        if self._detached_VD is None:
            self._detached_VD = self._sum(self._parent.detached())
        return self._detached_VD

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each window, computed from the parent's rows where they are fewer.

        A linear layer of a sum is the sum of the layer's outputs.
        """
        if self._parent.num_rows >= self.num_rows:
            return super().linear(layer)
        z_VZ = self._sum(F.linear(self._parent.detached(), layer.weight))
        return z_VZ if layer.bias is None else z_VZ.add_(layer.bias)

    def select(self, row_R: Tensor) -> WindowTable:
        """The table of some of the windows."""
        table = WindowTable(self._parent, self._index_VS[row_R], self._share_VS[row_R])
        if self._detached_VD is not None:
            table._detached_VD = self._detached_VD[row_R]
        return table

    def anchor(self) -> Tensor | None:
        return self._anchor if torch.is_grad_enabled() else None

    def _sum(self, rows_UD: Tensor) -> Tensor:
        return gather_sum(self._share_VS[:, None], rows_UD, self._index_VS)[:, 0]
