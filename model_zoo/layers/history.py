"""Left-padded histories that are moved as indices and embedded only where an output reads them.

Shape suffixes: B samples, L history length, K positions kept, T windows, S items per window,
U rows (distinct items of the batch), P selected samples, D item width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class History:
    """A batch of left-padded histories: rows of item vectors and indices into them.

    Everything that selects (top-k, a subsequence, a window) moves indices. ``embed`` alone builds
    ``(B, L, D)`` vectors with gradient, so gradients and memory exist only for what is read.

    Args:
        rows_UD: item vectors, differentiable; usually one row per distinct item of the batch.
        index_BL: row of each position, int64; ``(B, L, S)`` where a position is a mean of S rows.
        mask_BL: bool, True at real positions; the newest one is column ``L - 1``.
        share_BLS: the weight of each of the S rows in a position's mean; None where S is absent.

    Values at padded positions are those of whatever row their index names: readers must mask.
    """

    def __init__(
        self, rows_UD: Tensor, index_BL: Tensor, mask_BL: Tensor, share_BLS: Tensor | None = None
    ) -> None:
        self.rows_UD = rows_UD
        self.index_BL = index_BL
        self.mask_BL = mask_BL
        self.share_BLS = share_BLS

    def __len__(self) -> int:
        """The padded length L."""
        return self.mask_BL.shape[1]

    def embed(self) -> Tensor:
        """Item vectors ``(B, L, D)``, differentiable with respect to the rows."""
        return self._gather(self.rows_UD)

    def peek(self) -> Tensor:
        """The values of ``embed()`` outside autograd, for routing and scoring."""
        return self._gather(self.rows_UD.detach())

    def take(self, index_BK: Tensor, mask_BK: Tensor) -> History:
        """Move positions: the history of columns ``index_BK``, real where ``mask_BK``."""
        return self._moved(lambda t: _gather_columns(t, index_BK), mask_BK)

    def last(self, count: int) -> History:
        """The newest ``count`` columns (fewer if the history is shorter)."""
        keep = slice(max(0, len(self) - count), None)
        return self._moved(lambda t: t[:, keep], self.mask_BL[:, keep])

    def rows(self, index_P: Tensor) -> History:
        """The histories of samples ``index_P``."""
        return self._moved(lambda t: t[index_P], self.mask_BL[index_P])

    def windows(self, size: int, stride: int, anchor: str) -> History:
        """The history of window means (paper 4.2), left padded; nothing is embedded yet.

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
        B, L = self.mask_BL.shape
        device = self.mask_BL.device
        length_B = self.mask_BL.sum(1)
        beyond_B = (length_B - size).clamp(min=0)
        step_up = 0 if anchor == "start" else stride - 1
        count_B = (beyond_B + step_up) // stride + (length_B > 0)
        T = max(0, L - size + step_up) // stride + 1
        # Window w of T, counted from the newest (T - 1), starts at this item of its user.
        from_newest_T = torch.arange(T - 1, -1, -1, device=device)
        if anchor == "start":
            first_BT = (count_B[:, None] - 1 - from_newest_T) * stride
        else:
            first_BT = length_B[:, None] - size - from_newest_T * stride
        item_BTS = first_BT[:, :, None] + torch.arange(size, device=device)
        mask_BT = from_newest_T < count_B[:, None]
        real_BTS = (item_BTS >= 0) & (item_BTS < length_B[:, None, None]) & mask_BT[:, :, None]
        column_BTS = (item_BTS + (L - length_B)[:, None, None]).clamp(0, L - 1)
        index_BTS = self.index_BL.gather(1, column_BTS.view(B, -1)).view(B, T, size)
        share_BTS = real_BTS.to(self.rows_UD.dtype)
        share_BTS /= share_BTS.sum(2, keepdim=True).clamp(min=1)
        return History(self.rows_UD, index_BTS, mask_BT, share_BTS)

    def _gather(self, rows_UD: Tensor) -> Tensor:
        if self.share_BLS is None:
            return F.embedding(self.index_BL, rows_UD)
        B, L, S = self.index_BL.shape
        mean = F.embedding_bag(
            self.index_BL.reshape(-1, S),
            rows_UD,
            mode="sum",
            per_sample_weights=self.share_BLS.reshape(-1, S),
        )
        return mean.view(B, L, -1)

    def _moved(self, move, mask: Tensor) -> History:
        share = None if self.share_BLS is None else move(self.share_BLS)
        return History(self.rows_UD, move(self.index_BL), mask, share)


def _gather_columns(t: Tensor, index_BK: Tensor) -> Tensor:
    if t.dim() == 2:
        return t.gather(1, index_BK)
    return t.gather(1, index_BK[:, :, None].expand(-1, -1, t.shape[2]))
