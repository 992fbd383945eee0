"""HSTU: pointwise attention with a gate, over a history and its candidate (Zhai et al., ICML 2024).

Shape suffixes: B samples, L history length, T = L + 1 positions, the candidate last, U rows, D item
width, A attention width, H heads, C = A / H head width, P = B * H, N buckets of all event features.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..history.rows import RowTable, gather_rows
from ..layers.block import SequenceBlock, by_length
from ..layers.events import EventBias
from ..ops.dropout import Dropout
from ..ops.functional import check_heads, check_sizes
from ..ops.precision import at_least_float32
from ..sequence_model import SequenceModel

NORM_EPS = 1e-12


class HSTULayer(nn.Module):
    """A sequential transduction unit: equations 1 to 3 of the paper, with a residual.

    With x the positions after a LayerNorm, ``v, k, q, u = SiLU(f1(x))``. Position i attends to itself
    and to each older real position j, with the weight ``SiLU(q_i k_j + p_(i-j)) / n_i``. From its
    mixture ``m_i`` of the values ``v_j`` follows ``y_i = x_i + f2(LayerNorm(m_i) u_i)``. All heads share
    the bias p of a distance, which starts at zero. The paper divides by the longest length. Here
    ``n_i`` is the number of positions to which i attends, so that mixtures have one scale in a long
    history and in the short one of an expert.

    After ``read_events``, with e the buckets of position j, its score has the bias ``sum_e b_e`` too,
    and the value of each head is ``v_j + sum_e w_e``. The candidate is no event, so each feature has
    a bucket for it. The arguments are those of ``HSTUBlock``.
    """

    def __init__(
        self, width: int, attention_dim: int, num_heads: int, dropout: float, max_len: int
    ) -> None:
        super().__init__()
        check_heads(attention_dim, num_heads)
        self.num_heads, self.head_dim = num_heads, attention_dim // num_heads
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.expand = nn.Linear(width, 4 * attention_dim)  # to v, k, q and u
        self.mixture_norm = nn.LayerNorm(attention_dim, eps=NORM_EPS)
        self.contract = nn.Linear(attention_dim, width)
        self.dropout = Dropout(dropout)
        self.distance_bias = nn.Parameter(torch.zeros(max_len + 1, 1))
        self.events: EventBias | None = None

    def read_events(self, sizes: list[int]) -> None:
        """Read the columns ``History.events``; see ``EventBias``."""
        self.events = EventBias(self.head_dim, sizes)

    def parts(self, x: Tensor, count: int) -> Tensor:
        """The first ``count`` of v, k, q and u of vectors ``(..., D)``, side by side."""
        width = count * self.num_heads * self.head_dim
        weight, bias = self.expand.weight[:width], self.expand.bias[:width]
        return F.silu(at_least_float32(F.linear(self.norm(x), weight, bias)))

    def forward(self, parts: RowTable, items: History) -> Tensor:
        """The output at all positions, ``(B, T, D)``; ``parts`` has v, k, q and u of the rows."""
        parts_BTZ = parts.gather(items.index_BL)
        heads = parts_BTZ.unflatten(-1, (4, self.num_heads, -1))
        v_BHTC, k_BHTC, q_BHTC, _ = heads.permute(2, 0, 3, 1, 4)
        age_T = torch.arange(len(items), device=heads.device)
        distance_TT = age_T[:, None] - age_T
        bias = self._distance(distance_TT).masked_fill(distance_TT < 0, -1e9)  # where SiLU is zero
        if self.events is not None:
            v_BHTC = v_BHTC + self.events(items)[:, None]
            bias = bias + self.events.biases(items).mT[:, None]
        v_BHTC = v_BHTC.masked_fill(~items.mask_BL[:, None, :, None], 0.0)  # of padding
        mixed_BHTC = F.silu((q_BHTC @ k_BHTC.mT).add_(bias)) @ v_BHTC
        mixed_BTA = mixed_BHTC.transpose(1, 2).flatten(2)
        count_BT1 = items.mask_BL.cumsum(1).clamp(min=1)[..., None]
        u_BTA = parts_BTZ[..., -mixed_BTA.shape[-1] :]
        return self._finish(items.embed(), u_BTA, mixed_BTA / count_BT1)

    def read(self, pairs: RowTable, items: History, target_BD: Tensor) -> Tensor:
        """The output at the candidate, ``(B, D)``. A CPU reads keys and values in place.

        ``pairs`` has v and k of the rows. Each head of each is a row of its own, ``(U * 2 * H, C)``.
        """
        H = self.num_heads
        *_, q_BA, u_BA = self.parts(target_BD, 4).chunk(4, dim=-1)
        query_P1C = q_BA.reshape(-1, 1, self.head_dim)
        head_H1 = torch.arange(H, device=q_BA.device)[:, None]
        value_PT = (items.index_BL[:, None] * (2 * H) + head_H1).flatten(0, 1)
        mask_PT, *events = (x.repeat_interleave(H, 0) for x in (items.mask_BL, *items.events))
        keys, values = (History(pairs, i, mask_PT, events) for i in (value_PT + H, value_PT))
        if self.events is not None:
            query_P1C = self.events.extend(query_P1C)
        distance_T = torch.arange(len(items) - 1, -1, -1, device=q_BA.device)
        scores_P1T = keys.dot(query_P1C) + self._distance(distance_T)
        weights_P1T = F.silu(scores_P1T).masked_fill(~mask_PT[:, None], 0.0)
        mixed_P1C = values.weighted_sum(weights_P1T, self.events.buckets if self.events else 0)
        if self.events is not None:
            mixed_P1C = self.events.fold(mixed_P1C)
        mixed_BA = mixed_P1C.reshape(q_BA.shape) / items.mask_BL.sum(1, keepdim=True)
        return self._finish(target_BD, u_BA, mixed_BA)

    def _distance(self, distance: Tensor) -> Tensor:
        index = distance.clamp(0, len(self.distance_bias) - 1)
        return gather_rows(self.distance_bias, index)[..., 0]

    def _finish(self, x: Tensor, u: Tensor, mixed: Tensor) -> Tensor:
        return x + self.contract(self.dropout(self.mixture_norm(mixed) * u))


class HSTUBlock(SequenceBlock):
    """The block of HSTU: layers over the history and the candidate after it, read at the candidate.

    The last layer computes the candidate alone, the earlier ones all positions. As in the authors'
    code, a layer's input is normalised first. An action is a feature of its event here and no
    position of its own. Without history, the candidate attends to itself. The output has width D.

    Args:
        item_dim: D, width of an item.
        num_layers: number of layers.
        attention_dim: A, the width of all heads of each of v, k, q and u.
        num_heads: H; must divide A.
        dropout: dropout rate of what f2 reads.
        max_len: the longest distance with a bias of its own; longer ones share it.
    """

    def __init__(
        self,
        item_dim: int,
        *,
        num_layers: int = 2,
        attention_dim: int = 64,
        num_heads: int = 1,
        dropout: float = 0.2,
        max_len: int = 1000,
    ) -> None:
        super().__init__()
        check_sizes(num_layers=num_layers, attention_dim=attention_dim, max_len=max_len)
        sizes = item_dim, attention_dim, num_heads, dropout, max_len
        self.layers = nn.ModuleList(HSTULayer(*sizes) for _ in range(num_layers))
        self.output_dim = item_dim
        self.buckets = 0  # of all features of events, without the candidate's

    def read_events(self, sizes: list[int]) -> None:
        self.buckets = sum(sizes)
        for layer in cast(Iterable[HSTULayer], self.layers):
            layer.read_events([*sizes, len(sizes)])  # the candidate's buckets come last

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        if history.mask_BL.shape[0] < target_BD.shape[0]:
            return self._shared(history, target_BD)
        if history.num_rows > history.index_BL.numel():  # embed positions, with little padding
            return by_length(self._embedded, history, target_BD)
        items = self._with_candidates(history, target_BD)
        *layers, last = cast(Iterable[HSTULayer], self.layers)

        def table(rows_UD: Tensor, depth: int) -> RowTable:
            if depth < len(layers):
                return RowTable(layers[depth].parts(rows_UD, 4))
            return RowTable(last.parts(rows_UD, 2).view(-1, last.head_dim))

        first = table(items.rows_UD, 0)  # each row once, for all groups

        def run(items: History, _: Tensor) -> Tensor:
            parts = first
            for depth, layer in enumerate(layers, start=1):
                items = with_vectors(items, layer(parts, items))
                parts = table(items.rows_UD, depth)
            return last.read(parts, items, items.lookup(items.index_BL[:, -1]))

        return by_length(run, items, target_BD)

    def _with_candidates(self, history: History, target_BD: Tensor) -> History:
        """The history of each candidate and then itself; several may share one history."""
        B = target_BD.shape[0]
        own_B1 = torch.arange(B, device=target_BD.device)[:, None] + history.num_rows
        index_BT = torch.cat([history.index_BL.expand(B, -1), own_B1], dim=1)
        mask_BT = F.pad(history.mask_BL, (0, 1), value=True).expand(B, -1)
        events = [
            F.pad(x, (0, 1), value=self.buckets + e).expand(B, -1)
            for e, x in enumerate(history.events)
        ]
        return History(torch.cat([history.rows_UD, target_BD]), index_BT, mask_BT, events)

    def _shared(self, history: History, target_BD: Tensor) -> Tensor:
        """Candidates after one history, which is encoded once, since a position reads older ones."""
        *layers, last = cast(Iterable[HSTULayer], self.layers)
        history = with_vectors(history, history.embed())
        for layer in layers:
            target_BD = self._read(layer, history, target_BD)
            parts = RowTable(layer.parts(history.rows_UD, 4))
            history = with_vectors(history, layer(parts, history))
        return self._read(last, history, target_BD)

    def _read(self, layer: HSTULayer, history: History, target_BD: Tensor) -> Tensor:
        items = self._with_candidates(history, target_BD)
        pairs = RowTable(layer.parts(items.rows_UD, 2).view(-1, layer.head_dim))
        return layer.read(pairs, items, target_BD)

    def _embedded(self, history: History, target_BD: Tensor) -> Tensor:
        return self.forward(with_vectors(history, history.embed()), target_BD)


def with_vectors(history: History, x_BLD: Tensor) -> History:
    """The history with other vectors at its positions."""
    return History.from_vectors(x_BLD, history.mask_BL, history.events)


class HSTU(SequenceModel):
    """HSTU without experts."""

    block = HSTUBlock
    reads_times = True
