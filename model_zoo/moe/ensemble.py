"""The ensemble: as many blocks as MoS runs for a sample, without a router.

It is the control for MoS: what it gains over the vanilla backbone, more blocks give by themselves.

Shape suffixes: B samples, D item width, H output width.
"""

import torch
from torch import Tensor, nn

from ..history.history import History
from ..ops.functional import check_sizes
from .branch import MakeBlock
from .mixtures import Mixture
from .stages import StageName


class Ensemble(Mixture):
    """Blocks that all read the whole history; the output is the mean of their outputs.

    The first block is the global one. Training has the stages of MoS: the global block alone, the
    others alone, then all.

    Args:
        router_topk: k of the MoS to compare with, which runs k item experts and k window experts
            for a sample. There are ``1 + 2 k`` blocks.
        backbone_warmup_epochs, expert_warmup_epochs: see ``BranchedMixture``.
    """

    def __init__(
        self,
        make_block: MakeBlock,
        item_dim: int,
        *,
        router_topk: int = 1,
        backbone_warmup_epochs: float = 1.0,
        expert_warmup_epochs: float = 1.0,
    ) -> None:
        super().__init__(make_block, item_dim)
        check_sizes(router_topk=router_topk)
        self.blocks = nn.ModuleList(make_block() for _ in range(2 * router_topk))
        self.warmup_epochs = (backbone_warmup_epochs, expert_warmup_epochs)
        self.enter(StageName.JOINT)

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [block(history, target_BD) for block in self.running]
        return torch.stack(outputs).mean(0), target_BD.new_zeros(())

    def added(self) -> list[nn.Module]:
        return [*self.blocks]

    def enter(self, stage: StageName) -> None:
        """Choose the blocks that run in a stage."""
        first, others = [self.global_block], [*self.blocks]
        running = {StageName.BACKBONE: first, StageName.EXPERTS: others}
        self.running = running.get(stage, first + others)
