"""GShard's top-2 gating (Lepikhin et al., ICLR 2021), one group per sequence.

Shape suffixes: B samples, T items, E experts.
"""

from typing import Any

import torch
from torch import Tensor

from .. import ranks
from ..ops.functional import check_sizes
from .mixtures import SparseMixture
from .routers import LinearRouter, Routing, one_hot_argmax


class GShardRouter(LinearRouter):
    """A router that sends each item to the two best experts of ``softmax(W_g x)``.

    Each expert has a capacity, and a loss balances the experts. A group is the real items of one
    sequence, so that neither padding nor other samples change a gate. A full expert drops the
    *oldest* items. The official code would first drop the newest item, whose gates weight the
    outputs. A dropped choice gets the gate 0, and the other choice is not renormalised, as in the
    official code.

    Args:
        item_dim: D.
        num_experts: E.
        capacity_factor: an expert takes ``max(1, ceil(factor * k * length / E))`` items of a
            sequence in training.
        eval_capacity_factor: ``capacity_factor`` in evaluation.
        second_threshold: decides whether the second choice is kept. Its share of the two gates is
            g2. In training it is kept with probability ``min(1, g2 / second_threshold)``. In
            evaluation it is kept if ``g2 > second_threshold``.
        balance_coef: factor of the balance loss; see ``balance_loss``.
        kwargs: ``router_topk`` is 2 or 1. With 1 there is no second choice, and the gate of the
            first choice is its softmax value.
    """

    auxiliary = True

    def __init__(
        self,
        item_dim: int,
        num_experts: int,
        *,
        capacity_factor: float = 1.25,
        eval_capacity_factor: float = 2.0,
        second_threshold: float = 0.2,
        balance_coef: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(item_dim, num_experts, **kwargs)
        if self.topk > 2:
            raise ValueError(f"router_topk={self.topk} is not possible with GShard; write 1 or 2")
        check_sizes(0, capacity_factor=capacity_factor, second_threshold=second_threshold)
        check_sizes(0, eval_capacity_factor=eval_capacity_factor)
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.second_threshold, self.balance_coef = second_threshold, balance_coef

    def assign(self, p_BTE: Tensor, count_BT: Tensor) -> Routing:
        real_BT1 = (count_BT > 0)[:, :, None]
        length_B11 = real_BT1.sum(1, keepdim=True)
        first_BTE = one_hot_argmax(p_BTE) & real_BT1
        factor = self.capacity_factor if self.training else self.eval_capacity_factor
        room_B11 = factor * self.topk * length_B11.double() / self.num_experts
        room_B11 -= 1e-9  # so that rounding errors do not increase the capacity
        capacity_B11 = room_B11.ceil().clamp(1, max(1, p_BTE.shape[1])).int()

        kept_BTE = first_BTE & (newer(first_BTE) < capacity_B11)
        weights_BTE = p_BTE * kept_BTE
        if self.topk == 2:
            second_BTE = one_hot_argmax(p_BTE.masked_fill(first_BTE, -1.0)) & real_BT1
            pair_BT1 = (p_BTE * (first_BTE | second_BTE)).sum(-1, keepdim=True) + 1e-9
            share_BT1 = (p_BTE * second_BTE).sum(-1, keepdim=True).detach() / pair_BT1.detach()
            bar = torch.rand_like(share_BT1) if self.training else 1.0
            second_BTE &= share_BT1 > bar * self.second_threshold
            taken_B1E = kept_BTE.sum(1, keepdim=True)
            second_BTE &= newer(second_BTE) + taken_B1E < capacity_B11
            weights_BTE = p_BTE * (kept_BTE | second_BTE) / pair_BT1
        return Routing(weights_BTE, self.balance_coef * balance_loss(p_BTE, first_BTE, real_BT1))


class GShard(SparseMixture):
    """Experts routed by GShard's top-2 gate, beside the global block."""

    router = GShardRouter


def balance_loss(p_BTE: Tensor, first_BTE: Tensor, real_BT1: Tensor) -> Tensor:
    """The mean of ``E * sum_e m_e c_e`` over non-empty sequences; it is 1 at perfect balance.

    Each rank gives its part of that mean (see ``ranks.weighted``).

    Over the real items of a sequence, m_e is the mean gate of expert e, and c_e is the share of
    items whose first choice is e.
    """
    length_B1 = real_BT1.sum(1)
    m_BE = (p_BTE * real_BT1).sum(1) / length_B1.clamp(min=1)
    c_BE = first_BTE.sum(1, dtype=p_BTE.dtype) / length_B1.clamp(min=1)
    sequences = (length_B1 > 0).sum()
    loss = p_BTE.shape[-1] * (m_BE * c_BE).sum() / sequences.clamp(min=1)
    return ranks.weighted(loss, sequences)


def newer(chosen_BTE: Tensor) -> Tensor:
    """For each item, how many newer items of its sequence chose the same expert."""
    count_BTE = chosen_BTE.cumsum(1, dtype=torch.int32)
    return count_BTE[:, -1:] - count_BTE
