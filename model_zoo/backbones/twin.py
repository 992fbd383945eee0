"""TWIN: two-stage target attention over a long history (Chang et al., KDD 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..history.history import History
from ..layers.attention import ShortTargetAttention, TopKTargetAttention
from ..layers.block import SequenceBlock
from ..sequence_model import SequenceModel


class TWINBlock(SequenceBlock):
    """The block of TWIN: attention over the recent items, and over the ``topk`` most relevant.

    It follows LongCTR, with the mask of the short window corrected. The output is ``[short,
    long]``, of width 2 * D.

    Args:
        item_dim: D, width of an item.
        attention_dim: total width of the heads.
        num_heads: attention heads; each selects its own items.
        attention_dropout: rate on the attention weights.
        short_seq_len: length of the recent part, the target counted.
        topk: items that the long attention selects.
        Kc_cross_features: must be 0. LongCTR's configurations have this key, but its cross features
            cannot run.
        longctr_compat: use LongCTR's short mask; see ``ShortTargetAttention``.
    """

    def __init__(
        self,
        item_dim: int,
        *,
        attention_dim: int = 64,
        num_heads: int = 1,
        attention_dropout: float = 0.0,
        short_seq_len: int = 50,
        topk: int = 50,
        Kc_cross_features: int = 0,
        longctr_compat: bool = False,
    ) -> None:
        super().__init__()
        if Kc_cross_features:
            raise ValueError(f"Kc_cross_features={Kc_cross_features} is not supported; write 0")
        attention = (item_dim, attention_dim, num_heads, attention_dropout)
        self.short_attention = ShortTargetAttention(
            *attention, short_seq_len=short_seq_len, longctr_compat=longctr_compat
        )
        self.long_attention = TopKTargetAttention(*attention, topk=topk)
        self.output_dim = 2 * item_dim

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        return torch.cat([short_BD, self.long_attention(history, target_BD)], dim=-1)

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace(".W_h.", ".W_k."): weight for name, weight in weights.items()}


class TWIN(SequenceModel):
    """TWIN without experts."""

    block = TWINBlock
