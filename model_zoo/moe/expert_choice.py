"""Expert Choice routing (Zhou et al., NeurIPS 2022), one choice per sequence.

Shape suffixes: B samples, T items, E experts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .mixtures import SparseMixture
from .routers import LinearRouter, Routing, one_hot_argmax


class ExpertChoiceRouter(LinearRouter):
    """A router in which each expert takes the items of a sequence that score best with it.

    The scores are a softmax over the experts, and they are also the gates. An expert takes
    ``max(1, floor(c * length / E))`` items, and the newest among items with equal scores. In the
    paper an expert chooses from a whole batch, so that a prediction depends on the other samples in
    it. Here it chooses from each sequence separately. If no expert took the newest item, the item's
    best expert takes it too, because its gates weight the outputs.

    Args:
        item_dim: D.
        num_experts: E.
        router_topk: c, the mean number of experts per item.
    """

    unites_equal = True

    @property
    def max_experts(self) -> int:
        """E, since any number of experts may take an item."""
        return self.num_experts

    def project(self, x: Tensor) -> Tensor:
        """The softmax over the experts, in double precision, so that rounding decides few choices."""
        return F.linear(x.double(), self.gate.weight.double()).softmax(-1).to(x.dtype)

    def assign(self, p_BTE: Tensor, count_BT: Tensor) -> Routing:
        real_BT = count_BT > 0
        take_B11 = (self.topk * real_BT.sum(1) // self.num_experts).clamp(min=1)[:, None, None]
        with torch.no_grad():
            # Newest first, so that a stable sort prefers the newest of equal items.
            score_BET = p_BTE.masked_fill(~real_BT[:, :, None], -1.0).flip(1).mT.contiguous()
            order_BET = score_BET.sort(descending=True, stable=True).indices
            place_BET = torch.arange(order_BET.shape[-1], device=p_BTE.device).expand_as(order_BET)
            rank_BET = torch.empty_like(order_BET).scatter_(-1, order_BET, place_BET)
            chosen_BTE = rank_BET.mT.flip(1) < take_B11
            nobody_B1 = ~chosen_BTE[:, -1].any(-1, keepdim=True)
            chosen_BTE[:, -1] |= one_hot_argmax(p_BTE[:, -1]) & nobody_B1
            chosen_BTE &= real_BT[:, :, None]
        return Routing(p_BTE * chosen_BTE, p_BTE.new_zeros(()))


class ExpertChoice(SparseMixture):
    """Experts that choose their items, beside the global block."""

    router = ExpertChoiceRouter
