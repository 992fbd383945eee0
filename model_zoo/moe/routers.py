"""The contract of a router: which expert gets which item, and how the newest item weights them.

Shape suffixes: B samples, T items or windows, P (sample, expert) pairs, U rows (distinct items, or
windows), N of them in use, E experts, D item width, Z routing width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History


@dataclass
class Routing:
    """What a router decides about a batch of items.

    Attributes:
        weights_BTE: gate of each item for each expert. Exact zero means not sent, so row t names
            the experts whose subsequences item t joins. Padding rows are zero. The row of the
            newest item weights the experts' outputs (eq. 6, 7); no other row's values are read.
        aux_loss: scalar added to the training loss, zero where the router has none.
    """

    weights_BTE: Tensor
    aux_loss: Tensor


@dataclass
class RoutedHistory:
    """What a router decides about a history.

    Attributes:
        gates_BE: gates of the newest item, with gradient. A sample without history has zeros.
        members: which positions were sent to an expert, for some pairs of a sample and an expert
            that its newest item chose: ``(sample_P, expert_P) -> bool (P, T)``.
        aux_loss: as in ``Routing``.
    """

    gates_BE: Tensor
    members: Callable[[Tensor, Tensor], Tensor]
    aux_loss: Tensor


class Router(nn.Module, ABC):
    """Base of the routers. A router writes ``project`` and ``assign``, and often that is all.

    ``project`` sees one item at a time, so that an item that occurs often is projected once.
    ``assign`` decides from the projections. The keyword-only parameters of a router's constructor
    become keys of the model's configuration.

    Args:
        item_dim: D.
        num_experts: E.

    Attributes:
        itemwise: ``assign`` too treats each item alone. Each distinct item is then routed once, and
            the second argument of ``assign`` counts its occurrences.
        auxiliary: there is an auxiliary loss, which reads every row with gradient.
        trains: the gates carry gradient.
    """

    itemwise: bool = False
    auxiliary: bool = False
    trains: bool = True

    def __init__(self, item_dim: int, num_experts: int) -> None:
        super().__init__()
        self.item_dim, self.num_experts = item_dim, num_experts

    # ---------------------------------------------------------------- what a router decides

    @property
    @abstractmethod
    def max_experts(self) -> int:
        """The most experts that one item can have, in the present mode."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """What ``assign`` has to know about each item: ``(..., D) -> (..., Z)``."""

    def project_rows(self, history: History) -> Tensor:
        """``project`` of each row of a history, ``(U, Z)``."""
        return self.project(history.rows_UD)

    @abstractmethod
    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """The gates of projected items; ``count_BT`` is 0 (False) at padding."""

    def codes(self) -> Tensor | None:
        """The vector of each expert that items are compared with, ``(E, Z)``; None without one."""
        return None

    # ---------------------------------------------------------------- hooks, by default nothing

    def observe(self, z_NZ: Tensor, weight_NE: Tensor) -> None:
        """Take note of the distinct items of a training batch and how often each expert got them.

        Only a router that is ``itemwise`` is shown them.
        """

    def before_experts(self, name: str, projections: Iterable[Tensor], seed: int) -> None:
        """Prepare for the first stage that trains experts.

        Args:
            name: of the branch, for the log.
            projections: the distinct items of batch after batch, projected, ``(N, Z)`` each.
            seed: of everything random.
        """

    def after_step(self) -> None:
        """Act on what was observed; called after each optimiser step."""

    def forget(self) -> None:
        """Drop what was observed since the last step."""

    # ---------------------------------------------------------------- routing

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Routing:
        """Route sequences of item vectors; ``mask_BT`` is True at real items."""
        return self.assign(self.project(x_BTD), mask_BT)

    def route(self, history: History) -> RoutedHistory:
        """Route a history for the experts that its newest item reads."""
        if self.itemwise:
            return self._route_rows(history)
        routing = self.assign(history.project(self.project), history.mask_BL)
        sent_BET = routing.weights_BTE.detach().transpose(1, 2) > 0

        def members(sample_P: Tensor, expert_P: Tensor) -> Tensor:
            return sent_BET[sample_P, expert_P]

        return RoutedHistory(routing.weights_BTE[:, -1], members, routing.aux_loss)

    def _route_rows(self, history: History) -> RoutedHistory:
        """Route each distinct row once; members are then looked up by the rows' indices."""
        count_U = history.row_counts()
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.auxiliary):
            z_UZ = self.project_rows(history)
            routing = self.assign(z_UZ[None], count_U[None])
        sent_UE = routing.weights_BTE[0].detach() > 0
        if self.training:
            self.observe(z_UZ.detach(), (sent_UE * count_U[:, None]).to(z_UZ.dtype))

        def members(sample_P: Tensor, expert_P: Tensor) -> Tensor:
            flat = history.index_BL[sample_P] * sent_UE.shape[1] + expert_P[:, None]
            member_PT = sent_UE.flatten()[flat]
            # A pair exists because its newest item chose the expert; rounding must not undo that.
            member_PT[:, -1] = True
            return member_PT & history.mask_BL[sample_P]

        if self.auxiliary or not self.trains:
            gates_BE = F.embedding(history.index_BL[:, -1], routing.weights_BTE[0])
            gates_BE = gates_BE * history.mask_BL[:, -1:]
        else:  # once more, with gradient
            newest = history.last(1)
            gates_BE = self(newest.drop_hidden_windows().embed(), newest.mask_BL).weights_BTE[:, -1]
        return RoutedHistory(gates_BE, members, routing.aux_loss)

    # ---------------------------------------------------------------- for analysis

    @torch.no_grad()
    def gates(self, history: History) -> Tensor:
        """The gates of every position, ``(B, T, E)``."""
        if not self.itemwise:
            return self.assign(history.project(self.project), history.mask_BL).weights_BTE
        z_UZ = self.project_rows(history)
        gates_UE = self.assign(z_UZ[None], history.row_counts()[None]).weights_BTE[0]
        return F.embedding(history.index_BL, gates_UE) * history.mask_BL[:, :, None]

    @torch.no_grad()
    def projections(self, history: History) -> Tensor:
        """The projections of the distinct rows that occur in a history, ``(N, Z)``."""
        return self.project_rows(history)[history.row_counts() > 0]


class LinearRouter(Router):
    """Base of the routers that gate by ``p = softmax(W_g x)``, which is what ``project`` gives.

    Args:
        item_dim: D.
        num_experts: E.
    """

    def __init__(self, item_dim: int, num_experts: int) -> None:
        super().__init__(item_dim, num_experts)
        self.gate = nn.Linear(item_dim, num_experts, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(-1)

    def codes(self) -> Tensor:
        return self.gate.weight.detach()


def one_hot_argmax(scores_BTE: Tensor) -> Tensor:
    """True at the best expert of each item."""
    expert_E = torch.arange(scores_BTE.shape[-1], device=scores_BTE.device)
    return scores_BTE.argmax(-1, keepdim=True) == expert_E


def check_topk(router_topk: int, num_experts: int, most: int | None = None) -> None:
    """Reject a ``router_topk`` that the router cannot have.

    Raises:
        ValueError: it is not between 1 and the number of experts, or above ``most``.
    """
    most = num_experts if most is None else min(most, num_experts)
    if not 1 <= router_topk <= most:
        raise ValueError(
            f"router_topk={router_topk} is not possible with num_experts={num_experts}; "
            f"write 1 to {most}"
        )
