"""The block that every backbone defines and every mixture copies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..history.history import History
from ..ops.compiled import call_compiled, on_eager_cpu

GROUPS = 8  # of samples of like lengths
LEAST = 32  # samples in a group; fewer are not worth a pass of their own


class SequenceBlock(nn.Module, ABC):
    """F of the paper: everything between the embedding layer and the classifier head.

    A block writes ``forward(history, target_BD) -> out_BH`` and sets ``output_dim``, which is H. It
    must not depend on the content of padded positions nor on other samples, and gives a finite
    output without history. Its constructor takes ``item_dim`` and keyword-only hyper-parameters,
    which become keys of the model's configuration.

    Attributes:
        output_dim: H.
        dense: whether the block computes at padded positions too. A CPU then runs short histories
            apart from long ones.
        compiled: whether torch.compile compiles the block.
    """

    output_dim: int
    dense: bool = False
    compiled: bool = False

    def __call__(self, history: History, target_BD: Tensor) -> Tensor:
        """Call ``forward``, compiled if asked for, unless a size is 1: that needs another graph."""
        if not self.compiled or min(*history.mask_BL.shape, history.num_rows) < 2:
            if self.dense and on_eager_cpu(history.mask_BL):
                return by_length(super().__call__, history, target_BD)
            return super().__call__(history, target_BD)
        # Slices, views and cached vectors would be other graphs too.
        return call_compiled(self, history.contiguous(), target_BD.clone())

    @abstractmethod
    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        """The output of each sample, ``(B, H)``; every block writes its own."""

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of LongCTR's model of this name to ours; by default names are equal.

        The weights come without those of embeddings and head.
        """
        return weights


def by_length(
    block: Callable[[History, Tensor], Tensor], history: History, target_BD: Tensor
) -> Tensor:
    """Call a block on groups of samples of like lengths, each group cut to its longest.

    The numbers are those of one call, but for the draws of dropout, since no block reads padding.
    Where most of a batch is padding, most of the work is saved.
    """
    length_B, order_B = history.mask_BL.sum(1).sort()
    groups = length_B.split(max(LEAST, -(-len(order_B) // GROUPS)))
    counts, widths = [len(group) for group in groups], [max(1, int(group[-1])) for group in groups]
    if widths[0] == widths[-1]:
        return block(history, target_BD)
    parts = history.samples(order_B).split(counts, widths)
    outputs = map(block, parts, target_BD[order_B].split(counts))
    return torch.cat(list(outputs))[order_B.argsort()]
