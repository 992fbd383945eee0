"""MoS's theme-aware router (paper 4.1).

Shape suffixes: B samples, T items or windows, E experts, D item width, C codebook width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..history.rows import RowTable
from .codebook import Codebook
from .codebook_init import collect, kmeans_centres
from .routers import Router, Routing, check_topk


class ThemeRouter(Router):
    """Cosine of h(x) with a codebook (eq. 3), top-k softmax (eq. 2).

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
        codebook_init: ``kmeans`` (after the backbone warm-up, on h(x)) or ``random``.
        codebook_restarts: of k-means, of which the one with the least inertia is taken.
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
        codebook_init: str = "kmeans",
        codebook_restarts: int = 10,
    ) -> None:
        super().__init__()
        check_topk(topk, num_experts)
        if weight not in ("topk_softmax", "softmax_topk"):
            raise ValueError(f"router_weight={weight!r}: write topk_softmax or softmax_topk")
        if temperature <= 0:
            raise ValueError(f"router_temperature={temperature}: write a number above 0")
        self.num_experts = num_experts
        self._topk = topk
        self.temperature = temperature
        self.weight = weight
        self.codebook_init, self.codebook_restarts = codebook_init, codebook_restarts
        self.h = nn.Sequential(
            nn.Linear(item_dim, codebook_dim), nn.ReLU(), nn.Linear(codebook_dim, codebook_dim)
        )
        self.codebook = Codebook(num_experts, codebook_dim, codebook_decay)

    @property
    def max_experts(self) -> int:
        return self._topk

    @property
    def trains(self) -> bool:
        """Whether the gates carry gradient to h."""
        return self._topk > 1 or self.weight == "softmax_topk"

    def init_weights(self) -> None:
        """Orthogonal layers, which keep the angles that eq. 3 compares (FuxiCTR calls this).

        With k = 1 and eq. 2 literal, h stays as it starts: measured on planted themes, k-means in
        the space of an orthogonal h finds them, in that of FuxiCTR's Xavier start it does not.
        """
        for layer in (self.h[0], self.h[2]):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def project(self, x: Tensor) -> Tensor:
        """h(x), the item in theme space."""
        return self.h(x)

    def project_rows(self, table: RowTable) -> Tensor:
        return self.h[1:](table.linear(self.h[0]))

    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """Eq. 3 and 2; the gates carry gradient unless ``trains`` is False."""
        if not self.trains:  # one expert, and the softmax of its score alone is 1
            expert_BTk = self.codebook.products(z_BTZ).argmax(-1, keepdim=True)
            gate_BTk = torch.ones_like(z_BTZ[..., :1])
        else:
            scores_BTE = self.codebook.similarity(z_BTZ) / self.temperature
            best_BTk, expert_BTk = scores_BTE.topk(self._topk, dim=-1)
            gate_BTk = best_BTk.softmax(-1)
            if self.weight == "softmax_topk":
                gate_BTk = scores_BTE.softmax(-1).gather(-1, expert_BTk)
        gate_BTk = gate_BTk.masked_fill((count_BT == 0)[:, :, None], 0.0)
        weights_BTE = gate_BTk.new_zeros(*count_BT.shape, self.num_experts)
        weights_BTE = weights_BTE.scatter(-1, expert_BTk, gate_BTk)
        return Routing(weights_BTE, weights_BTE.new_zeros(()))

    def observe(self, z_NZ: Tensor, weight_NE: Tensor) -> None:
        self.codebook.observe(z_NZ, weight_NE)

    def before_experts(self, name: str, projections: Iterable[Tensor], seed: int) -> None:
        """Start the codebook from k-means, if the configuration says so."""
        if not self.trains:
            logging.info(
                f"{name} router: with router_topk 1, router_weight topk_softmax is the constant 1 and "
                "its MLP stays as it is; softmax_topk would train it"
            )
        if self.codebook_init != "kmeans":
            return
        h_NC = collect(projections)
        codes_EC = kmeans_centres(h_NC, self.num_experts, self.codebook_restarts, seed)
        if codes_EC is None:
            logging.warning(f"{name} codebook: too few distinct vectors for k-means; kept random")
            return
        self.codebook.load(codes_EC)
        logging.info(f"{name} codebook: k-means of {len(h_NC)} vectors")

    def after_step(self) -> None:
        """The codes move (eq. 4)."""
        self.codebook.step()

    def forget(self) -> None:
        self.codebook.forget()

    def codes(self) -> Tensor:
        return self.codebook.codes_EC
