"""Target attention in its cheap exact form: the target visits item space, items are never projected.

Shape suffixes: B samples, L history length, K selected positions, H heads, D item width,
A attention width, C = A / H head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .history import History


class TargetAttention(nn.Module):
    """Multi-head attention of one target over a history (DIN / TWIN), output width D.

    Uses ``q W_k x_i = (W_k^T q) x_i`` and ``sum_i a_i W_v x_i = W_v sum_i a_i x_i``: per head and
    item D multiplications instead of D * A, with the same numbers to rounding. A sample without
    real items gets exact zeros.

    Args:
        input_dim: D, width of items and target.
        attention_dim: A, total width of the heads.
        num_heads: H; must divide A.
        dropout: rate on the attention weights.
    """

    def __init__(
        self, input_dim: int, attention_dim: int, num_heads: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if attention_dim % num_heads:
            raise ValueError(
                f"attention_dim={attention_dim} is not divisible by num_heads={num_heads}; "
                f"write a multiple, such as {num_heads * max(1, attention_dim // num_heads)}"
            )
        self.num_heads = num_heads
        self.W_q = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_k = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_v = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_o = nn.Linear(attention_dim, input_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        """The attended history, ``(B, D)``."""
        pooled_BHD = self._pool(self._query(target_BD), history.embed(), history.mask_BL)
        return self._project(pooled_BHD)

    def _query(self, target_BD: Tensor) -> Tensor:
        """The target's query of each head, carried into item space and scaled: ``(B, H, D)``."""
        query_BHC = self.W_q(target_BD).unflatten(-1, (self.num_heads, -1))
        keys_HCD = self.W_k.weight.unflatten(0, (self.num_heads, -1))
        return torch.einsum("bhc,hcd->bhd", query_BHC, keys_HCD) * query_BHC.shape[-1] ** -0.5

    def _pool(self, query_BHD: Tensor, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Attention-weighted raw items of each head: ``(B, H, D)``."""
        scores_BHL = query_BHD @ x_BLD.transpose(1, 2)
        weights_BHL = self.dropout(masked_softmax(scores_BHL, mask_BL[:, None, :]))
        return weights_BHL @ x_BLD

    def _project(self, pooled_BHD: Tensor) -> Tensor:
        values_HCD = self.W_v.weight.unflatten(0, (self.num_heads, -1))
        return self.W_o(torch.einsum("bhd,hcd->bhc", pooled_BHD, values_HCD).flatten(1))


class TopKTargetAttention(TargetAttention):
    """TWIN's long attention: the same scores first select ``topk`` items, then weight them.

    Selection is per head and not differentiated, as in LongCTR. Scores of the whole history are
    computed outside autograd; only the selected items are gathered again with gradient.
    """

    def __init__(
        self,
        input_dim: int,
        attention_dim: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        topk: int = 50,
    ) -> None:
        super().__init__(input_dim, attention_dim, num_heads, dropout)
        if topk < 1:
            raise ValueError(f"topk={topk}: at least one item must be selected")
        self.topk = topk

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        """The attention over the ``topk`` best real items of each head, ``(B, D)``."""
        if len(history) <= self.topk:
            return super().forward(history, target_BD)
        query_BHD = self._query(target_BD)
        with torch.no_grad():
            scores_BHL = query_BHD @ history.peek().transpose(1, 2)
            scores_BHL.masked_fill_(~history.mask_BL[:, None, :], -torch.inf)
            best_BHK, index_BHK = scores_BHL.topk(self.topk, dim=-1, sorted=False)
        selected = history.take(index_BHK.flatten(1), best_BHK.flatten(1) > -torch.inf)
        # Every head has items of its own: fold the heads into the batch.
        heads = (-1, self.topk)
        pooled_BHD = self._pool(
            query_BHD.flatten(0, 1)[:, None, :],
            selected.embed().reshape(*heads, query_BHD.shape[-1]),
            selected.mask_BL.reshape(heads),
        ).view_as(query_BHD)
        return self._project(pooled_BHD)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where ``mask`` is True; exact zeros elsewhere and in empty rows."""
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(filled, dim=-1).masked_fill(~mask, 0.0)
