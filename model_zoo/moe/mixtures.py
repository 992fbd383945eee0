"""Mixtures: how copies of one backbone block become an encoder of (history, target).

``Single`` is the vanilla backbone, ``MoS`` the paper's Mixture of Sequence; ``GShard``,
``DSelectK`` and ``ExpertChoice`` differ from it in the router, and have no windows. A mixture also
says in which stages it trains (paper 4.3); ``training.py`` runs them.

Shape suffixes: B samples, D item width, H output width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import tee
from typing import Any

from torch import Tensor, nn

from ..history.history import History
from .dselect_k import DSelectKRouter
from .expert_choice import ExpertChoiceRouter
from .experts import SubsequenceExperts, host_counts
from .gshard import GShardRouter
from .routers import Router
from .stages import Stage, StageName
from .theme_router import ThemeRouter


class Mixture(nn.Module):
    """Base: the global block, and what a mixture adds to it.

    Args:
        make_block: builds one block, a ``SequenceBlock`` with its own parameters.
        item_dim: D, width of an item.

    Attributes:
        branches: the groups of sparse experts by name; none in the vanilla backbone.
    """

    def __init__(self, make_block: Callable[[], nn.Module], item_dim: int) -> None:
        super().__init__()
        self.global_block = make_block()
        self.output_dim = self.global_block.output_dim
        self.branches: nn.ModuleDict[str, SubsequenceExperts] = nn.ModuleDict()

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Encode: ``(y_BH, aux_loss)``."""
        raise NotImplementedError

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training; ``epochs`` is the length of the last, joint one."""
        return [Stage(StageName.JOINT, epochs)]

    def enter(self, stage: StageName) -> None:
        """Set the fusion weights of a stage."""

    def before_experts(self, histories: Iterable[History], seed: int) -> None:
        """Prepare the routers for the first stage that trains experts.

        Args:
            histories: of the training data, batch by batch; as many are read as a router asks for.
            seed: of everything random.
        """
        for (name, branch), own in zip(
            self.branches.items(), tee(histories, len(self.branches)), strict=True
        ):
            sequences = map(partial(self.sequence, name), own)
            branch.router.before_experts(name, map(branch.projections, sequences), seed)

    def after_step(self) -> None:
        """Tell the routers that an optimiser step is done."""
        for branch in self.branches.values():
            branch.router.after_step()

    def forget_observed(self) -> None:
        """Drop what the routers observed since the last step."""
        for branch in self.branches.values():
            branch.router.forget()

    def sequence(self, branch: str, history: History) -> History:
        """What a branch routes."""
        return history


class Single(Mixture):
    """The vanilla backbone: one block over the whole history (eq. 5)."""

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BH = self.global_block(history, target_BD)
        return y_BH, y_BH.new_zeros(())


class SparseMixture(Mixture):
    """Base of the sparse mixtures: a global block and branches of experts, fused by eq. 8.

    Args:
        alphas: weight of each branch in the joint stage, by the name of its configuration key
            (``alpha_`` and the branch). A branch of weight 0 does not exist.
        make_router: builds the router of one branch from the number of experts.
        num_experts: experts of each branch; 0 is the vanilla backbone.
        backbone_warmup_epochs, expert_warmup_epochs: length of the first two stages (paper 4.3);
            may be fractions, 0 skips one.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        alphas: dict[str, float],
        make_router: Callable[[int], Router],
        *,
        num_experts: int = 5,
        backbone_warmup_epochs: float = 1.0,
        expert_warmup_epochs: float = 1.0,
    ) -> None:
        super().__init__(make_block, item_dim)
        if num_experts < 0:
            raise ValueError(f"num_experts={num_experts}: write 0 (vanilla) or more")
        if min(alphas.values()) < 0 or sum(alphas.values()) > 1:
            written = ", ".join(f"{name}={alpha}" for name, alpha in alphas.items())
            raise ValueError(f"{written}: each must be at least 0, and their sum at most 1")
        used = {name.removeprefix("alpha_"): alpha for name, alpha in alphas.items() if alpha}
        self.alphas = used if num_experts else {}
        for name in self.alphas:
            branch = SubsequenceExperts(make_router(num_experts), make_block, num_experts)
            self.branches[name] = branch
        self.warmup_epochs = (backbone_warmup_epochs, expert_warmup_epochs)
        self.enter(StageName.JOINT)

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        alpha_global = 1 - sum(self.fusion.values())
        y_BH, aux_loss = 0, target_BD.new_zeros(())
        if alpha_global:
            y_BH = alpha_global * self.global_block(history, target_BD)
        branches = [self.branches[name] for name in self.fusion]
        sequences = [self.sequence(name, history) for name in self.fusion]
        readings = [branch.read(x) for branch, x in zip(branches, sequences, strict=True)]
        counts = host_counts(readings) if readings else []
        work = zip(self.fusion.values(), branches, readings, counts, strict=True)
        for alpha, branch, reading, count in work:
            y_BH = y_BH + alpha * branch.run(reading, count, target_BD)
            aux_loss = aux_loss + reading.aux_loss
        return y_BH, aux_loss

    def stages(self, epochs: float) -> list[Stage]:
        if not self.branches:
            return [Stage(StageName.JOINT, epochs)]
        backbone, experts = self.warmup_epochs
        planned = [
            Stage(StageName.BACKBONE, backbone),
            Stage(StageName.EXPERTS, experts),
            Stage(StageName.JOINT, epochs),
        ]
        return [stage for stage in planned if stage.epochs > 0]

    def enter(self, stage: StageName) -> None:
        """Weights of the branches that run: none, then equal shares, then the alphas."""
        equal = {name: 1 / len(self.alphas) for name in self.alphas}
        self.fusion = {
            StageName.BACKBONE: {},
            StageName.EXPERTS: equal,
            StageName.JOINT: self.alphas,
        }[stage]


class MoS(SparseMixture):
    """Mixture of Sequence: item and window experts with theme-aware routers.

    Args:
        router_topk: k, experts per item and per window.
        codebook_dim: width of the theme space.
        codebook_decay: gamma of eq. 4.
        codebook_init, codebook_restarts: see ``ThemeRouter``.
        router_weight: ``topk_softmax`` (eq. 2) or ``softmax_topk``; see ``ThemeRouter``.
        router_temperature: divides the cosines.
        window_size, window_stride, window_anchor: see ``History.windows``.
        alpha_item, alpha_window: weights of eq. 8 in the joint stage.
        kwargs: see ``SparseMixture``; n1 = n2 = ``num_experts``.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        *,
        router_topk: int = 1,
        codebook_dim: int = 64,
        codebook_decay: float = 0.999,
        codebook_init: str = "kmeans",
        codebook_restarts: int = 10,
        router_weight: str = "topk_softmax",
        router_temperature: float = 1.0,
        window_size: int = 8,
        window_stride: int = 4,
        window_anchor: str = "start",
        alpha_item: float = 0.25,
        alpha_window: float = 0.25,
        **kwargs: Any,
    ) -> None:
        if codebook_init not in ("kmeans", "random"):
            raise ValueError(f"codebook_init={codebook_init!r}: write kmeans or random")
        if codebook_restarts < 1:
            raise ValueError(f"codebook_restarts={codebook_restarts}: must be at least 1")
        if window_anchor not in ("start", "end"):
            raise ValueError(f"window_anchor={window_anchor!r}: write start or end")
        if window_size < 1:
            raise ValueError(f"window_size={window_size}: must be at least 1")
        if not 1 <= window_stride <= window_size:
            raise ValueError(
                f"window_stride={window_stride}: write 1 to window_size={window_size}, "
                "so that no item falls between two windows"
            )
        make_router = partial(
            ThemeRouter,
            item_dim,
            topk=router_topk,
            codebook_dim=codebook_dim,
            codebook_decay=codebook_decay,
            temperature=router_temperature,
            weight=router_weight,
            codebook_init=codebook_init,
            codebook_restarts=codebook_restarts,
        )
        alphas = {"alpha_item": alpha_item, "alpha_window": alpha_window}
        super().__init__(make_block, item_dim, alphas, make_router, **kwargs)
        self.window = dict(size=window_size, stride=window_stride, anchor=window_anchor)

    def sequence(self, branch: str, history: History) -> History:
        """The items, or the windows over them (paper 4.2)."""
        return history.windows(**self.window) if branch == "window" else history


class GShard(SparseMixture):
    """Experts routed by GShard's top-2 gate, beside the same global block; see ``GShardRouter``.

    Args:
        router_topk: 2, or 1 for the first choice only.
        capacity_factor, eval_capacity_factor, second_threshold, balance_coef: of the router.
        alpha_moe: weight of the experts in the joint stage.
        kwargs: see ``SparseMixture``.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        *,
        router_topk: int = 2,
        capacity_factor: float = 1.25,
        eval_capacity_factor: float = 2.0,
        second_threshold: float = 0.2,
        balance_coef: float = 0.01,
        alpha_moe: float = 0.5,
        **kwargs: Any,
    ) -> None:
        make_router = partial(
            GShardRouter,
            item_dim,
            topk=router_topk,
            capacity_factor=capacity_factor,
            eval_capacity_factor=eval_capacity_factor,
            second_threshold=second_threshold,
            balance_coef=balance_coef,
        )
        super().__init__(make_block, item_dim, {"alpha_moe": alpha_moe}, make_router, **kwargs)


class DSelectK(SparseMixture):
    """Experts routed by DSelect-k gates, beside the same global block; see ``DSelectKRouter``.

    Args:
        router_topk: k, the number of selectors.
        smooth_step_width, entropy_coef, dselect_mode: of the router.
        alpha_moe: weight of the experts in the joint stage.
        kwargs: see ``SparseMixture``.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        *,
        router_topk: int = 2,
        smooth_step_width: float = 1.0,
        entropy_coef: float = 0.0,
        dselect_mode: str = "per_item",
        alpha_moe: float = 0.5,
        **kwargs: Any,
    ) -> None:
        make_router = partial(
            DSelectKRouter,
            item_dim,
            topk=router_topk,
            width=smooth_step_width,
            entropy_coef=entropy_coef,
            mode=dselect_mode,
        )
        super().__init__(make_block, item_dim, {"alpha_moe": alpha_moe}, make_router, **kwargs)


class ExpertChoice(SparseMixture):
    """Experts that choose their items, beside the same global block; see ``ExpertChoiceRouter``.

    Args:
        router_topk: c, the mean number of experts per item.
        alpha_moe: weight of the experts in the joint stage.
        kwargs: see ``SparseMixture``.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        *,
        router_topk: int = 2,
        alpha_moe: float = 0.5,
        **kwargs: Any,
    ) -> None:
        make_router = partial(ExpertChoiceRouter, item_dim, capacity=router_topk)
        super().__init__(make_block, item_dim, {"alpha_moe": alpha_moe}, make_router, **kwargs)
