"""MoS, the Mixture of Sequence: item and window experts behind theme-aware routers (paper 4).

Shape suffixes: B samples, T items or windows, N distinct items, E experts, D item width, Z = C
codebook width.
"""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import ranks
from ..history.history import History
from ..ops.functional import check_choice, check_sizes
from .branch import MakeBlock
from .codebook import Codebook, collect, kmeans_centres
from .mixtures import BranchedMixture
from .routers import Router, Routing


class ThemeRouter(Router):
    """The router of MoS: cosines of h(x) with the codebook (eq. 3), then a softmax of the k best.

    Args:
        item_dim: D, width of an item (concatenated features).
        num_experts: E.
        router_topk: experts per item, k of eq. 2.
        codebook_dim: C.
        codebook_decay: gamma of eq. 4.
        codebook_init: ``kmeans`` (of h(x), after the backbone warm-up), ``balanced_kmeans``, in which
            no cluster has much more than its share, or ``random``.
        codebook_restarts: how many starts of k-means are tried; the one with the least inertia is
            kept.
        revive_after: see ``Codebook``; 0 revives no code.
        router_weight: ``topk_softmax`` is eq. 2, a softmax over the kept scores. With k = 1 it is
            the constant 1, and h gets no gradient. ``softmax_topk`` keeps the top k of the softmax
            over all experts, which trains h at any k. ``straight_through`` has the values of the
            first and the gradient of the second.
        router_temperature: divides the cosines; the paper has none (1).
    """

    itemwise = True

    def __init__(
        self,
        item_dim: int,
        num_experts: int,
        *,
        router_topk: int = 1,
        codebook_dim: int = 64,
        codebook_decay: float = 0.999,
        codebook_init: str = "kmeans",
        codebook_restarts: int = 50,
        revive_after: int = 0,
        router_weight: str = "topk_softmax",
        router_temperature: float = 1.0,
    ) -> None:
        super().__init__(item_dim, num_experts, router_topk=router_topk)
        check_choice("kmeans", "balanced_kmeans", "random", codebook_init=codebook_init)
        weights = "topk_softmax", "softmax_topk", "straight_through"
        check_choice(*weights, router_weight=router_weight)
        check_sizes(codebook_restarts=codebook_restarts, codebook_dim=codebook_dim)
        check_sizes(0, router_temperature=router_temperature)
        self.weight = router_weight
        self.trains = router_topk > 1 or router_weight != "topk_softmax"
        self.temperature = router_temperature
        self.codebook_init, self.codebook_restarts = codebook_init, codebook_restarts
        self.h = nn.Sequential(
            nn.Linear(item_dim, codebook_dim), nn.ReLU(), nn.Linear(codebook_dim, codebook_dim)
        )
        self.codebook = Codebook(num_experts, codebook_dim, codebook_decay, revive_after)

    def init_weights(self) -> None:
        """Initialise with orthogonal layers, which preserve the angles that eq. 3 compares.

        FuxiCTR calls this. If the gate is the constant 1, h keeps its initial weights. In data with
        planted themes, k-means found the themes with an orthogonal h, but not with FuxiCTR's Xavier
        weights.
        """
        for layer in self.h:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def project(self, x: Tensor) -> Tensor:
        """h(x), which is the item in theme space: ``(..., D)`` to ``(..., C)``."""
        return self.h(x)

    def project_rows(self, history: History) -> Tensor:
        """``project`` of each row, outside autograd.

        The first layer of a window is computed as a mean over its items.
        """
        return self.h[1:](history.linear_of_rows(cast(nn.Linear, self.h[0])))

    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """The gates of eq. 3 and 2; they carry gradient unless ``trains`` is False."""
        if not self.trains:  # one expert, and the softmax of its score alone is 1
            expert_BTk = self.codebook.scores(z_BTZ).argmax(-1, keepdim=True)
            gate_BTk = torch.ones_like(z_BTZ[..., :1])
        else:
            scores_BTE = self.codebook.similarity(z_BTZ) / self.temperature
            best_BTk, expert_BTk = scores_BTE.topk(self.topk, dim=-1)
            gate_BTk = best_BTk.softmax(-1)
            if self.weight != "topk_softmax":
                full_BTk = scores_BTE.softmax(-1).gather(-1, expert_BTk)
                through_BTk = gate_BTk.detach() + (full_BTk - full_BTk.detach())
                gate_BTk = full_BTk if self.weight == "softmax_topk" else through_BTk
        gate_BTk = gate_BTk.masked_fill((count_BT == 0)[:, :, None], 0.0)
        weights_BTE = gate_BTk.new_zeros(*count_BT.shape, self.num_experts)
        weights_BTE = weights_BTE.scatter(-1, expert_BTk, gate_BTk)
        return Routing(weights_BTE, weights_BTE.new_zeros(()))

    def codes(self) -> Tensor:
        return self.codebook.codes_EC

    # ---------------------------------------------------------------- the codebook

    def before_experts(self, name: str, projections: Iterable[Tensor], seed: int) -> None:
        """Start the codebook from k-means, if the configuration says so."""
        if not self.trains:
            logging.info(
                f"{name} router: with router_topk: 1 the paper's gate (eq. 2) is the constant 1, so the "
                "router's MLP stays as it starts; router_weight: softmax_topk would train it"
            )
        if self.codebook_init == "random":
            return
        h_NC = collect(projections)
        balanced = self.codebook_init == "balanced_kmeans"
        options = self.num_experts, self.codebook_restarts, seed, balanced
        codes_EC = ranks.on_first(partial(kmeans_centres, h_NC, *options))
        if codes_EC is None:
            logging.warning(f"{name} codebook: stays random; k-means has too few distinct vectors")
            return
        self.codebook.load(codes_EC)
        logging.info(f"{name} codebook: starts from k-means of {len(h_NC)} vectors")

    def observe(self, z_NZ: Tensor, weight_NE: Tensor) -> None:
        self.codebook.observe(z_NZ, weight_NE)

    def after_step(self) -> None:
        """Move the codes (eq. 4)."""
        self.codebook.step()

    def forget(self) -> None:
        self.codebook.forget()


class MoS(BranchedMixture):
    """The Mixture of Sequence: a branch of item experts and a branch of window experts.

    Args:
        window_size, window_stride, window_anchor: see ``History.windows``.
        alpha_item, alpha_window: weights of eq. 8 in the joint stage.
        kwargs: see ``BranchedMixture`` and ``ThemeRouter``. Each branch has ``num_experts``
            experts, which the paper calls n1 and n2.
    """

    router = ThemeRouter

    def __init__(
        self,
        make_block: MakeBlock,
        item_dim: int,
        *,
        window_size: int = 8,
        window_stride: int = 4,
        window_anchor: str = "start",
        alpha_item: float = 0.25,
        alpha_window: float = 0.25,
        **kwargs: Any,
    ) -> None:
        check_choice("start", "end", window_anchor=window_anchor)
        check_sizes(window_size=window_size)
        if not 1 <= window_stride <= window_size:
            raise ValueError(f"window_stride={window_stride}: write 1 to window_size={window_size}")
        alphas = {"alpha_item": alpha_item, "alpha_window": alpha_window}
        super().__init__(make_block, item_dim, alphas, **kwargs)
        self.window_size, self.window_stride = window_size, window_stride
        self.window_anchor = window_anchor

    def sequence(self, branch: str, history: History) -> History:
        """The history itself, or for the branch ``window`` its windows (paper 4.2)."""
        if branch != "window":
            return history
        return history.windows(self.window_size, self.window_stride, self.window_anchor)
