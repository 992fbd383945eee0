"""Transformer encoder layers that compute only the positions that are read.

Shape suffixes: B samples, L positions, R positions read, W width of a position, D of an item.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import check_heads
from .history import History


class EncoderLayer(nn.Module):
    """Post-norm encoder layer, bidirectional; padding is never attended to.

    Keys and values come from every position, queries only from those that are read: with one read
    position the layer costs its key and value projections, and little else. Keys have no bias: it
    would add the same to all scores of a query, which the softmax cancels.

    Args:
        width: W.
        num_heads: must divide W.
        dim_feedforward: hidden width of the feed-forward part.
        dropout: rate on what the two parts add.
        attention_dropout: rate on the attention weights.
        hidden_dropout: rate inside the feed-forward part.
        activation: inside the feed-forward part.
        eps: of LayerNorm.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        dim_feedforward: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.W_q = nn.Linear(width, width)
        self.W_k = nn.Linear(width, width, bias=False)
        self.W_v = nn.Linear(width, width)
        self.W_o = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, dim_feedforward)
        self.contract = nn.Linear(dim_feedforward, width)
        self.output_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.hidden_dropout = nn.Dropout(hidden_dropout)

    def forward(self, x_BLW: Tensor, mask_BL: Tensor, last: int | None = None) -> Tensor:
        """The newest ``last`` positions (default: all) after the layer: ``(B, R, W)``.

        Args:
            mask_BL: bool, True where a key may be attended to; at least one in each row.
        """
        read_BRW = x_BLW if last is None else x_BLW[:, -last:]
        return self._mix(read_BRW, self.W_q(read_BRW), self.W_k(x_BLW), self.W_v(x_BLW), mask_BL)

    def _mix(
        self, read_BRW: Tensor, q_BRW: Tensor, k_BLW: Tensor, v_BLW: Tensor, mask_BL: Tensor
    ) -> Tensor:
        """Attention of the read positions and what follows it, from projected positions."""
        query, key, value = (
            z.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for z in (q_BRW, k_BLW, v_BLW)
        )
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask_BL[:, None, None, :],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        mixed_BRW = self.W_o(mixed.transpose(1, 2).flatten(2))
        read_BRW = self.attention_norm(read_BRW + self.dropout(mixed_BRW))
        hidden = self.hidden_dropout(self.activation(self.expand(read_BRW)))
        return self.output_norm(read_BRW + self.dropout(self.contract(hidden)))

    def products(self, length: int, read: int) -> float:
        """FLOPs of the matrix products for one sample, of ``length`` positions ``read`` read."""
        W, hidden = self.expand.in_features, self.expand.out_features
        projections = 2 * W * W * (length + read)
        return 2 * (projections + 2 * W * length * read + 2 * W * hidden * read)


class PairEncoderLayer(EncoderLayer):
    """An encoder layer over ``[item, target]`` pairs, W = 2 * D, that projects the halves apart.

    The target's half is the same at every position: it is projected once, and as part of a key not
    at all, for it adds the same to every score. The item's half is projected once for each distinct
    item of the batch.
    """

    def forward(  # other inputs than its base's, the same numbers
        self, history: History, target_BD: Tensor, mask_BL: Tensor, last: int | None = None
    ) -> Tensor:
        """The newest ``last`` positions (default: all) after the layer: ``(B, R, W)``."""
        recent = history if last is None else history.last(last)
        x_BRD, target_B1D = recent.embed(), target_BD[:, None]
        D = x_BRD.shape[-1]

        def item_half(linear: nn.Linear, items: History) -> Tensor:
            return items.map(lambda x: F.linear(x, linear.weight[:, :D]))

        def target_half(linear: nn.Linear) -> Tensor:
            return F.linear(target_B1D, linear.weight[:, D:], linear.bias)

        return self._mix(
            torch.cat([x_BRD, target_B1D.expand_as(x_BRD)], dim=-1),
            item_half(self.W_q, recent) + target_half(self.W_q),
            item_half(self.W_k, history),
            item_half(self.W_v, history) + target_half(self.W_v),
            mask_BL,
        )

    def products(self, length: int, read: int) -> float:
        W = self.expand.in_features
        apart = W * W * (length + read / 2) + W * W  # item halves; target halves of query, value
        together = W * W * (2 * length + read)
        return super().products(length, read) + 2 * (apart - together)
