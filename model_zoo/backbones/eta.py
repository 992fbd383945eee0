"""ETA: target attention over the items whose hashes are nearest (Chen et al., DLP-KDD 2022).

Shape suffixes: B samples, L history length, K retrieved items, D item width, T hash bits.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..history.history import History
from ..layers.attention import TargetAttention
from ..layers.short_long import ShortLongBlock
from ..layers.simhash import code, nearest
from ..ops.functional import check_sizes
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class ETABlock(ShortLongBlock):
    """The block of ETA: attention over recent items, and over the items nearest to the target.

    Near is a small Hamming distance of SimHash codes. Of equally near items, the newest are taken.
    The block follows LongCTR, but with the mask of the recent items corrected, and with the same
    hashes throughout evaluation. Each expert has its own hashes. The output is ``[short, long]``, of
    width 2 * D. With event features, both attentions read them; a code is that of the item alone.

    Args:
        item_dim: D, width of an item.
        topk: K, how many items are retrieved.
        hash_bits: T, bits per code.
        reuse_hash: keep the same hyperplanes. Otherwise each training step draws new ones.
        attention: hyper-parameters of both attentions; see ``ShortLongBlock``. With
            ``longctr_compat``, equally near items are taken in LongCTR's order. Without
            ``reuse_hash``, it also draws hyperplanes for each sample, in evaluation too.
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

    def read_events(self, sizes: list[int]) -> None:
        self.short_attention.read_events(sizes)
        self.long_attention.read_events(sizes)

    def init_weights(self) -> None:
        """Draw random hyperplanes; FuxiCTR calls this."""
        nn.init.normal_(self.rotations_DT)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        if self.topk < len(history):
            with unrounded(target_BD), torch.no_grad():
                agree_BL = self._agreement(history, target_BD)
            newest_first = not self.longctr_compat
            index_BK = nearest(agree_BL, history.mask_BL, self.topk, newest_first)
            history = history.take(index_BK, history.mask_BL.gather(1, index_BK))
        return torch.cat([short_BD, self.long_attention(history, target_BD)], dim=-1)

    def _agreement(self, history: History, target_BD: Tensor) -> Tensor:
        """For each item, the bits equal to the target's minus the unequal ones, ``(B, L)``."""
        draw = not self.reuse_hash and (self.training or self.longctr_compat)
        if draw and self.longctr_compat:
            rotations_BDT = target_BD.new_empty(len(target_BD), *self.rotations_DT.shape).normal_()
            codes_BLT = code(rotations_BDT, history.embed_detached())
            return (codes_BLT * code(rotations_BDT, target_BD[:, None])).sum(-1)
        rotations_DT = torch.randn_like(self.rotations_DT) if draw else self.rotations_DT
        codes = history.transform(partial(code, rotations_DT))
        return codes.scores(code(rotations_DT, target_BD)[:, None])[:, 0]

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {name: w for name, w in weights.items() if name != "random_rotations"}
        return kept | {"rotations_DT": weights["random_rotations"][0]}


class ETA(SequenceModel):
    """ETA without experts."""

    block = ETABlock
