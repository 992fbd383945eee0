"""The contract of a branch: a group of experts that a mixture sets beside the global block.

Shape suffixes: B samples, D item width, H output width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn

from ..history.history import History
from ..layers.block import SequenceBlock
from .routers import Router

MakeBlock = Callable[[], SequenceBlock]


class Plan(ABC):
    """What a branch will do with a batch.

    Attributes:
        sizes: integers that ``run`` needs on the host.
        aux_loss: scalar added to the training loss.
    """

    sizes: Tensor
    aux_loss: Tensor

    @abstractmethod
    def run(self, sizes: list[int], target_BD: Tensor) -> Tensor:
        """The branch's output ``(B, H)``; a sample without history gets zeros.

        Args:
            sizes: the numbers of ``self.sizes``.
            target_BD: the target of each sample.
        """


class Branch(nn.Module, ABC):
    """A router and its experts, each a copy of the backbone's block.

    A forward pass has two steps. ``plan`` decides what the experts have to read, without waiting
    for a GPU. ``Plan.run`` runs them. Between the two, a mixture fetches the sizes of all its
    branches at once, so that the host waits once in a step.

    Args:
        router: decides which expert gets what.
        make_block: builds one expert, with parameters of its own.
        num_experts: how many experts there are.

    Attributes:
        output_dim: H.
    """

    def __init__(self, router: Router, make_block: MakeBlock, num_experts: int) -> None:
        super().__init__()
        self.router = router
        experts = [make_block() for _ in range(num_experts)]
        self.output_dim = experts[0].output_dim
        self.experts = cast(Sequence[SequenceBlock], nn.ModuleList(experts))

    @abstractmethod
    def plan(self, history: History) -> Plan:
        """Route a history and decide what each expert reads."""

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The output ``(B, H)`` of this branch alone, and the router's auxiliary loss."""
        plan = self.plan(history)
        return plan.run(plan.sizes.flatten().tolist(), target_BD), plan.aux_loss


def on_host(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The integers of some tensors as a flat list each, all fetched at once."""
    if not tensors:
        return []
    numbers = iter(torch.cat([tensor.flatten() for tensor in tensors]).tolist())
    return [list(islice(numbers, tensor.numel())) for tensor in tensors]
