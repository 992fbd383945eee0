"""SIM: search for the items that matter, then target attention over them (Pi et al., CIKM 2020).

Shape suffixes: B samples, L history length, K found items, D item width, N buckets of events.
"""

from collections.abc import Mapping
from typing import Any

import torch
from fuxictr.features import FeatureMap
from torch import Tensor, nn

from ..history.history import History
from ..history.matches import id_features
from ..layers.attention import TargetAttention
from ..layers.events import EventBias
from ..layers.short_long import ShortLongBlock
from ..ops.functional import check_choice, check_sizes
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class SIMBlock(ShortLongBlock):
    """The block of SIM: attention over recent items, and over the items that a search finds.

    The soft search scores an item x for the target t with ``s = (W_a t)(W_b x)``. The choice has no
    gradient. So the search learns from an auxiliary logit, which reads ``sum_i s_i x_i``. The hard
    search finds the newest items that share a feature with the target, and has no weights.

    The block follows LongCTR, but with the mask of the recent items corrected, and padding is never
    found. The output is ``[short, long]``, of width 2 * D, and of a soft search the auxiliary sum.
    With event features, both attentions and the soft search read them, as in ``EventBias``.

    Args:
        item_dim: D, width of an item.
        topk: K, how many items are found.
        gsu_type: the search, ``soft`` or ``hard``.
        search_feature: the item feature of the hard search, such as a category.
        attention: hyper-parameters of both attentions; see ``ShortLongBlock``. With
            ``longctr_compat``, padding has the score 0, and so hides items with negative scores.
    """

    def __init__(
        self,
        item_dim: int,
        *,
        topk: int = 50,
        gsu_type: str = "soft",
        search_feature: str | None = None,
        **attention: Any,
    ) -> None:
        super().__init__(item_dim, **attention)
        check_sizes(topk=topk)
        check_choice("soft", "hard", gsu_type=gsu_type)
        self.soft, self.topk = gsu_type == "soft", topk
        if self.soft == bool(search_feature):
            raise ValueError(
                f"gsu_type={gsu_type} with search_feature={search_feature}; write an item feature for "
                "the hard search, and none for the soft one"
            )
        self.long_attention = TargetAttention(*self.attention)
        self.search_events: EventBias | None = None
        if self.soft:
            attention_dim = self.long_attention.attention_dim
            self.W_a = nn.Linear(item_dim, attention_dim, bias=False)
            self.W_b = nn.Linear(item_dim, attention_dim, bias=False)
            self.aux_dim = item_dim
            self.output_dim += self.aux_dim

    def read_events(self, sizes: list[int]) -> None:
        super().read_events(sizes)
        if self.soft:
            self.search_events = EventBias(self.aux_dim, sizes)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        search = self._soft_search if self.soft else _hard_search
        history, scores_BL, *aux = search(history, target_BD)
        short_BD = self.short_attention(history, target_BD)
        best_BK, index_BK = scores_BL.topk(min(self.topk, len(history)), dim=1, sorted=False)
        found = history.take(index_BK)
        found = found.with_mask(found.mask_BL & (best_BK > -torch.inf))
        long_BD = self.long_attention(found, target_BD)
        return torch.cat([short_BD, long_BD, *aux], dim=-1)

    def _soft_search(self, history: History, target_BD: Tensor) -> tuple[History, Tensor, Tensor]:
        """The history, the scores ``(B, L)`` outside autograd, and the auxiliary sum ``(B, D)``."""
        with unrounded(target_BD):
            query_B1D = (self.W_a(target_BD) @ self.W_b.weight)[:, None]
        events, buckets = self.search_events, 0
        if events is not None:
            query_B1D, buckets = events.extend(query_B1D), events.buckets
        scores_B1L = history.dot(query_B1D)
        padding_B1L = ~history.mask_BL[:, None]
        sum_B1D = history.weighted_sum(scores_B1L.masked_fill(padding_B1L, 0.0), buckets)
        if events is not None:
            sum_B1D = events.fold(sum_B1D)
        hidden = 0.0 if self.longctr_compat else -torch.inf
        return history, scores_B1L.detach().masked_fill(padding_B1L, hidden)[:, 0], sum_B1D[:, 0]


def _hard_search(history: History, _: Tensor) -> tuple[History, Tensor]:
    """The history without its last column of events, and the scores of its items, ``(B, L)``.

    This column is 1 where an item has the target's feature, unless it is missing or rare. Newer items
    have higher scores.
    """
    *events, alike_BL = history.events
    history = history.with_mask(history.mask_BL)
    history.events = tuple(events)
    place_L = torch.arange(1.0, len(history) + 1, device=alike_BL.device)
    return history, place_L.masked_fill(~(history.mask_BL & (alike_BL > 0)), -torch.inf)


class SIM(SequenceModel):
    """SIM without experts.

    Args:
        alpha, beta: weights of the losses of the soft search's logit and of the prediction.
        search_feature: as in ``SIMBlock``; it must be categorical.
        args, kwargs: see ``SequenceModel``.
    """

    block = SIMBlock

    def __init__(
        self,
        feature_map: FeatureMap,
        *args: Any,
        alpha: float = 1.0,
        beta: float = 1.0,
        search_feature: str | None = None,
        **kwargs: Any,
    ) -> None:
        items = {k: v for k, v in feature_map.features.items() if v.get("source") == "item"}
        known = [name for name, about in items.items() if about["type"] == "categorical"]
        if search_feature is not None and search_feature not in known:
            raise ValueError(f"search_feature={search_feature}: write one of {', '.join(known)}")
        super().__init__(feature_map, *args, search_feature=search_feature, **kwargs)
        self.search_feature, self.aux_weights = search_feature, (alpha, beta)
        self.rare = id_features(feature_map.features).get(search_feature or "", 0)

    def _event_columns(
        self, events: Mapping[str, Tensor], columns: Mapping[str, Tensor], row_BL1: Tensor
    ) -> tuple[Tensor, ...]:
        own = super()._event_columns(events, columns, row_BL1)
        if self.search_feature is None:
            return own
        ids = columns[self.search_feature]
        id_BL1 = ids.masked_fill(ids == self.rare, 0)[row_BL1]
        own_B1 = id_BL1[:, -1:]
        return (*own, ((id_BL1[:, :-1] == own_B1) & (own_B1 > 0)).long())
