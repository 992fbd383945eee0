"""The sequence block, which every backbone defines and every mixture copies."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..history.history import History
from ..ops.compiled import call_compiled, on_eager_cpu

GROUPS = 8  # the most groups of samples with similar lengths
LEAST = 32  # samples in a group; a separate pass does not pay for fewer


class SequenceBlock(nn.Module, ABC):
    """The part of a model between the embedding layer and the classifier head (F in the paper).

    A subclass defines ``forward(history, target_BD) -> out_BH`` and sets ``output_dim``. A sample's
    output must not depend on padding or on other samples. It must be finite where the history is
    empty. The constructor takes ``item_dim`` and keyword-only hyper-parameters. These become keys
    of the model's configuration.

    Attributes:
        output_dim: H, width of the output.
        aux_dim: how many of the last numbers of the output are for an auxiliary logit. It learns
            from the labels too, but is no part of the prediction. A mixture mixes these as all others.
        dense: True if the block computes at padded positions too. A CPU then runs short histories
            separately from long ones.
        unites_equal: True if positions whose items have equal features must have equal
            ``index_BL``, as where repeats are counted.
        compiled: True if torch.compile compiles the block.
    """

    output_dim: int
    aux_dim: int = 0
    dense: bool = False
    unites_equal: bool = False
    compiled: bool = False

    def __call__(self, history: History, target_BD: Tensor) -> Tensor:
        """Call ``forward``, compiled if ``compiled`` is set.

        A batch with a size of 1 runs uncompiled, because torch.compile would need another graph.
        """
        if not self.compiled or min(*history.mask_BL.shape, history.num_rows) < 2:
            if self.dense:
                return by_length(super().__call__, history, target_BD)
            return super().__call__(history, target_BD)
        # torch.compile would need other graphs for slices, views and cached vectors too.
        return call_compiled(self, history.contiguous(), target_BD.clone())

    @abstractmethod
    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        """The output of each sample, ``(B, H)``."""

    def read_events(self, sizes: list[int]) -> None:
        """Read the columns ``History.events`` from now on; a block that cannot read them ignores them.

        ``sizes`` has the number of buckets of each.
        """

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of LongCTR's model to the names of this block, by default unchanged.

        ``weights`` does not contain the weights of embeddings and head.
        """
        return weights


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile compile every block of a model."""
    for module in model.modules():
        if isinstance(module, SequenceBlock):
            module.compiled = True


def by_length(
    block: Callable[[History, Tensor], Tensor], history: History, target_BD: Tensor
) -> Tensor:
    """On a CPU, call a block on groups of samples of like lengths, each cut to its longest history.

    If most of a batch is padding, this saves most of the work. No block depends on padding, so the
    result is that of a single call, except for the random draws of dropout.
    """
    if not on_eager_cpu(history.mask_BL):
        return block(history, target_BD)
    length_B, order_B = history.mask_BL.sum(1).sort()
    groups = length_B.split(max(LEAST, -(-len(order_B) // GROUPS)))
    counts, widths = [len(group) for group in groups], [max(1, int(group[-1])) for group in groups]
    if widths[0] == widths[-1]:
        return block(history, target_BD)
    parts = history.samples(order_B).split(counts, widths)
    outputs = map(block, parts, target_BD[order_B].split(counts))
    return torch.cat(list(outputs))[order_B.argsort()]
