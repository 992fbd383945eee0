"""An embedding table of vectors that were learned elsewhere.

Shape suffixes: V ids, P width of the given vectors, D width of an embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PretrainedTable(nn.Module):
    """Looks up given vectors, with FuxiCTR's meaning of ``pretrain_usage``.

    ``init`` takes the vectors themselves, projected if P is not D. ``sum`` adds to them a table of
    its own, and ``concat`` projects both side by side.

    Args:
        vocab_size: V; id 0 is padding.
        pretrain_dim: P.
        embedding_dim: D.
        initializer: draws the table of its own.
        usage: ``init``, ``sum`` or ``concat``.
        freeze: do not train the vectors.
        given_VP: the vectors; None where weights are loaded later.
    """

    def __init__(
        self,
        vocab_size: int,
        pretrain_dim: int,
        embedding_dim: int,
        initializer: Callable[[Tensor], Tensor],
        usage: str,
        freeze: bool,
        given_VP: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.vectors = nn.Embedding(vocab_size, pretrain_dim, padding_idx=0)
        self.vectors.weight.requires_grad_(not freeze)
        if given_VP is not None:
            self.vectors.weight.data.copy_(given_VP)
        self.usage, self.initializer = usage, initializer
        self.own = (
            nn.Embedding(vocab_size, embedding_dim, padding_idx=0) if usage != "init" else None
        )
        width = pretrain_dim + embedding_dim * (usage == "concat")
        same = usage != "concat" and width == embedding_dim
        self.proj = nn.Identity() if same else nn.Linear(width, embedding_dim, bias=False)

    def init_weights(self) -> None:
        """Draw the table of its own; FuxiCTR calls this."""
        if self.own is not None:
            with torch.no_grad():
                self.initializer(self.own.weight)
                self.own.weight[0] = 0

    def forward(self, ids: Tensor) -> Tensor:
        """The embeddings ``(..., D)`` of ids."""
        given = self.vectors(ids)
        if self.own is None:
            return self.proj(given)
        own = self.own(ids)
        return (
            self.proj(given) + own
            if self.usage == "sum"
            else self.proj(torch.cat([given, own], -1))
        )
