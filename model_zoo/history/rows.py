"""Tables of rows that histories show by index: items, and windows as weighted sums of items.

Shape suffixes: B samples, H heads, L positions, U rows, V sums of S rows, R of them,
D width, Z width of a layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rows_autograd import Anchor, Attend, BagAnchor, Gather, RowGradient, Sums
from .rows_ops import sums


def in_place(x: Tensor) -> bool:
    """Whether rows are read where they lie: on a CPU. A GPU gathers them faster, and never waits;
    torch.compile understands gathers only."""
    return not (x.is_cuda or torch.compiler.is_compiling())


def gathered(rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """Rows by index, ``(B, L, D)``. On a CPU the gradient of ``index_select`` takes a third of the time of
    ``embedding``'s, with the same sums in float32 and, as these are kept in float32, better ones in bf16;
    on a GPU it would add in any order."""
    if not in_place(index_BL):
        return F.embedding(
            index_BL.int(), rows_UD
        )  # its gradient sorts indices: half as many bytes
    return rows_UD.index_select(0, index_BL.flatten()).view(*index_BL.shape, rows_UD.shape[1])


class RowTable:
    """Rows; on a CPU all products with them add to one gradient (``row_gradient``).

    Args:
        rows_UD: differentiable.
    """

    def __init__(self, rows_UD: Tensor) -> None:
        self._rows_UD = rows_UD
        self._gradient = RowGradient(len(rows_UD))
        self._anchor: Tensor | None = None

    def __len__(self) -> int:
        """U."""
        return len(self._rows_UD)

    @property
    def rows_UD(self) -> Tensor:
        """All rows, differentiable."""
        return self._rows_UD

    def values(self) -> Tensor:
        """All rows, outside autograd."""
        return self._rows_UD.detach()

    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row, outside autograd."""
        with torch.no_grad():
            return layer(self.values())

    def attend(
        self, query_BHD: Tensor, index_BL: Tensor, mask_BL: Tensor, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """``functional.attend`` over the positions' rows."""
        return Attend.apply(query_BHD, mask_BL, dropout, *self._inputs(index_BL))

    def sums(self, weights_BHL: Tensor, index_BL: Tensor) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``."""
        return Sums.apply(weights_BHL, *self._inputs(index_BL))

    def gather(self, index_BL: Tensor) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if not in_place(index_BL):
            return gathered(self.rows_UD, index_BL)
        return Gather.apply(*self._inputs(index_BL))

    def bags(self, index_VS: Tensor, share_VS: Tensor) -> RowTable:
        """The table of weighted sums of rows: S rows for each of V sums, and their weights."""
        if in_place(share_VS):
            return BagTable(self, index_VS, share_VS)
        return RowTable(
            F.embedding_bag(index_VS, self.rows_UD, mode="sum", per_sample_weights=share_VS)
        )

    def anchor(self) -> Tensor | None:
        """The scalar that products hang on; None where no gradient is asked for."""
        if not (torch.is_grad_enabled() and self._rows_UD.requires_grad):
            return None
        if self._anchor is None:
            self._anchor = Anchor.apply(self._rows_UD, self._gradient)
        return self._anchor

    def _inputs(self, index_BL: Tensor) -> tuple[Any, ...]:
        return self.values(), index_BL, self.anchor(), self._gradient


class BagTable(RowTable):
    """Weighted sums of another table's rows, built when they are read; of their gradients only those
    in use go on to it.

    Args:
        parent: the other table.
        index_VS: its rows, S for each of V sums.
        share_VS: their weights.
    """

    def __init__(self, parent: RowTable, index_VS: Tensor, share_VS: Tensor) -> None:
        self._parent, self._index_VS, self._share_VS = parent, index_VS, share_VS
        self._gradient = RowGradient(len(share_VS))
        self._values_VD: Tensor | None = None
        self._inherited = False  # the values come from a larger table
        self._anchor = parent.anchor()
        if self._anchor is not None:
            gradients = (parent._gradient, self._gradient)
            self._anchor = BagAnchor.apply(self._anchor, *gradients, index_VS, share_VS)

    def __len__(self) -> int:
        return len(self._share_VS)

    @property
    def rows_UD(self) -> Tensor:
        return self.gather(torch.arange(len(self))[None])[0]

    @torch.no_grad()
    def values(self) -> Tensor:
        if self._values_VD is None:
            self._values_VD = self._bag(self._parent.values())
        return self._values_VD

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """By the parent's rows where they are fewer: a layer of a sum is the sum of its layers."""
        if len(self._parent) >= len(self):
            return super().linear(layer)
        z_VZ = self._bag(F.linear(self._parent.values(), layer.weight))
        return z_VZ if layer.bias is None else z_VZ.add_(layer.bias)

    def select(self, row_R: Tensor) -> BagTable:
        """The table of some of the sums."""
        table = BagTable(self._parent, self._index_VS[row_R], self._share_VS[row_R])
        if self._values_VD is not None:
            table._values_VD, table._inherited = self._values_VD[row_R], True
        return table

    def anchor(self) -> Tensor | None:
        return self._anchor if torch.is_grad_enabled() else None

    def _bag(self, rows_UD: Tensor) -> Tensor:
        return sums(self._share_VS[:, None], rows_UD, self._index_VS)[:, 0]
