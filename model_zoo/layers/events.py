"""What a block learns of the events' own features: a vector, and a bias of scores, for each bucket.

Shape suffixes: B samples, L history length, H queries, D width, N buckets of all features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..history.rows import gather_rows


class EventInput(nn.Module):
    """A vector for each bucket of an event feature: the vector of a position is ``x + sum_e v_e``.

    Here x is the item's and e are the buckets of the position. The vectors start at zero, so a block
    starts as it would without them.

    Args:
        width: D, width of the vectors.
        sizes: the number of buckets of each event feature; N is their sum.
    """

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.buckets = sum(sizes)
        self.value_ND = nn.Parameter(torch.zeros(self.buckets, width))

    def forward(self, history: History, weight: Tensor | None = None) -> Tensor:
        """``sum_e v_e``, or ``weight`` times it, at all positions, ``(B, L, D)``."""
        return at_events(
            self.value_ND if weight is None else F.linear(self.value_ND, weight), history
        )

    def extend(self, query_BHD: Tensor) -> Tensor:
        """Queries for ``History.attend`` whose scores are ``q (x + sum_e v_e)``, ``(B, H, D + N)``."""
        return torch.cat([query_BHD, query_BHD @ self.value_ND.T], dim=-1)

    def fold(self, pooled_BHD: Tensor) -> Tensor:
        """Weighted sums of ``x + sum_e v_e``, ``(B, H, D)``, from those of items and buckets."""
        items_BHD, buckets_BHN = pooled_BHD.tensor_split([self.value_ND.shape[1]], dim=-1)
        return items_BHD + buckets_BHN @ self.value_ND


class EventBias(EventInput):
    """As ``EventInput``, but a score is ``q x + sum_e b_e``: it has a bias for each bucket.

    The biases start at zero.

    Args:
        queries: H, the number of queries with biases of their own.
    """

    def __init__(self, width: int, sizes: list[int], queries: int = 1) -> None:
        super().__init__(width, sizes)
        self.bias_HN = nn.Parameter(torch.zeros(queries, self.buckets))

    def extend(self, query_BHD: Tensor) -> Tensor:
        """Queries for ``History.attend`` whose scores are ``q x + sum_e b_e``, ``(B, H, D + N)``."""
        return torch.cat([query_BHD, self.bias_HN.expand(query_BHD.shape[0], -1, -1)], dim=-1)

    def biases(self, history: History) -> Tensor:
        """``sum_e b_e`` at all positions, ``(B, L, H)``, for scores that are no products."""
        return at_events(self.bias_HN.T, history)


def at_events(table_NZ: Tensor, history: History) -> Tensor:
    """The sum of a table's rows for the buckets of each position, ``(B, L, Z)``."""
    first, *others = (gather_rows(table_NZ, bucket_BL) for bucket_BL in history.events)
    return sum(others, start=first)
