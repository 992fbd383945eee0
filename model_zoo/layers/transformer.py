"""Transformer encoder layers that compute only the positions that are read.

Shape suffixes: B samples, L positions, R positions read, W width of a position, D of an item.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..ops.dropout import Dropout
from ..ops.functional import FEW_QUERIES, attend, check_heads
from .events import EventInput


class EncoderLayer(nn.Module):
    """A bidirectional post-norm encoder layer that never attends to padding.

    Keys and values come from every position, queries only from the positions that are read. Keys
    have no bias. It would add the same number to all scores of a query, which the softmax cancels.

    Args:
        width: W.
        num_heads: number of attention heads; must divide W.
        dim_feedforward: hidden width of the feed-forward part.
        dropout: dropout rate of the outputs of attention and feed-forward part.
        attention_dropout: dropout rate of the attention weights.
        hidden_dropout: dropout rate inside the feed-forward part.
        activation: activation function of the feed-forward part.
        eps: epsilon of the LayerNorms.
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
        self.dropout = Dropout(dropout)
        self.hidden_dropout = Dropout(hidden_dropout)

    def forward(self, x_BLW: Tensor, mask_BL: Tensor, last: int | None = None) -> Tensor:
        """The layer's output ``(B, R, W)`` at the newest ``last`` positions (default: all).

        Args:
            x_BLW: the input at all positions.
            mask_BL: bool, True at positions to attend to; each row needs at least one.
            last: R, the number of positions to compute.
        """
        read_BRW = x_BLW if last is None else x_BLW[:, -last:]
        q_BRW = self.W_q(read_BRW)
        if self.reads_few(last):
            weights = self.W_k.weight, self.W_v.weight
            query_BND = self._carried(q_BRW, weights[0])
            pooled_BND, total_BN = attend(query_BND, x_BLW, mask_BL, self._rate())
            mixed_BRW = self._values(pooled_BND, total_BN, weights[1], self.W_v.bias[None])
        else:
            mixed_BRW = self._mix(q_BRW, self.W_k(x_BLW), self.W_v(x_BLW), mask_BL)
        return self._finish(read_BRW, mixed_BRW)

    def reads_few(self, last: int | None) -> bool:
        """Whether there are so few queries that projecting them is cheaper than projecting keys.

        Then no position is projected: ``q W_k x = (W_k^T q) x`` and
        ``sum_i a_i W_v x_i = W_v sum_i a_i x_i``.
        """
        return last is not None and last * self.num_heads <= FEW_QUERIES

    def _carried(self, q_BRW: Tensor, key_WD: Tensor) -> Tensor:
        """The scaled queries ``W_k^T q`` of R positions and H heads: ``(B, R * H, D)``."""
        query_BRHC = q_BRW.unflatten(-1, (self.num_heads, -1))
        keys_HCD = key_WD.unflatten(0, (self.num_heads, -1))
        scale = keys_HCD.shape[1] ** -0.5
        return torch.einsum("brhc,hcd->brhd", query_BRHC, keys_HCD).flatten(1, 2) * scale

    def _values(
        self, pooled_BND: Tensor, total_BN: Tensor, value_WD: Tensor, constant_BW: Tensor
    ) -> Tensor:
        """Project each query's weighted sum of positions to values, ``(B, R, W)``.

        The constant is a term that the values of all positions of a sample share.
        """
        heads = (-1, self.num_heads)
        values_HCD = value_WD.unflatten(0, (self.num_heads, -1))
        mixed_BRHC = torch.einsum("brhd,hcd->brhc", pooled_BND.unflatten(1, heads), values_HCD)
        constant_B1HC = constant_BW.unflatten(-1, (1, self.num_heads, -1))
        return (mixed_BRHC + total_BN.unflatten(1, heads)[..., None] * constant_B1HC).flatten(2)

    def _mix(self, q_BRW: Tensor, k_BLW: Tensor, v_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        """Attention over projected positions, ``(B, R, W)``."""
        query, key, value = (
            z.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for z in (q_BRW, k_BLW, v_BLW)
        )
        mixed = F.scaled_dot_product_attention(
            query,
            key.expand_as(value),
            value,
            attn_mask=mask_BL[:, None, None, :],
            dropout_p=self._rate(),
        )
        return mixed.transpose(1, 2).flatten(2)

    def _finish(self, read_BRW: Tensor, mixed_BRW: Tensor) -> Tensor:
        """The layer's output, from the input at the read positions and the attention's output."""
        read_BRW = self.attention_norm(read_BRW + self.dropout(self.W_o(mixed_BRW)))
        hidden = self.hidden_dropout(self.activation(self.expand(read_BRW)))
        return self.output_norm(read_BRW + self.dropout(self.contract(hidden)))

    def _rate(self) -> float:
        return self.attention_dropout if self.training else 0.0


class PairEncoderLayer(EncoderLayer):
    """An encoder layer over ``[item, target]`` pairs that projects both halves separately.

    Here W = 2 * D. The target's half is the same at every position, so it is projected once. In a
    key it would add the same number to every score, so it is left out there. The item's half is
    projected once for each distinct item of the batch. After ``read_events``, the item's half is
    ``x + sum_e v_e``, with e the buckets of the position.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.events: EventInput | None = None

    def read_events(self, sizes: list[int]) -> None:
        """Read the columns ``History.events``; see ``EventInput``."""
        self.events = EventInput(self.W_q.in_features // 2, sizes)

    def forward(  # type: ignore[override]  # a pair is no single tensor
        self, history: History, target_BD: Tensor, mask_BL: Tensor, last: int | None = None
    ) -> Tensor:
        """The layer's output ``(B, R, W)`` at the newest ``last`` positions (default: all)."""
        recent = history if last is None else history.last(last)
        events, x_BRD, target_B1D = self.events, recent.embed(), target_BD[:, None]
        D = x_BRD.shape[-1]
        if events is not None:
            x_BRD = x_BRD + events(recent)

        def item_half(linear: nn.Linear, items: History) -> Tensor:
            weight_WD = linear.weight[:, :D]
            half = items.project(lambda x: F.linear(x, weight_WD))
            return half if events is None else half + events(items, weight_WD)

        def target_half(linear: nn.Linear) -> Tensor:
            return F.linear(target_B1D, linear.weight[:, D:], linear.bias)

        both = x_BRD.expand(target_BD.shape[0], -1, -1), target_B1D.expand(-1, x_BRD.shape[1], -1)
        read_BRW = torch.cat(both, dim=-1)
        if self.reads_few(last):
            query_BND = self._carried(self.W_q(read_BRW), self.W_k.weight[:, :D])
            if events is not None:
                query_BND = events.extend(query_BND)
            pooled_BND, total_BN = history.with_mask(mask_BL).attend(query_BND, self._rate())
            if events is not None:
                pooled_BND = events.fold(pooled_BND)
            constant_BW = target_half(self.W_v)[:, 0]
            mixed = self._values(pooled_BND, total_BN, self.W_v.weight[:, :D], constant_BW)
        else:
            mixed = self._mix(
                item_half(self.W_q, recent) + target_half(self.W_q),
                item_half(self.W_k, history),
                item_half(self.W_v, history) + target_half(self.W_v),
                mask_BL,
            )
        return self._finish(read_BRW, mixed)
