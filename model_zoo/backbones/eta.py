"""ETA: target attention over the items whose hashes are nearest (Chen et al., DLP-KDD 2022).

Shape suffixes: B samples, L history length, K retrieved items, D item width, T hash bits.
"""

import torch
from torch import Tensor

from ..history.history import History
from ..layers.simhash import RetrievalBlock, agreement, code, codes_of
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class ETABlock(RetrievalBlock):
    """The block of ETA: attention over recent items, and over the items nearest to the target.

    Near is a small Hamming distance of SimHash codes. Of equally near items, the newest are taken.
    The block follows LongCTR, but with the mask of the recent items corrected, and with the same
    hashes throughout evaluation. Each expert has its own hashes. The output is ``[short, long]``, of
    width 2 * D. With event features, both attentions read them; a code is that of the item alone.

    The hyper-parameters are those of ``RetrievalBlock``. With ``longctr_compat``, equally near items
    are taken in LongCTR's order, and hyperplanes that are drawn anew are drawn for each sample.
    """

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        if self.topk < len(history):
            with unrounded(target_BD), torch.no_grad():
                agree_BL = self._agreement(history, target_BD)
            index_BK = self.nearest(agree_BL, history.mask_BL)
            history = history.take(index_BK)
        return torch.cat([short_BD, self.long_attention(history, target_BD)], dim=-1)

    def _agreement(self, history: History, target_BD: Tensor) -> Tensor:
        """For each item, the bits equal to the target's minus the unequal ones, ``(B, L)``."""
        if self.draws and self.longctr_compat:
            rotations_BDT = target_BD.new_empty(len(target_BD), *self.rotations_DT.shape).normal_()
            codes_BLT = code(rotations_BDT, history.embed_detached())
            return (codes_BLT * code(rotations_BDT, target_BD[:, None])).sum(-1)
        rotations_DT = torch.randn_like(self.rotations_DT) if self.draws else self.rotations_DT
        return agreement(codes_of(history, rotations_DT), rotations_DT, target_BD)

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {name: w for name, w in weights.items() if name != "random_rotations"}
        return kept | {"rotations_DT": weights["random_rotations"][0]}


class ETA(SequenceModel):
    """ETA without experts."""

    block = ETABlock
