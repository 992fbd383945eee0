"""Target attention over a history, computed without projecting the items.

Shape suffixes: B samples, L history length, K selected positions, H heads, D item width,
A attention width, C = A / H head width, P = H * D.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..ops.functional import check_sizes
from .events import EventBias


class TargetAttention(nn.Module):
    """Multi-head attention of one target over a history (DIN / TWIN), with an output of width D.

    It uses ``q W_k x_i = (W_k^T q) x_i`` and ``sum_i a_i W_v x_i = W_v sum_i a_i x_i``. A head then
    needs D multiplications per item instead of D * A. The results are the same up to rounding. A
    sample without real items gets exact zeros.

    After ``read_events``, with e the buckets of position i, the scores of a head are
    ``q W_k x_i + sum_e b_e``, and its output is ``sum_i a_i W_v (x_i + sum_e v_e)``.

    Args:
        input_dim: D, width of items and target.
        attention_dim: A, total width of the heads.
        num_heads: H; must divide A.
        dropout: dropout rate of the attention weights.
        use_scale: divide the scores by the square root of a head's width.
        use_qkvo: project queries, keys, values and outputs. Otherwise a head is a slice of the
            vectors themselves, and A is D.
    """

    query_DP: Tensor | None
    value_PD: Tensor | None
    topk: int | None = None  # how many items a head attends to; None means all

    def __init__(
        self,
        input_dim: int,
        attention_dim: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        use_scale: bool = True,
        use_qkvo: bool = True,
    ) -> None:
        super().__init__()
        attention_dim = attention_dim if use_qkvo else input_dim
        if attention_dim % num_heads:
            raise ValueError(
                f"attention_dim={attention_dim} is not divisible by num_heads={num_heads}; "
                f"write a multiple, such as {num_heads * max(1, attention_dim // num_heads)}"
            )
        self.input_dim, self.attention_dim, self.num_heads = input_dim, attention_dim, num_heads
        self.scale = (attention_dim // num_heads) ** -0.5 if use_scale else 1.0
        self.use_qkvo = use_qkvo
        if use_qkvo:
            self.W_q = nn.Linear(input_dim, attention_dim, bias=False)
            self.W_k = nn.Linear(input_dim, attention_dim, bias=False)
            self.W_v = nn.Linear(input_dim, attention_dim, bias=False)
            self.W_o = nn.Linear(attention_dim, input_dim, bias=False)
        self.register_buffer("query_DP", None)  # see ``for_serving``
        self.register_buffer("value_PD", None)
        self.dropout = dropout
        self.events: EventBias | None = None

    def read_events(self, sizes: list[int]) -> None:
        """Read the columns ``History.events``; see ``EventBias``."""
        self.events = EventBias(self.input_dim, sizes, self.num_heads)

    def for_serving(self) -> None:
        """Put one matrix in place of each two that follow each other, for serving, if that is faster.

        ``ServedModel`` calls this method of every part that has it.
        """
        if not self.use_qkvo or self.num_heads * self.input_dim >= 2 * self.attention_dim:
            return
        layers, heads = (self.W_q, self.W_k, self.W_v), (self.num_heads, -1)
        q_HCD, k_HCD, v_HCD = (layer.weight.double().unflatten(0, heads) for layer in layers)
        o_DHC, dtype = self.W_o.weight.double().unflatten(1, heads), self.W_o.weight.dtype
        query_DHD = torch.einsum("hcd,hce->dhe", q_HCD, k_HCD) * self.scale
        self.query_DP = query_DHD.flatten(1).to(dtype)
        self.value_PD = torch.einsum("hcd,ehc->hde", v_HCD, o_DHC).flatten(0, 1).to(dtype)
        del self.W_q, self.W_k, self.W_v, self.W_o

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        """The attended history, ``(B, D)``."""
        rate = self.dropout if self.training else 0.0
        query_BHD = self._query(target_BD)
        if self.events is None:
            return self._project(history.attend(query_BHD, rate, self.topk)[0])
        pooled_BHD, _ = history.attend(self.events.extend(query_BHD), rate, self.topk)
        return self._project(self.events.fold(pooled_BHD))

    def _query(self, target_BD: Tensor) -> Tensor:
        """Each head's scaled query ``W_k^T q`` in the space of the items, ``(B, H, D)``."""
        heads = (self.num_heads, -1)
        if self.query_DP is not None:
            return (target_BD @ self.query_DP).unflatten(-1, heads)
        if not self.use_qkvo:  # a head is a slice of the vector, so its query is zero elsewhere
            own = torch.eye(self.num_heads, dtype=target_BD.dtype, device=target_BD.device)
            slices_BHC = target_BD.unflatten(-1, heads)
            return torch.einsum("bhc,hg->bhgc", slices_BHC, own).flatten(2) * self.scale
        query_BHC = self.W_q(target_BD).unflatten(-1, heads)
        keys_HCD = self.W_k.weight.unflatten(0, heads)
        return torch.einsum("bhc,hcd->bhd", query_BHC, keys_HCD) * self.scale

    def _project(self, pooled_BHD: Tensor) -> Tensor:
        """The output ``(B, D)``, from each head's weighted sum of unprojected items."""
        if self.value_PD is not None:
            return pooled_BHD.flatten(1) @ self.value_PD
        if not self.use_qkvo:
            slices_BHHC = pooled_BHD.unflatten(-1, (self.num_heads, -1))
            return torch.einsum("bhhc->bhc", slices_BHHC).flatten(1)
        values_HCD = self.W_v.weight.unflatten(0, (self.num_heads, -1))
        return self.W_o(torch.einsum("bhd,hcd->bhc", pooled_BHD, values_HCD).flatten(1))


class ShortTargetAttention(TargetAttention):
    """Target attention over the newest ``short_seq_len - 1`` items.

    LongCTR's models have it beside their long part. As in LongCTR, the length counts the target.

    Args:
        attention: the arguments of ``TargetAttention``.
        short_seq_len: how many items are read, plus one for the target.
        longctr_compat: use LongCTR's mask, which is shifted: each item gets the mask of the item
            before it. Here the result is the same for every padded length. LongCTR fails for some.
    """

    def __init__(
        self, *attention: Any, short_seq_len: int = 50, longctr_compat: bool = False
    ) -> None:
        super().__init__(*attention)
        if short_seq_len < 2:
            raise ValueError(f"short_seq_len={short_seq_len} leaves no item; write 2 or more")
        self.short_len = short_seq_len - 1
        self.longctr_compat = longctr_compat

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        recent = history.last(self.short_len)
        if not self.longctr_compat:
            return super().forward(recent, target_BD)
        # An item counts as real if the one before it is real. So the oldest item of a history is
        # lost, unless it lies outside the window.
        older_BL = F.pad(history.mask_BL, (1, 0))[:, -len(recent) - 1 : -1]
        only_B1 = recent.mask_BL.sum(1, keepdim=True) == 1
        shifted = recent.with_mask(recent.mask_BL & (older_BL | only_B1))
        # A single item would be lost too. LongCTR then averages over the whole window, where all
        # else is padding and zero.
        return super().forward(shifted, target_BD) * torch.where(only_B1, 1 / self.short_len, 1.0)


class TopKTargetAttention(TargetAttention):
    """TWIN's long attention: its scores first select ``topk`` items, then weight them.

    Each head selects its own items. As in LongCTR, the selection has no gradient: only selected
    items get one.

    Args:
        attention: the arguments of ``TargetAttention``.
        topk: how many items each head selects.
    """

    def __init__(self, *attention: Any, topk: int = 50) -> None:
        super().__init__(*attention)
        check_sizes(topk=topk)
        self.topk = topk
