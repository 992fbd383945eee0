"""Left-padded histories, stored as indices into rows of item vectors.

Shape suffixes: B samples, L history length, K positions kept, T windows, S items per window, H
queries per sample, N buckets of all event columns, U rows (distinct items, or windows), P selected
samples, or positions of a packed history, D item width, Z width of a function.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.dropout import keep_factors
from ..ops.functional import FEW_QUERIES, masked_softmax
from ..ops.precision import at_least_float32, unrounded
from .buckets import bucket_scores, bucket_sums
from .rows import RowTable, WindowTable, gather_rows
from .windows import find_windows


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

    What an event had of its own, as its action or its age, stands beside the item as a bucket. All
    columns of buckets share one numbering, 0 to N - 1. ``attend`` and ``weighted_sum`` can read the
    vector ``[item, ones at the buckets]`` of width D + N, which is never written out on a CPU.

    A history of one sample (B = 1) may be read by the queries of many, as where one user's candidates
    are served.

    Args:
        rows: item vectors ``(U, D)``, usually one row per distinct item of the batch; or the rows
            of another history.
        index_BL: row of each position, int64.
        mask_BL: bool, True at real positions; the newest position is column ``L - 1``.
        events: the columns of buckets, ``(B, L)`` each, int64.

    Attributes:
        matches_within: what the targets of samples share with parts of their histories, as three
            numbers a feature, ``(P, 3 F)``; None where nothing reads them (see ``matches.py``).

    The index of a padded position may be that of any row, and its buckets may be any, so readers must
    mask the position.
    """

    def __init__(
        self,
        rows: Tensor | RowTable,
        index_BL: Tensor,
        mask_BL: Tensor,
        events: Iterable[Tensor] = (),
    ) -> None:
        self._rows = rows if isinstance(rows, RowTable) else RowTable(rows)
        self.index_BL, self.mask_BL, self.events = index_BL, mask_BL, tuple(events)
        self._x_BLD: Tensor | None = None
        self.matches_within: Callable[[Tensor, History], Tensor] | None = None

    @classmethod
    def from_vectors(
        cls, x_BLD: Tensor, mask_BL: Tensor | None = None, events: Iterable[Tensor] = ()
    ) -> "History":
        """A history that has these vectors; without a mask, it has no padding."""
        index_BL = torch.arange(x_BLD[..., 0].numel(), device=x_BLD.device).view(x_BLD.shape[:2])
        mask_BL = torch.ones_like(index_BL, dtype=torch.bool) if mask_BL is None else mask_BL
        return cls(x_BLD.flatten(0, 1), index_BL, mask_BL, events)

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

    def transform(self, function: Callable[[Tensor], Tensor]) -> "History":
        """The history whose vectors are ``function`` of the items, as in ``project``.

        It is outside autograd.
        """
        if self.num_rows <= self.index_BL.numel():
            return History(function(self.rows_UD.detach()), self.index_BL, self.mask_BL)
        return History.from_vectors(function(self.embed_detached()), self.mask_BL)

    def attend(
        self, query_BHD: Tensor, dropout: float = 0.0, topk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention of H queries per sample over the items, with the results of ``functional.attend``.

        With ``topk`` each query attends only to the real items that score best with it. The choice
        of these items has no gradient. Queries of width D + N also read the buckets: their last N
        numbers are biases of the scores, and the result has the sum of the weights in each bucket.
        """
        query_BHD = at_least_float32(query_BHD)
        if topk is not None and topk < len(self):
            return self._attend_best(query_BHD, dropout, topk)
        weights_BHL = masked_softmax(self.dot(query_BHD), self.mask_BL[:, None])
        if dropout and self._in_place(query_BHD):
            weights_BHL = weights_BHL * keep_factors(weights_BHL, dropout)
        elif dropout:
            weights_BHL = F.dropout(weights_BHL, dropout)
        return self._weigh(weights_BHL, query_BHD)

    def _weigh(self, weights_BHL: Tensor, query_BHD: Tensor) -> tuple[Tensor, Tensor]:
        buckets = query_BHD.shape[-1] - self._rows.width
        return self.weighted_sum(weights_BHL, buckets), weights_BHL.sum(-1)

    def _attend_best(self, query_BHD: Tensor, dropout: float, topk: int) -> tuple[Tensor, Tensor]:
        scores_BHL = self.scores(query_BHD).masked_fill_(~self.mask_BL[:, None], -torch.inf)
        best_BHK, index_BHK = scores_BHL.topk(topk, dim=-1, sorted=False)
        if self._is_shared(query_BHD):  # without dropout, a product with all items beats a gather
            none_BHL = torch.zeros_like(scores_BHL, dtype=torch.bool)
            kept_BHL = none_BHL.scatter(-1, index_BHK, best_BHK > -torch.inf)
            return self._weigh(masked_softmax(scores_BHL, kept_BHL), query_BHD)
        # Every query has its own items, so each becomes a sample of its own.
        index_BK, real_BK = (x.flatten(1) for x in (index_BHK, best_BHK > -torch.inf))
        chosen = self.take(index_BK, real_BK)._moved(lambda x: x.view(-1, topk))
        pooled_P1D, total_P1 = chosen.attend(query_BHD.flatten(0, 1)[:, None], dropout)
        return pooled_P1D.view_as(query_BHD), total_P1.view(query_BHD.shape[:2])

    @torch.no_grad()
    def scores(self, query_BHD: Tensor) -> Tensor:
        """The product of each query with each position, ``(B, H, L)``, outside autograd."""
        return self.dot(at_least_float32(query_BHD))

    def weighted_sum(self, weights_BHL: Tensor, buckets: int = 0) -> Tensor:
        """``sum_l weight_l item_l``, ``(B, H, D)``; weights of padded positions must be zero.

        With N ``buckets``, the sum of the weights in each follows, ``(B, H, D + N)``.
        """
        if self._in_place(weights_BHL):
            sums_BHD = self._rows.weighted_sum(weights_BHL, self.index_BL)
        else:
            with unrounded(weights_BHL):
                sums_BHD = weights_BHL @ plain(at_least_float32(self.embed()))
        if not buckets:
            return sums_BHD
        sums_BHN = bucket_sums(weights_BHL, self.events, buckets, self._by_index(weights_BHL))
        return torch.cat([sums_BHD, sums_BHN], dim=-1)

    def _in_place(self, x_BHD: Tensor) -> bool:
        """Whether kernels read the rows in place: for few queries on a CPU."""
        return self._by_index(x_BHD) and x_BHD.shape[1] <= FEW_QUERIES

    def _by_index(self, x_BHD: Tensor) -> bool:
        """Whether gather and scatter are used."""
        return self._rows.kernels and not self._is_shared(x_BHD)

    def _is_shared(self, x_BHD: Tensor) -> bool:
        """Whether this is one history for many samples."""
        return self.index_BL.shape[0] < x_BHD.shape[0]

    def dot(self, query_BHD: Tensor) -> Tensor:
        """The product of queries, of width D or D + N, with each position, ``(B, H, L)``."""
        items_BHD, bias_BHN = query_BHD.tensor_split([self._rows.width], dim=-1)
        with unrounded(query_BHD):
            if self._in_place(query_BHD):
                scores_BHL = self._rows.dot(items_BHD, self.index_BL)
            else:
                x_BLD = self.embed() if torch.is_grad_enabled() else self.embed_detached()
                scores_BHL = items_BHD @ plain(at_least_float32(x_BLD)).mT
            if bias_BHN.shape[-1]:
                gather = self._by_index(bias_BHN)
                scores_BHL = scores_BHL + bucket_scores(bias_BHN, self.events, gather)
            return scores_BHL

    # ---------------------------------------------------------------- moving positions

    def _moved(self, move: Callable[[Tensor], Tensor], mask_BL: Tensor | None = None) -> "History":
        """The history whose index and buckets, and mask if none is given, are moved alike."""
        mask_BL = move(self.mask_BL) if mask_BL is None else mask_BL
        return History(self._rows, move(self.index_BL), mask_BL, map(move, self.events))

    def take(self, index_BK: Tensor, mask_BK: Tensor | None = None) -> "History":
        """The history of the columns ``index_BK``, real where they are, or where ``mask_BK`` is True."""
        return self._moved(lambda x: columns(x, index_BK), mask_BK)

    def subsequences(self, sample_P: Tensor, index_PK: Tensor, mask_PK: Tensor) -> "History":
        """The columns ``index_PK`` of samples, real where ``mask_PK`` is True, for experts.

        Windows that no real position shows are dropped from its rows.
        """
        return self.samples(sample_P).take(index_PK, mask_PK).drop_hidden_windows()

    def last(self, count: int) -> "History":
        """The newest ``count`` columns (fewer if the history is shorter)."""
        if count >= len(self):
            return self
        return self._moved(lambda x: x[:, len(self) - count :])

    def samples(self, index_P: Tensor | slice) -> "History":
        """The histories of some samples."""
        return self._moved(lambda x: x[index_P])

    def split(self, counts: list[int], widths: list[int]) -> "list[History]":
        """The histories of consecutive groups of samples, each cut to its newest columns.

        Args:
            counts: number of samples in each group.
            widths: number of columns of each group.
        """
        columns = (x.split(counts) for x in (self.index_BL, self.mask_BL, *self.events))
        return [
            History(self._rows, index_PL, mask_PL, events).last(width)
            for width, index_PL, mask_PL, *events in zip(widths, *columns, strict=True)
        ]

    def with_mask(self, mask_BL: Tensor) -> "History":
        """The same history with another mask."""
        return self._moved(lambda x: x, mask_BL)

    def contiguous(self) -> "History":
        """The same history without slices or cached vectors, as torch.compile needs it."""
        history = self._moved(Tensor.contiguous)
        history._rows = RowTable(self.rows_UD, kernels=False)
        return history

    def packed(self) -> "tuple[History, Segments]":
        """Pack the real positions of all samples into one history ``(1, P)``, sample by sample.

        The host waits for the device, since it has to know P.
        """
        real_P = self.mask_BL.flatten().nonzero()[:, 0]
        age_P = (self.mask_BL.cumsum(1, dtype=torch.int32) - 1).flatten()[real_P]
        length_B = self.mask_BL.sum(1)
        stop_B = length_B.cumsum(0)
        packed = self._moved(lambda x: x.flatten()[real_P][None])
        return packed, Segments(stop_B - length_B, stop_B, age_P)

    # ---------------------------------------------------------------- windows

    def drop_hidden_windows(self) -> "History":
        """The same history, without windows among its rows that no real position shows."""
        if not isinstance(self._rows, WindowTable):
            return self
        shown_U = self.mask_BL.new_zeros(self.num_rows)
        shown_U[0] = True  # a table needs at least one row
        shown_U[self.index_BL[self.mask_BL]] = True
        row_U = (shown_U.cumsum(0) - 1).clamp(min=0)
        rows = self._rows.select(shown_U.nonzero().flatten())
        return History(rows, row_U[self.index_BL], self.mask_BL, self.events)

    def windows(self, size: int, stride: int, anchor: str) -> "History":
        """The history of window means (paper 4.2), left-padded; each window is a row of its own.

        A mean is over real items only. The buckets of a window are those of its newest item.
        ``find_windows`` describes the windows.
        """
        every = not self._rows.kernels
        found = find_windows(self.mask_BL, size, stride, anchor, every)
        sample_U, column_US, inside_US, row_BT, mask_BT = found
        share_US = inside_US.to(self.rows_UD.dtype)
        share_US /= share_US.sum(1, keepdim=True).clamp(min=1)
        rows = self._rows.windows(self.index_BL[sample_U[:, None], column_US], share_US)
        newest_U = column_US.masked_fill(~inside_US, 0).amax(1)
        events = [columns(x, newest_U[row_BT]) for x in self.events]
        return History(rows, row_BT, mask_BT, events)


def columns(x_BL: Tensor, index_BK: Tensor) -> Tensor:
    """The columns of each sample, ``(B, K)``; one sample may stand for all in either."""
    B = (index_BK if x_BL.shape[0] == 1 else x_BL).shape[0]
    return x_BL.expand(B, -1).gather(1, index_BK.expand(B, -1))


def plain(x_BLD: Tensor) -> Tensor:
    """The matrix ``(L, D)`` of a single sample, whose products are faster; others as they are."""
    return x_BLD[0] if x_BLD.shape[0] == 1 else x_BLD
