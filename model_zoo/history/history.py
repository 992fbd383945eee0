"""Left-padded histories, stored as indices into rows of item vectors.

Shape suffixes: B samples, L history length, K positions kept, T windows, S items per window, H
queries per sample, U rows (distinct items, or windows), P selected samples, or positions of a packed
history, D item width, Z width of a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.functional import FEW_QUERIES, attend
from ..ops.precision import at_least_float32, unrounded
from .rows import RowTable, WindowTable, gather_rows


@dataclass(frozen=True)
class Segments:
    """The segments of a packed history: one per sample, from its oldest to its newest position.

    Attributes:
        start_B, stop_B: the first position of each sample, and the position after its last; int64.
        age_P: for each position, how many older positions its sample has; int32.
    """

    start_B: Tensor
    stop_B: Tensor
    age_P: Tensor

    def newest(self, x_1PD: Tensor) -> Tensor:
        """The newest position of each sample, ``(B, 1, D)``; an empty sample gets another's."""
        return x_1PD[0].index_select(0, (self.stop_B - 1).clamp(min=0))[:, None]


class History:
    """A batch of left-padded histories: rows of item vectors, and indices into them.

    Selecting positions (a top-k, a subsequence) moves only indices. Vectors, gradients and memory
    exist only for positions that are read. On a CPU, ``attend``, ``scores`` and ``weighted_sum``
    with few queries per sample read the rows in place. Otherwise rows are gathered. The rows can be
    differentiated once. A second derivative is an error.

    Args:
        rows: item vectors ``(U, D)``, usually one row per distinct item of the batch; or the rows
            of another history.
        index_BL: row of each position, int64.
        mask_BL: bool, True at real positions; the newest position is column ``L - 1``.

    The index of a padded position may be that of any row, so readers must mask the position.
    """

    def __init__(self, rows: Tensor | RowTable, index_BL: Tensor, mask_BL: Tensor) -> None:
        self._rows = rows if isinstance(rows, RowTable) else RowTable(rows)
        self.index_BL, self.mask_BL = index_BL, mask_BL
        self._x_BLD: Tensor | None = None

    @classmethod
    def from_vectors(cls, x_BLD: Tensor) -> History:
        """A history without padding that has these vectors."""
        index_BL = torch.arange(x_BLD[..., 0].numel(), device=x_BLD.device).view(x_BLD.shape[:2])
        return cls(x_BLD.flatten(0, 1), index_BL, torch.ones_like(index_BL, dtype=torch.bool))

    def __len__(self) -> int:
        """The padded length L."""
        return self.mask_BL.shape[1]

    # ---------------------------------------------------------------- rows

    @property
    def rows_UD(self) -> Tensor:
        """The item vectors to which ``index_BL`` points, differentiable."""
        return self._rows.rows_UD

    @property
    def num_rows(self) -> int:
        """U, the number of rows."""
        return self._rows.num_rows

    def lookup(self, index_B: Tensor) -> Tensor:
        """The vectors of some rows, ``(B, D)``, differentiable."""
        return self._rows.gather(index_B[:, None])[:, 0]

    def row_counts(self) -> Tensor:
        """For each row, the number of real positions that show it, ``(U,)``, as floats."""
        real = self.mask_BL.flatten().float()
        return real.new_zeros(self.num_rows).index_add_(0, self.index_BL.flatten(), real)

    def linear_of_rows(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row ``(U, Z)``, outside autograd."""
        return self._rows.linear(layer)

    # ---------------------------------------------------------------- reading positions

    def embed(self) -> Tensor:
        """The item vectors ``(B, L, D)``, differentiable; they are gathered only once."""
        if self._x_BLD is None or (torch.is_grad_enabled() and not self._x_BLD.requires_grad):
            self._x_BLD = self._rows.gather(self.index_BL)
        return self._x_BLD

    def embed_detached(self) -> Tensor:
        """The values of ``embed()`` outside autograd, for routing and scoring."""
        return F.embedding(self.index_BL, self.rows_UD.detach())

    def project(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of the item at every position, ``(B, L, Z)``, differentiable.

        The function maps ``(..., D)`` to ``(..., Z)``. It is applied to the rows or to the
        positions, whichever are fewer.
        """
        if self.num_rows <= self.index_BL.numel():
            return gather_rows(function(self.rows_UD), self.index_BL)
        return function(self._rows.gather(self.index_BL))

    def transform(self, function: Callable[[Tensor], Tensor]) -> History:
        """The history whose vectors are ``function`` of the items, as in ``project``.

        It is outside autograd.
        """
        if self.num_rows <= self.index_BL.numel():
            return History(function(self.rows_UD.detach()), self.index_BL, self.mask_BL)
        return History.from_vectors(function(self.embed_detached())).with_mask(self.mask_BL)

    def attend(
        self, query_BHD: Tensor, dropout: float = 0.0, topk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention of H queries per sample over the items; see ``functional.attend``.

        With ``topk`` each query attends only to the real items that score best with it. The choice
        of these items has no gradient.
        """
        if topk is not None and topk < len(self):
            return self._attend_best(query_BHD, dropout, topk)
        if self._rows.kernels and query_BHD.shape[1] <= FEW_QUERIES:
            return self._rows.attend(query_BHD, self.index_BL, self.mask_BL, dropout)
        return attend(query_BHD, self.embed(), self.mask_BL, dropout)

    def _attend_best(self, query_BHD: Tensor, dropout: float, topk: int) -> tuple[Tensor, Tensor]:
        scores_BHL = self.scores(query_BHD).masked_fill_(~self.mask_BL[:, None], -torch.inf)
        best_BHK, index_BHK = scores_BHL.topk(topk, dim=-1, sorted=False)
        # Every query has its own items, so each becomes a sample of its own.
        index_BK, real_BK = (x.flatten(1) for x in (index_BHK, best_BHK > -torch.inf))
        index_PK = self.index_BL.gather(1, index_BK).view(-1, topk)
        chosen = History(self._rows, index_PK, real_BK.view(-1, topk))
        pooled_P1D, total_P1 = chosen.attend(query_BHD.flatten(0, 1)[:, None], dropout)
        return pooled_P1D.view_as(query_BHD), total_P1.view(query_BHD.shape[:2])

    @torch.no_grad()
    def scores(self, query_BHD: Tensor) -> Tensor:
        """The product of each query with each position's item, ``(B, H, L)``, outside autograd."""
        query_BHD = at_least_float32(query_BHD)
        with unrounded(query_BHD):
            if self._rows.kernels and query_BHD.shape[1] <= FEW_QUERIES:
                return self._rows.dot(query_BHD, self.index_BL)
            return query_BHD @ self.embed_detached().mT

    def weighted_sum(self, weights_BHL: Tensor) -> Tensor:
        """``sum_l weight_l item_l``, ``(B, H, D)``; weights of padded positions must be zero."""
        if self._rows.kernels and weights_BHL.shape[1] <= FEW_QUERIES:
            return self._rows.weighted_sum(weights_BHL, self.index_BL)
        with unrounded(weights_BHL):
            return weights_BHL @ self.embed()

    # ---------------------------------------------------------------- moving positions

    def take(self, index_BK: Tensor, mask_BK: Tensor) -> History:
        """The history of the columns ``index_BK``, which are real where ``mask_BK`` is True."""
        return History(self._rows, self.index_BL.gather(1, index_BK), mask_BK)

    def subsequences(self, sample_P: Tensor, index_PK: Tensor, mask_PK: Tensor) -> History:
        """The columns ``index_PK`` of samples, real where ``mask_PK`` is True, for experts.

        Windows that no real position shows are dropped from its rows.
        """
        return self.samples(sample_P).take(index_PK, mask_PK).drop_hidden_windows()

    def last(self, count: int) -> History:
        """The newest ``count`` columns (fewer if the history is shorter)."""
        if count >= len(self):
            return self
        keep = slice(len(self) - count, None)
        return History(self._rows, self.index_BL[:, keep], self.mask_BL[:, keep])

    def samples(self, index_P: Tensor | slice) -> History:
        """The histories of some samples."""
        return History(self._rows, self.index_BL[index_P], self.mask_BL[index_P])

    def split(self, counts: list[int], widths: list[int]) -> list[History]:
        """The histories of consecutive groups of samples, each cut to its newest columns.

        Args:
            counts: number of samples in each group.
            widths: number of columns of each group.
        """
        groups = zip(self.index_BL.split(counts), self.mask_BL.split(counts), strict=True)
        return [
            History(self._rows, index_PL, mask_PL).last(width)
            for (index_PL, mask_PL), width in zip(groups, widths, strict=True)
        ]

    def with_mask(self, mask_BL: Tensor) -> History:
        """The same history with another mask."""
        return History(self._rows, self.index_BL, mask_BL)

    def contiguous(self) -> History:
        """The same history without slices or cached vectors, as torch.compile needs it."""
        rows = RowTable(self.rows_UD, kernels=False)
        return History(rows, self.index_BL.contiguous(), self.mask_BL.contiguous())

    def packed(self) -> tuple[History, Segments]:
        """Pack the real positions of all samples into one history ``(1, P)``, sample by sample.

        The host waits for the device, since it has to know P.
        """
        real_P = self.mask_BL.flatten().nonzero()[:, 0]
        age_P = (self.mask_BL.cumsum(1, dtype=torch.int32) - 1).flatten()[real_P]
        length_B = self.mask_BL.sum(1)
        stop_B = length_B.cumsum(0)
        index_1P = self.index_BL.flatten()[real_P][None]
        packed = History(self._rows, index_1P, torch.ones_like(index_1P, dtype=torch.bool))
        return packed, Segments(stop_B - length_B, stop_B, age_P)

    # ---------------------------------------------------------------- windows

    def drop_hidden_windows(self) -> History:
        """The same history, without windows among its rows that no real position shows."""
        if not isinstance(self._rows, WindowTable):
            return self
        shown_U = self.mask_BL.new_zeros(self.num_rows)
        shown_U[0] = True  # a table needs at least one row
        shown_U[self.index_BL[self.mask_BL]] = True
        row_U = (shown_U.cumsum(0) - 1).clamp(min=0)
        rows = self._rows.select(shown_U.nonzero().flatten())
        return History(rows, row_U[self.index_BL], self.mask_BL)

    def windows(self, size: int, stride: int, anchor: str) -> History:
        """The history of window means (paper 4.2), left-padded; each window is a row of its own.

        Windows are counted from each user's own items and not from column 0 of the padded batch. So
        a prediction cannot depend on other samples. A history shorter than ``size`` is one partial
        window. A mean is over real items only.

        Args:
            size: items per window.
            stride: items between two window starts.
            anchor: with ``start``, as in the paper, the first window starts at the first item. Up
                to ``stride - 1`` of the newest items may then be in no window. With ``end``, the
                last window ends at the newest item, and the oldest window may be partial.
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
        sample_U, slot_U, row_BT = window_rows(mask_BT, every=not self._rows.kernels)
        if anchor == "start":
            first_U = (count_B[sample_U] - 1 - from_newest_T[slot_U]) * stride
        else:
            first_U = length_B[sample_U] - size - from_newest_T[slot_U] * stride
        item_US = first_U[:, None] + torch.arange(size, device=device)
        inside_US = (item_US >= 0) & (item_US < length_B[sample_U, None])
        column_US = (item_US + (L - length_B)[sample_U, None]).clamp(0, L - 1)
        share_US = inside_US.to(self.rows_UD.dtype)
        share_US /= share_US.sum(1, keepdim=True).clamp(min=1)
        items_US = self.index_BL[sample_U[:, None], column_US]
        return History(self._rows.windows(items_US, share_US), row_BT, mask_BT)


def window_rows(mask_BT: Tensor, every: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the windows that become rows.

    Args:
        mask_BT: True at real windows.
        every: whether all slots become rows. Otherwise real windows and the first slot do, so that
            there is at least one row. A host would have to wait for a GPU to count them.

    Returns:
        The sample and the slot of each of the V rows, ``(V,)`` each, and the row of each slot,
        ``(B, T)``.
    """
    B, T = mask_BT.shape
    if every:
        row_BT = torch.arange(B * T, device=mask_BT.device).view(B, T)
        return row_BT.flatten() // T, row_BT.flatten() % T, row_BT
    kept_BT = mask_BT.clone()
    kept_BT[0, 0] = True
    sample_V, slot_V = kept_BT.nonzero(as_tuple=True)
    return sample_V, slot_V, (kept_BT.flatten().cumsum(0) - 1).view(B, T).clamp(min=0)
