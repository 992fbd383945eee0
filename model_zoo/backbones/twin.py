"""TWIN: two-stage target attention over a long history (Chang et al., KDD 2023)."""

from typing import Any

import torch
from torch import Tensor

from ..history.history import History
from ..layers.attention import TopKTargetAttention
from ..layers.short_long import ShortLongBlock
from ..sequence_model import SequenceModel


class TWINBlock(ShortLongBlock):
    """The block of TWIN: attention over recent items, and over the ``topk`` most relevant ones.

    It follows LongCTR, but with the mask of the recent items corrected. The output is ``[short,
    long]``, of width 2 * D.

    Args:
        item_dim: D, width of an item.
        topk: how many items each head of the long attention selects.
        Kc_cross_features: must be 0. LongCTR's configurations have this key, but its code for cross
            features cannot run.
        attention: hyper-parameters of both attentions; see ``ShortLongBlock``.
    """

    def __init__(
        self, item_dim: int, *, topk: int = 50, Kc_cross_features: int = 0, **attention: Any
    ) -> None:
        super().__init__(item_dim, **attention)
        if Kc_cross_features:
            raise ValueError(f"Kc_cross_features={Kc_cross_features} is not supported; write 0")
        self.long_attention = TopKTargetAttention(*self.attention, topk=topk)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        return torch.cat([short_BD, self.long_attention(history, target_BD)], dim=-1)

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace(".W_h.", ".W_k."): weight for name, weight in weights.items()}


class TWIN(SequenceModel):
    """TWIN without experts."""

    block = TWINBlock
