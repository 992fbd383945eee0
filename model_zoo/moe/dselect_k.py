"""DSelect-k gates (Hazimeh et al., NeurIPS 2021), one gate per item.

Shape suffixes: B samples, T items, E experts, K selectors, Q bits of an expert's code.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ranks
from ..ops.functional import check_choice, check_sizes
from .mixtures import SparseMixture
from .routers import Router, Routing

MIN_REACH = 1e-3  # the least mass on real experts by which anything is divided


class DSelectKRouter(Router):
    """A router of k selectors, each of which chooses the bits of an expert's number smoothly.

    A selector gives an expert the product of its smooth choices over the bits. The router departs
    from the official code in these ways:

    - Numbers that no expert has are cut off, such as 5 to 7 with five experts. The gate is then
      renormalised to the sum 1. If every selector has saturated on such a number, the gate is 0,
      and the item goes to no expert.
    - Both regularisers are means over the routed items. Sums would outweigh the loss.
    - In evaluation, the gate keeps its k largest entries and is renormalised. In training, every
      expert has a positive gate until the selectors saturate.

    Args:
        item_dim: D.
        num_experts: E.
        smooth_step_width: gamma, the width of the interval in which the smooth step rises.
        entropy_coef: weight of the selectors' entropy in the loss. It drives each selector to a
            single expert.
        dselect_mode: ``per_item`` computes a gate for each item. ``static`` has one gate for all
            items, so that every chosen expert sees the whole sequence.
        kwargs: ``router_topk`` is k, the number of selectors.
    """

    itemwise = True
    auxiliary = True
    code_EQ: Tensor

    def __init__(
        self,
        item_dim: int,
        num_experts: int,
        *,
        smooth_step_width: float = 1.0,
        entropy_coef: float = 0.0,
        dselect_mode: str = "per_item",
        **kwargs: Any,
    ) -> None:
        super().__init__(item_dim, num_experts, **kwargs)
        check_sizes(0, smooth_step_width=smooth_step_width)
        check_choice("per_item", "static", dselect_mode=dselect_mode)
        self.width, self.entropy_coef = smooth_step_width, entropy_coef
        bits = (num_experts - 1).bit_length()
        expert_E1, bit_Q = torch.arange(num_experts)[:, None], torch.arange(bits - 1, -1, -1)
        self.register_buffer("code_EQ", (expert_E1 >> bit_Q) & 1 == 1, persistent=False)
        inputs = item_dim if dselect_mode == "per_item" else 0
        self.choice = Affine(inputs, self.topk * bits)
        self.mix = Affine(inputs, self.topk)

    @property
    def max_experts(self) -> int:
        return self.num_experts if self.training else self.topk

    def init_weights(self) -> None:
        """Initialise as the official code does: bits near 1/2, and nearly equal selectors."""
        for part, bound in ((self.choice, self.width / 100), (self.mix, 0.05)):
            for parameter in part.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def project(self, x: Tensor) -> Tensor:
        """The selectors' activations and their weights, ``K * Q + K`` numbers per item."""
        return torch.cat([self.choice(x), self.mix(x)], dim=-1)

    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """The gates; the auxiliary loss is the mean of both regularisers over the real items."""
        K, Q = self.topk, self.code_EQ.shape[1]
        step_BTKQ = smooth_step(z_BTZ[..., : K * Q], self.width).reshape(*count_BT.shape, K, Q)
        bits_BTKEQ = torch.where(self.code_EQ, step_BTKQ[..., None, :], 1 - step_BTKQ[..., None, :])
        ones_BTKE = z_BTZ.new_ones(*count_BT.shape, K, self.num_experts)
        r_BTKE = math.prod(bits_BTKEQ.unbind(-1), start=ones_BTKE)
        gate_BTE = (z_BTZ[..., K * Q :].softmax(-1)[..., None] * r_BTKE).sum(-2)
        if not self.training:
            best, expert = gate_BTE.topk(K, dim=-1)
            gate_BTE = torch.zeros_like(gate_BTE).scatter(-1, expert, best)
        gate_BTE = gate_BTE / gate_BTE.sum(-1, keepdim=True).clamp(min=MIN_REACH)
        weights_BTE = gate_BTE * (count_BT > 0)[:, :, None]

        loss_BT = torch.zeros_like(weights_BTE[..., 0])
        if self.entropy_coef:
            loss_BT = -self.entropy_coef * (r_BTKE * (r_BTKE + 1e-6).log()).sum((-2, -1))
        if self.num_experts != 2**Q:
            # At least 0; it keeps the selectors off the codes that no expert has.
            reach_BTK = r_BTKE.sum(-1).clamp(min=MIN_REACH)  # a selector's mass on real experts
            loss_BT = loss_BT + (1 / reach_BTK - 1).sum(-1)
        items = count_BT.sum()
        loss = (loss_BT * count_BT).sum() / items.clamp(min=1)
        return Routing(weights_BTE, ranks.weighted(loss, items))


class DSelectK(SparseMixture):
    """Experts routed by DSelect-k gates, beside the global block."""

    router = DSelectKRouter


class Affine(nn.Module):
    """The layer ``W x + b``; with ``input_dim`` 0 it gives ``b``, whatever x is."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(output_dim))
        self.weight = nn.Parameter(torch.zeros(output_dim, input_dim)) if input_dim else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return self.bias + x.new_zeros(*x.shape[:-1], 1)
        return F.linear(x, self.weight, self.bias)


def smooth_step(z: Tensor, width: float) -> Tensor:
    """A smooth step: 0 below ``-width / 2``, 1 above ``width / 2``, and a cubic between.

    Its slope is continuous.
    """
    t = (z / width).clamp(-0.5, 0.5)
    return -2 * t**3 + 1.5 * t + 0.5
