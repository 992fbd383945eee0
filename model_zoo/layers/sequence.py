"""The block that every backbone defines and every mixture copies."""

from __future__ import annotations

from torch import Tensor, nn

from .compiled import call_compiled
from .history import History


class SequenceBlock(nn.Module):
    """F of the paper: everything between the embedding layer and the classifier head.

    ``forward(history, target_BD) -> out_BH``; ``output_dim`` is H. A block must not depend on the
    content of padded positions nor on other samples, and gives a finite output without history.
    Its constructor takes ``item_dim`` and keyword-only hyper-parameters, which become keys of the
    model's configuration.
    """

    output_dim: int
    compiled: bool = False

    def __call__(self, history: History, target_BD: Tensor) -> Tensor:
        """``forward``, compiled if asked for, unless a size is 1, which would be another graph."""
        if not self.compiled or min(*history.mask_BL.shape, len(history.table)) < 2:
            return super().__call__(history, target_BD)
        # Slices and cached vectors would be other graphs too.
        index_BL, mask_BL = history.index_BL.contiguous(), history.mask_BL.contiguous()
        return call_compiled(self, History(history.rows_UD, index_BL, mask_BL), target_BD)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        raise NotImplementedError

    def products(self, length: int) -> float:
        """FLOPs of the matrix products of a forward pass of one sample with that many real items,
        two per multiplication with addition."""
        raise NotImplementedError

    def elementwise(self, length: int) -> float:
        """FLOPs of what is no matrix product but costs as much: scans and Fourier transforms."""
        return 0.0

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of LongCTR's model of this name, without embeddings and head, by our names."""
        return weights
