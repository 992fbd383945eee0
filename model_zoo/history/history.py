"""Left-padded histories that are moved as indices and embedded only where an output reads them.

Shape suffixes: B samples, L history length, K positions kept, T windows, S items per window,
U rows (distinct items, or windows), P selected samples, D item width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.functional import attend
from ..ops.precision import at_least_float32, unrounded
from . import rows as row_table
from .rows import BagTable, RowTable
from .rows_ops import scores

# Vectors per sample up to which a CPU takes products with rows where they lie. More share a gather.
FEW = 4


class History:
    """A batch of left-padded histories: rows of item vectors and indices into them.

    Everything that selects (top-k, a subsequence) moves indices; vectors, gradients and memory exist only
    for what is read. On a CPU ``attend``, ``scores`` and ``sums`` of a few vectors read rows where they lie;
    else, and in ``embed``, they are gathered.

    Args:
        rows: item vectors ``(U, D)``, differentiable, usually one row per distinct item of the batch;
            or the table of another history.
        index_BL: row of each position, int64.
        mask_BL: bool, True at real positions; the newest one is column ``L - 1``.

    Values at padded positions are those of whatever row their index names: readers must mask.
    """

    def __init__(self, rows: Tensor | RowTable, index_BL: Tensor, mask_BL: Tensor) -> None:
        self.table = rows if isinstance(rows, RowTable) else RowTable(rows)
        self.index_BL, self.mask_BL = index_BL, mask_BL
        self._x_BLD: Tensor | None = None

    @property
    def rows_UD(self) -> Tensor:
        """The item vectors."""
        return self.table.rows_UD

    @classmethod
    def of(cls, x_BLD: Tensor) -> History:
        """A history without padding of given vectors."""
        index_BL = torch.arange(x_BLD[..., 0].numel(), device=x_BLD.device).view(x_BLD.shape[:2])
        return cls(x_BLD.flatten(0, 1), index_BL, torch.ones_like(index_BL, dtype=torch.bool))

    def __len__(self) -> int:
        """The padded length L."""
        return self.mask_BL.shape[1]

    def embed(self) -> Tensor:
        """Item vectors ``(B, L, D)``, differentiable with respect to the rows; gathered once."""
        if self._x_BLD is None or (torch.is_grad_enabled() and not self._x_BLD.requires_grad):
            self._x_BLD = self.table.gather(self.index_BL)
        return self._x_BLD

    def attend(self, query_BHD: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Attention of some queries over the items, as ``functional.attend`` has it."""
        if self._in_place(query_BHD.shape[1]):
            query_BHD = at_least_float32(query_BHD)
            with unrounded(query_BHD):
                return self.table.attend(query_BHD, self.index_BL, self.mask_BL, dropout)
        return attend(query_BHD, self.embed(), self.mask_BL, dropout)

    @torch.no_grad()
    def scores(self, query_BHD: Tensor) -> Tensor:
        """The product of each query with each position's item, ``(B, H, L)``, outside autograd."""
        query_BHD = at_least_float32(query_BHD)
        with unrounded(query_BHD):
            if self._in_place(query_BHD.shape[1]):
                return scores(query_BHD, self.table.values(), self.index_BL)
            return query_BHD @ self.peek().mT

    def sums(self, weights_BHL: Tensor) -> Tensor:
        """``sum_l weight_l item_l``, ``(B, H, D)``; weights of padded positions must be zero."""
        with unrounded(weights_BHL):
            if self._in_place(weights_BHL.shape[1]):
                return self.table.sums(weights_BHL, self.index_BL)
            return weights_BHL @ self.embed()

    def _in_place(self, vectors: int) -> bool:
        """Whether so many vectors per sample meet the rows where they lie."""
        return vectors <= FEW and row_table.in_place(self.index_BL)

    def peek(self) -> Tensor:
        """The values of ``embed()`` outside autograd, for routing and scoring."""
        return F.embedding(self.index_BL, self.table.values())

    def map(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of each item, ``(..., D) -> (..., Z)``, at every position: ``(B, L, Z)``. It
        sees each row once, or each position, whichever are fewer."""
        if len(self.table) <= self.index_BL.numel():
            return row_table.gathered(function(self.rows_UD), self.index_BL)
        return function(self.table.gather(self.index_BL))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> History:
        """The history of ``function`` of each item, outside autograd; computed as in ``map``."""
        rows = self.table.values()
        if len(rows) <= self.index_BL.numel():
            return History(function(rows), self.index_BL, self.mask_BL)
        of_positions = History.of(function(self.peek()))
        return History(of_positions.table, of_positions.index_BL, self.mask_BL)

    def take(self, index_BK: Tensor, mask_BK: Tensor) -> History:
        """Move positions: the history of columns ``index_BK``, real where ``mask_BK``."""
        return History(self.table, self.index_BL.gather(1, index_BK), mask_BK)

    def last(self, count: int) -> History:
        """The newest ``count`` columns (fewer if the history is shorter)."""
        if count >= len(self):
            return self
        keep = slice(len(self) - count, None)
        return History(self.table, self.index_BL[:, keep], self.mask_BL[:, keep])

    def rows(self, index_P: Tensor | slice) -> History:
        """The histories of some samples."""
        return History(self.table, self.index_BL[index_P], self.mask_BL[index_P])

    def narrow(self) -> History:
        """The same positions, with a table of only those windows that they show."""
        if not isinstance(self.table, BagTable):
            return self
        shown_U = self.mask_BL.new_zeros(len(self.table))
        shown_U[0] = True  # a table has a row
        shown_U[self.index_BL[self.mask_BL]] = True
        row_U = (shown_U.cumsum(0) - 1).clamp(min=0)
        table = self.table.select(shown_U.nonzero().flatten())
        return History(table, row_U[self.index_BL], self.mask_BL)

    def reshape(self, B: int, L: int) -> History:
        """The same positions in another number of samples."""
        return History(self.table, self.index_BL.reshape(B, L), self.mask_BL.reshape(B, L))

    def windows(self, size: int, stride: int, anchor: str) -> History:
        """The history of window means (paper 4.2), left padded; each window is a row of its own.

        Windows are laid out from each user's own first item, never from column 0 of the padded
        batch, so that a prediction cannot depend on batch mates. A history shorter than ``size``
        is one partial window; a mean is over real items only.

        Args:
            size: items per window.
            stride: items between two window starts.
            anchor: ``start`` (the paper: the first window starts at the first item, and up to
                ``stride - 1`` of the newest items may be in no window) or ``end`` (the last window
                ends at the newest item; the oldest window may be partial, and none is left out).
        """
        L = len(self)
        device = self.mask_BL.device
        length_B = self.mask_BL.sum(1)
        beyond_B = (length_B - size).clamp(min=0)
        step_up = 0 if anchor == "start" else stride - 1
        count_B = (beyond_B + step_up) // stride + (length_B > 0)
        T = max(0, L - size + step_up) // stride + 1
        from_newest_T = torch.arange(T - 1, -1, -1, device=device)
        mask_BT = from_newest_T < count_B[:, None]
        sample_U, slot_U, row_BT = window_rows(mask_BT, every=not row_table.in_place(mask_BT))
        if anchor == "start":
            first_U = (count_B[sample_U] - 1 - from_newest_T[slot_U]) * stride
        else:
            first_U = length_B[sample_U] - size - from_newest_T[slot_U] * stride
        item_US = first_U[:, None] + torch.arange(size, device=device)
        inside_US = (item_US >= 0) & (item_US < length_B[sample_U, None])
        column_US = (item_US + (L - length_B)[sample_U, None]).clamp(0, L - 1)
        share_US = inside_US.to(self.table.values().dtype)
        share_US /= share_US.sum(1, keepdim=True).clamp(min=1)
        items_US = self.index_BL[sample_U[:, None], column_US]
        return History(self.table.bags(items_US, share_US), row_BT, mask_BT)


def window_rows(mask_BT: Tensor, every: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sample and slot of each window that becomes a row, ``(V,)`` each, and the row of each slot.

    Args:
        mask_BT: True at real windows.
        every: each slot is a row; else only real windows are, and one, so that there is a row. To
            count the real ones a host has to wait for a GPU.
    """
    B, T = mask_BT.shape
    if every:
        row_BT = torch.arange(B * T, device=mask_BT.device).view(B, T)
        return row_BT.flatten() // T, row_BT.flatten() % T, row_BT
    kept_BT = mask_BT.clone()
    kept_BT[0, 0] = True
    sample_V, slot_V = kept_BT.nonzero(as_tuple=True)
    return sample_V, slot_V, (kept_BT.flatten().cumsum(0) - 1).view(B, T).clamp(min=0)
