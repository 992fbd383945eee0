"""SimHash: codes of the sides of random hyperplanes, and the items whose codes are nearest.

Shape suffixes: B samples, L history length, K retrieved items, D item width, T hash bits.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..history.history import History
from ..ops.functional import check_sizes
from .attention import TargetAttention
from .short_long import ShortLongBlock

AGE_RANGE = 2**20  # more than any age in items, so that an equal bit counts more than the age


class RetrievalBlock(ShortLongBlock):
    """Base of blocks whose long part is attention over items that are retrieved by their hashes.

    Args:
        item_dim: D, width of an item.
        topk: K, how many items a query retrieves.
        hash_bits: T, bits per code.
        reuse_hash: keep the same hyperplanes. Otherwise each training step draws new ones, and with
            ``longctr_compat`` evaluation does, too.
        attention: hyper-parameters of both attentions; see ``ShortLongBlock``.
    """

    rotations_DT: Tensor

    def __init__(
        self,
        item_dim: int,
        *,
        topk: int = 50,
        hash_bits: int = 32,
        reuse_hash: bool = True,
        **attention: Any,
    ) -> None:
        super().__init__(item_dim, **attention)
        check_sizes(topk=topk, hash_bits=hash_bits)
        self.long_attention = TargetAttention(*self.attention)
        self.register_buffer("rotations_DT", torch.randn(item_dim, hash_bits))
        self.topk, self.reuse_hash = topk, reuse_hash

    def init_weights(self) -> None:
        """Draw random hyperplanes; FuxiCTR calls this."""
        nn.init.normal_(self.rotations_DT)

    @property
    def draws(self) -> bool:
        """Whether hyperplanes are drawn anew."""
        return not self.reuse_hash and (self.training or self.longctr_compat)

    def nearest(self, agree_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """The columns of the real items whose codes agree the most, ``(B, min(K, L))``.

        Padding comes after all real items. Of equally near items the newest are taken; with
        ``longctr_compat`` any are, as in LongCTR.

        Args:
            agree_BL: see ``agreement``.
            mask_BL: True at real items.
        """
        if self.longctr_compat:
            near_BL = agree_BL.masked_fill(~mask_BL, -torch.inf)
        else:
            age_L = torch.arange(agree_BL.shape[1] - 1, -1, -1, device=agree_BL.device)
            near_BL = agree_BL.long() * AGE_RANGE - age_L
            near_BL = near_BL.masked_fill(~mask_BL, torch.iinfo(torch.long).min)
        return near_BL.topk(min(self.topk, near_BL.shape[1]), dim=1).indices


def codes_of(history: History, rotations_DT: Tensor) -> History:
    """The history of the items' codes, outside autograd."""
    return history.transform(partial(code, rotations_DT))


def agreement(codes: History, rotations_DT: Tensor, query_BD: Tensor) -> Tensor:
    """For each item, the bits equal to the query's minus the unequal ones, ``(B, L)``.

    The numbers are small and whole, so the product is exact.
    """
    return codes.scores(code(rotations_DT, query_BD)[:, None])[:, 0]


def code(rotations_DT: Tensor, x: Tensor) -> Tensor:
    """The hash ``(..., T)`` of vectors ``(..., D)``: 1 or -1 for their side of each hyperplane.

    A vector on a hyperplane gets -1.
    """
    return torch.where(x @ rotations_DT > 0, 1.0, -1.0)
