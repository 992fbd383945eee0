"""The contract of the routers: which expert gets which item, and how the newest item weights them.

Shape suffixes: B samples, T items or windows, E experts, D item width, Z routing width, N items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..history.rows import RowTable


@dataclass
class Routing:
    """What a router decides.

    Attributes:
        weights_BTE: gate of each item for each expert; exact zero = not sent, so row t names the
            subsequences that item t joins. Padding rows are zero. The row of the newest item
            weights the experts' outputs (eq. 6, 7); no other row's values are read.
        aux_loss: scalar added to the training loss, zero where the router has none.
    """

    weights_BTE: Tensor
    aux_loss: Tensor


class Router(nn.Module):
    """Base of the routers: ``forward(x_BTD, mask_BT) -> Routing``, in two steps.

    ``project`` sees one item at a time, so that an item that occurs often is projected once;
    ``assign`` decides from the projections.

    Attributes:
        num_experts: E.
        itemwise: ``assign`` too treats each item alone, so that each distinct item needs to be
            routed once only; its second argument may then be a count of occurrences.
        auxiliary: there is an auxiliary loss, which reads every row with gradient.
        trains: the gates carry gradient.
    """

    num_experts: int
    itemwise: bool = False
    auxiliary: bool = False
    trains: bool = True

    @property
    def max_experts(self) -> int:
        """The most experts that one item can have, in the present mode."""
        raise NotImplementedError

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Routing:
        """Route sequences of item vectors; ``mask_BT`` is True at real items."""
        return self.assign(self.project(x_BTD), mask_BT)

    def project(self, x: Tensor) -> Tensor:
        """What ``assign`` has to know of each item: ``(..., D) -> (..., Z)``."""
        raise NotImplementedError

    def project_rows(self, table: RowTable) -> Tensor:
        """``project`` of each row of a table, ``(U, Z)``."""
        return self.project(table.rows_UD if torch.is_grad_enabled() else table.values())

    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """The gates of projected items; ``count_BT`` is 0 (False) at padding."""
        raise NotImplementedError

    def observe(self, z_NZ: Tensor, weight_NE: Tensor) -> None:
        """Called in training with the distinct items and how often each went to each expert."""

    def before_experts(self, name: str, projections: Iterable[Tensor], seed: int) -> None:
        """Called before the first stage that trains experts; does nothing by default.

        Args:
            name: of the branch, for the log.
            projections: the distinct items of batch after batch, projected, ``(N, Z)`` each.
            seed: of everything random.
        """

    def after_step(self) -> None:
        """Called after each optimiser step; does nothing by default."""

    def forget(self) -> None:
        """Drop what ``observe`` kept since the last step; does nothing by default."""

    def codes(self) -> Tensor | None:
        """One vector per expert ``(E, Z)`` that the gates compare items with, where there is one."""
        return None


class LinearRouter(Router):
    """Base of the routers that gate by ``p = softmax(W_g x)``, which is what ``project`` gives.

    Args:
        item_dim: D.
        num_experts: E.
    """

    def __init__(self, item_dim: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate = nn.Linear(item_dim, num_experts, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(-1)

    def codes(self) -> Tensor:
        return self.gate.weight.detach()


def one_hot_argmax(scores_BTE: Tensor) -> Tensor:
    """True at the best expert of each item."""
    expert_E = torch.arange(scores_BTE.shape[-1], device=scores_BTE.device)
    return scores_BTE.argmax(-1, keepdim=True) == expert_E


def check_topk(topk: int, num_experts: int, most: int | None = None) -> None:
    """Reject a ``router_topk`` that the router cannot have."""
    most = num_experts if most is None else min(most, num_experts)
    if not 1 <= topk <= most:
        raise ValueError(
            f"router_topk={topk}: write 1 to {most} (num_experts={num_experts}) experts per item"
        )
