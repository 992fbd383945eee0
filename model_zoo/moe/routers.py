"""Routers: which expert gets which item, and how the experts of the newest item are weighted.

Shape suffixes: B samples, T items or windows, E experts, D item width, C codebook width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .codebook import Codebook


@dataclass
class Routing:
    """What a router decides.

    Attributes:
        weights_BTE: gate of each item for each expert; exact zero = not sent, so row t names the
            subsequences that item t joins. Padding rows are zero. The row of the newest item
            weights the experts' outputs (eq. 6, 7); no other row's values are read.
        aux_loss: scalar added to the training loss, zero where the router has none.
    """

    weights_BTE: Tensor
    aux_loss: Tensor


class Router(nn.Module):
    """Base of the routers: ``forward(x_BTD, mask_BT) -> Routing``.

    Attributes:
        topk: the most experts that one item can have.
        itemwise: the gate of an item depends on that item alone, so that each distinct item needs
            to be routed once only.
    """

    topk: int
    itemwise: bool = False

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Routing:
        raise NotImplementedError


class ThemeRouter(Router):
    """MoS's theme-aware router: cosine of h(x) with a codebook (eq. 3), top-k softmax (eq. 2).

    Args:
        item_dim: D, width of an item (concatenated features).
        num_experts: E.
        topk: experts per item, k of eq. 2.
        codebook_dim: C.
        codebook_decay: gamma of eq. 4.
        temperature: divides the cosines; the paper has none (1).
        weight: ``topk_softmax`` is eq. 2: softmax over the kept scores. With k = 1 that is the
            constant 1 and h gets no gradient. ``softmax_topk`` keeps the top k of the softmax
            over all experts, which trains h at any k.
    """

    itemwise = True

    def __init__(
        self,
        item_dim: int,
        num_experts: int,
        topk: int = 1,
        codebook_dim: int = 64,
        codebook_decay: float = 0.999,
        temperature: float = 1.0,
        weight: str = "topk_softmax",
    ) -> None:
        super().__init__()
        if not 1 <= topk <= num_experts:
            raise ValueError(
                f"router_topk={topk}: write 1 to num_experts={num_experts} experts per item"
            )
        if weight not in ("topk_softmax", "softmax_topk"):
            raise ValueError(f"router_weight={weight!r}: write topk_softmax or softmax_topk")
        if temperature <= 0:
            raise ValueError(f"router_temperature={temperature}: write a number above 0")
        self.topk = topk
        self.temperature = temperature
        self.weight = weight
        self.h = nn.Sequential(
            nn.Linear(item_dim, codebook_dim), nn.ReLU(), nn.Linear(codebook_dim, codebook_dim)
        )
        self.codebook = Codebook(num_experts, codebook_dim, codebook_decay)

    def init_weights(self) -> None:
        """Orthogonal layers, which keep the angles that eq. 3 compares (FuxiCTR calls this).

        With k = 1 and eq. 2 literal, h stays as it starts: measured on planted themes, k-means in
        the space of an orthogonal h finds them, in that of FuxiCTR's Xavier start it does not.
        """
        for layer in (self.h[0], self.h[2]):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Routing:
        """Route items; ``weights_BTE`` carries gradient to h and x, except with k = 1 (see above)."""
        return self.gate(self.h(x_BTD), mask_BT)

    def gate(self, h_BTC: Tensor, mask_BT: Tensor) -> Routing:
        """The gates of items already in theme space."""
        scores_BTE = self.codebook.similarity(h_BTC) / self.temperature
        best_BTk, expert_BTk = scores_BTE.topk(self.topk, dim=-1)
        if self.weight == "topk_softmax" and self.topk == 1:
            gate_BTk = torch.ones_like(
                best_BTk
            )  # what the softmax gives, without its zero gradient
        elif self.weight == "topk_softmax":
            gate_BTk = best_BTk.softmax(-1)
        else:
            gate_BTk = scores_BTE.softmax(-1).gather(-1, expert_BTk)
        gate_BTk = gate_BTk.masked_fill(~mask_BT[:, :, None], 0.0)
        weights_BTE = torch.zeros_like(scores_BTE).scatter(-1, expert_BTk, gate_BTk)
        return Routing(weights_BTE, weights_BTE.new_zeros(()))
