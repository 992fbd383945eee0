"""Mixtures: how copies of one backbone block become an encoder of (history, target).

``Single`` is the vanilla backbone; ``MoS`` is the paper's Mixture of Sequence. A mixture also says
in which stages it trains (paper 4.3); ``training.py`` runs them.

Shape suffixes: B samples, D item width, H output width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ..layers.history import History
from .dispatch import SubsequenceExperts
from .routers import ThemeRouter


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: ``backbone``, ``experts`` or ``joint``; ``Mixture.enter`` sets the fusion weights.
        epochs: how long; may be a fraction.
    """

    name: str
    epochs: float


class Mixture(nn.Module):
    """Base: the global block, and what a mixture adds to it.

    Args:
        make_block: builds one block, a ``SequenceBlock`` with its own parameters.
        item_dim: D, width of an item.
    """

    def __init__(self, make_block: Callable[[], nn.Module], item_dim: int) -> None:
        super().__init__()
        self.global_block = make_block()
        self.output_dim = self.global_block.output_dim

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Encode: ``(y_BH, aux_loss)``."""
        raise NotImplementedError

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training; ``epochs`` is the length of the last, joint one."""
        return [Stage("joint", epochs)]

    def enter(self, stage: str) -> None:
        """Set the fusion weights of a stage."""

    def branches(self) -> dict[str, SubsequenceExperts]:
        """The groups of sparse experts by name, those that exist."""
        return {}

    def sequences(self, history: History) -> dict[str, History]:
        """The sequence that each branch routes, by the name of the branch."""
        return {name: history for name in self.branches()}


class Single(Mixture):
    """The vanilla backbone: one block over the whole history (eq. 5)."""

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BH = self.global_block(history, target_BD)
        return y_BH, y_BH.new_zeros(())


class MoS(Mixture):
    """Mixture of Sequence: global, item and window experts, fused by eq. 8.

    Args:
        num_experts: n1 = n2, experts of each kind; 0 is the vanilla backbone.
        router_topk: k, experts per item and per window.
        codebook_dim: width of the theme space.
        codebook_decay: gamma of eq. 4.
        codebook_init: ``kmeans`` (after the backbone warm-up, on h(x)) or ``random``.
        router_weight: ``topk_softmax`` (eq. 2) or ``softmax_topk``; see ``ThemeRouter``.
        router_temperature: divides the cosines.
        window_size, window_stride, window_anchor: see ``History.windows``.
        alpha_item, alpha_window: weights of eq. 8 in the joint stage. A branch of weight 0 is not
            computed.
        backbone_warmup_epochs, expert_warmup_epochs: length of the first two stages (paper 4.3);
            may be fractions, 0 skips one.
    """

    def __init__(
        self,
        make_block: Callable[[], nn.Module],
        item_dim: int,
        *,
        num_experts: int = 5,
        router_topk: int = 1,
        codebook_dim: int = 64,
        codebook_decay: float = 0.999,
        codebook_init: str = "kmeans",
        router_weight: str = "topk_softmax",
        router_temperature: float = 1.0,
        window_size: int = 8,
        window_stride: int = 4,
        window_anchor: str = "start",
        alpha_item: float = 0.25,
        alpha_window: float = 0.25,
        backbone_warmup_epochs: float = 1.0,
        expert_warmup_epochs: float = 1.0,
    ) -> None:
        super().__init__(make_block, item_dim)
        if codebook_init not in ("kmeans", "random"):
            raise ValueError(f"codebook_init={codebook_init!r}: write kmeans or random")
        if window_anchor not in ("start", "end"):
            raise ValueError(f"window_anchor={window_anchor!r}: write start or end")
        if not 1 <= window_stride <= window_size:
            raise ValueError(
                f"window_stride={window_stride}: write 1 to window_size={window_size}, "
                "so that no item falls between two windows"
            )
        if num_experts < 0:
            raise ValueError(f"num_experts={num_experts}: write 0 (vanilla) or more")
        if min(alpha_item, alpha_window) < 0 or alpha_item + alpha_window > 1:
            raise ValueError(
                f"alpha_item={alpha_item}, alpha_window={alpha_window}: "
                "both must be at least 0 and their sum at most 1"
            )
        self.codebook_init = codebook_init
        self.window = dict(size=window_size, stride=window_stride, anchor=window_anchor)
        self.alphas = (alpha_item, alpha_window)
        self.warmup_epochs = (backbone_warmup_epochs, expert_warmup_epochs)

        def branch() -> SubsequenceExperts:
            router = ThemeRouter(
                item_dim,
                num_experts,
                router_topk,
                codebook_dim,
                codebook_decay,
                router_temperature,
                router_weight,
            )
            return SubsequenceExperts(router, make_block, num_experts)

        self.item_experts = branch() if num_experts else None
        self.window_experts = branch() if num_experts else None
        self.enter("joint")

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        alpha_item, alpha_window = self.fusion
        alpha_global = 1 - alpha_item - alpha_window
        y_BH, aux_loss = 0, target_BD.new_zeros(())
        if alpha_global:
            y_BH = alpha_global * self.global_block(history, target_BD)
        if alpha_item:
            y_item_BH, aux = self.item_experts(history, target_BD)
            y_BH, aux_loss = y_BH + alpha_item * y_item_BH, aux_loss + aux
        if alpha_window:
            y_window_BH, aux = self.window_experts(history.windows(**self.window), target_BD)
            y_BH, aux_loss = y_BH + alpha_window * y_window_BH, aux_loss + aux
        return y_BH, aux_loss

    def stages(self, epochs: float) -> list[Stage]:
        if self.item_experts is None or not any(self.alphas):
            return [Stage("joint", epochs)]
        backbone, experts = self.warmup_epochs
        planned = [Stage("backbone", backbone), Stage("experts", experts), Stage("joint", epochs)]
        return [stage for stage in planned if stage.epochs > 0]

    def enter(self, stage: str) -> None:
        """Fusion weights (item, window): 0 / 0, then 0.5 / 0.5 (if both are used), then the alphas."""
        if self.item_experts is None or stage == "backbone":
            self.fusion = (0.0, 0.0)
        elif stage == "joint":
            self.fusion = self.alphas
        else:
            used = [alpha > 0 for alpha in self.alphas]
            self.fusion = tuple(branch / sum(used) for branch in used)

    def branches(self) -> dict[str, SubsequenceExperts]:
        if self.item_experts is None:
            return {}
        return {"item": self.item_experts, "window": self.window_experts}

    def sequences(self, history: History) -> dict[str, History]:
        return {"item": history, "window": history.windows(**self.window)}
