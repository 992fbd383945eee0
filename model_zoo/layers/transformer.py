"""A transformer encoder layer that computes only the positions that are read.

Shape suffixes: B samples, L positions, R positions read, W width of a position.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .functional import check_heads


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
        query, key, value = (
            z.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for z in (self.W_q(read_BRW), self.W_k(x_BLW), self.W_v(x_BLW))
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
