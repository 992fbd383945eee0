"""Mixtures: encoders of a history and a target, built from copies of one backbone's block.

``Mixture`` itself is the vanilla backbone. ``SparseMixture`` is the base of mixtures that differ
only in their router, and each is in the file of its router. ``mos.py`` has the paper's Mixture of
Sequence, which also has windows. A mixture also defines the stages of its training (paper 4.3).

Shape suffixes: B samples, D item width, H output width.
"""

from collections.abc import Iterable, MutableMapping
from functools import partial
from itertools import islice, tee
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..history.history import History
from .branch import Branch, MakeBlock
from .routers import Router
from .stages import Stage, StageName


class Mixture(nn.Module):
    """The vanilla backbone: one block over the whole history (eq. 5), and base of all mixtures.

    Args:
        make_block: builds one block with its own parameters.
        item_dim: D, width of an item.

    Attributes:
        branches: the groups of sparse experts by name; here there are none.
        output_dim: H, width of the output.
        warmup_epochs: length of the stages before the joint one; 0 skips a stage.
    """

    warmup_epochs = 0.0, 0.0

    def __init__(self, make_block: MakeBlock, item_dim: int) -> None:
        super().__init__()
        self.global_block = make_block()
        self.output_dim = self.global_block.output_dim
        self.branches = cast(MutableMapping[str, Branch], nn.ModuleDict())

    @classmethod
    def readers(cls) -> tuple[type, ...]:
        """The classes whose keyword-only parameters are keys of the mixture's configuration."""
        return (cls,)

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The output of each sample, ``(B, H)``, and the auxiliary loss, a scalar."""
        y_BH = self.global_block(history, target_BD)
        return y_BH, y_BH.new_zeros(())

    def sequence(self, branch: str, history: History) -> History:
        """The sequence that a branch routes, by default the history itself."""
        return history

    # ---------------------------------------------------------------- training

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training in order; ``epochs`` is the length of the last, joint stage."""
        lengths = (*self.warmup_epochs, epochs)
        planned = [Stage(name, length) for name, length in zip(StageName, lengths, strict=True)]
        return [stage for stage in planned if stage.epochs > 0]

    def enter(self, stage: StageName) -> None:
        """Set the fusion weights for a stage."""

    def added(self) -> list[nn.Module]:
        """The parts that the vanilla backbone does not have."""
        return list(self.branches.values())

    def before_experts(self, histories: Iterable[History], seed: int) -> None:
        """Prepare the routers for the first stage that trains experts.

        Args:
            histories: histories of the training data, batch by batch, of which only as many as the
                routers need are read.
            seed: seed of everything random.
        """
        for name, own in zip(self.branches, tee(histories, len(self.branches)), strict=True):
            router, sequences = self.branches[name].router, map(partial(self.sequence, name), own)
            router.before_experts(name, map(router.projections, sequences), seed)


class BranchedMixture(Mixture):
    """Base of all sparse mixtures: a global block and branches of experts, fused by eq. 8.

    Args:
        alphas: weight of each branch in the joint stage, by its configuration key, which is
            ``alpha_`` and the branch's name. A branch with weight 0 is not built.
        num_experts: number of experts of each branch; 0 gives the vanilla backbone.
        backbone_warmup_epochs, expert_warmup_epochs: length of the first two stages (paper 4.3).
            They may be fractions, and 0 skips a stage.
        router_config: the keyword-only parameters of ``router``.

    Attributes:
        router: class of the branches' routers.
        branch: class of the branches.
        fusion: weight of each branch in the present stage. The global block gets the rest, so that
            the sum is 1.
    """

    router: type[Router]
    branch: type[Branch] = Branch

    def __init__(
        self,
        make_block: MakeBlock,
        item_dim: int,
        alphas: dict[str, float],
        *,
        num_experts: int = 5,
        backbone_warmup_epochs: float = 1.0,
        expert_warmup_epochs: float = 1.0,
        **router_config: Any,
    ) -> None:
        super().__init__(make_block, item_dim)
        if num_experts < 0:
            raise ValueError(f"num_experts={num_experts} is too small; write 0 (none) or more")
        if min(alphas.values()) < 0 or sum(alphas.values()) > 1:
            written = ", ".join(f"{name}={alpha}" for name, alpha in alphas.items())
            raise ValueError(f"{written}: write weights of at least 0, with a sum of at most 1")
        used = {name.removeprefix("alpha_"): alpha for name, alpha in alphas.items() if alpha}
        self.alphas = used if num_experts else {}
        for name in self.alphas:
            router = self.router(item_dim, num_experts, **router_config)
            self.branches[name] = self.branch(router, make_block, num_experts)
        if self.branches:
            self.warmup_epochs = (backbone_warmup_epochs, expert_warmup_epochs)
        self.enter(StageName.JOINT)

    @classmethod
    def readers(cls) -> tuple[type, ...]:
        return (cls, cls.router)

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        if not self.fusion:
            return super().forward(history, target_BD)
        alpha_global = 1 - sum(self.fusion.values())
        outputs = []
        if alpha_global:
            outputs.append(alpha_global * self.global_block(history, target_BD))
        plans = [self.branches[n].plan(self.sequence(n, history)) for n in self.fusion]
        sizes = torch.cat([plan.sizes for plan in plans])
        host = iter(sizes.tolist() if len(sizes) else ())  # it waits once
        for alpha, plan in zip(self.fusion.values(), plans, strict=True):
            own = list(islice(host, len(plan.sizes)))
            outputs.append(alpha * plan.run(own, target_BD))
        aux_loss = sum((plan.aux_loss for plan in plans), start=target_BD.new_zeros(()))
        return sum(outputs[1:], start=outputs[0]), aux_loss

    def enter(self, stage: StageName) -> None:
        """Set the weights of the branches: none, then equal shares, then the alphas."""
        equal = {name: 1 / len(self.alphas) for name in self.alphas}
        shares = {StageName.BACKBONE: {}, StageName.EXPERTS: equal, StageName.JOINT: self.alphas}
        self.fusion = shares[stage]


class SparseMixture(BranchedMixture):
    """Base of the mixtures with one branch of experts; a subclass sets the ``router``.

    Args:
        alpha_moe: weight of the experts in the joint stage.
        kwargs: see ``BranchedMixture``.
    """

    def __init__(
        self, make_block: MakeBlock, item_dim: int, *, alpha_moe: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(make_block, item_dim, {"alpha_moe": alpha_moe}, **kwargs)
