"""The base class of routers, which decide the experts of each item and the weights of experts.

Shape suffixes: B samples, T items or windows, R rows that are routed, U rows of a history (distinct
items, or windows), N of them in use, E experts, D item width, Z routing width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..history.rows import gather_rows


@dataclass
class Routing:
    """A router's decision for a batch of items.

    Attributes:
        weights_BTE: gate of each item for each expert. If it is exactly zero, the item is not sent
            to the expert. Padding has zeros. The gates of the newest item weight the experts'
            outputs (eq. 6, 7). The values of all other gates are not used.
        aux_loss: scalar that is added to the training loss; zero if the router has no such loss. A
            mean over parts of a batch goes through ``ranks.weighted`` first.
    """

    weights_BTE: Tensor
    aux_loss: Tensor


@dataclass
class RoutedHistory:
    """A router's decision for a batch of histories.

    A row is a distinct item. For a router that looks at whole sequences, it is a position.

    Attributes:
        gates_BE: gates of the newest item, with gradient. A sample without history has zeros.
        sent_RE: bool, True if a row is sent to an expert.
        row_BT: the row of each position.
        aux_loss: as in ``Routing``.
    """

    gates_BE: Tensor
    sent_RE: Tensor
    row_BT: Tensor
    aux_loss: Tensor


class Router(nn.Module, ABC):
    """Base of the routers; a subclass defines ``project`` and ``assign``, and often nothing else.

    ``project`` sees one item at a time, so that an item that occurs often is projected only once.
    ``assign`` decides from the projections. The keyword-only parameters of a router's constructor
    become keys of the model's configuration.

    Args:
        item_dim: D, width of an item.
        num_experts: E.
        router_topk: number of experts per item; its exact meaning depends on the router.

    Attributes:
        itemwise: True if ``assign`` also looks at each item alone. Each distinct item is then
            routed once, and the second argument of ``assign`` is its number of occurrences.
        auxiliary: True if there is an auxiliary loss, which needs the gradient of every row.
        trains: True if the gates carry gradient.
        unites_equal: True if positions whose items have equal features must have equal projections,
            to the last bit, as where ties are broken.
    """

    itemwise: bool = False
    auxiliary: bool = False
    trains: bool = True
    unites_equal: bool = False

    def __init__(self, item_dim: int, num_experts: int, *, router_topk: int = 2) -> None:
        super().__init__()
        if not 1 <= router_topk <= num_experts:
            raise ValueError(
                f"router_topk={router_topk} is not possible with num_experts={num_experts}; "
                f"write 1 to {num_experts}"
            )
        self.num_experts, self.topk = num_experts, router_topk

    # ---------------------------------------------------------------- what a router decides

    @property
    def max_experts(self) -> int:
        """The most experts that one item can have, in the present mode."""
        return self.topk

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Project items for ``assign``: ``(..., D)`` to ``(..., Z)``."""

    def project_rows(self, history: History) -> Tensor:
        """``project`` of each row of a history, ``(U, Z)``."""
        return self.project(history.rows_UD)

    @abstractmethod
    def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
        """Compute the gates of projected items; ``count_BT`` is 0 (False) at padding."""

    def codes(self) -> Tensor | None:
        """The vectors of the experts with which items are compared, ``(E, Z)``, or None."""
        return None

    # ---------------------------------------------------------------- hooks, by default nothing

    def observe(self, z_NZ: Tensor, weight_NE: Tensor) -> None:
        """Observe the distinct items of a training batch, and how often each expert got them.

        It is called only if the router is ``itemwise``.
        """

    def before_experts(self, name: str, projections: Iterable[Tensor], seed: int) -> None:
        """Prepare for the first stage that trains experts.

        Args:
            name: name of the branch, for the log.
            projections: for each batch, the projections ``(N, Z)`` of its distinct items.
            seed: seed of everything random.
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
        """Route a history: the gates of its newest item, and where each row is sent."""
        late = self.itemwise and not self.auxiliary  # only the newest item needs gradient
        with torch.set_grad_enabled(torch.is_grad_enabled() and not late):
            z, count, row_BT = self._rows(history)
            routing = self.assign(z, count)
        weights_RE = routing.weights_BTE.flatten(0, 1)
        sent_RE = weights_RE.detach() > 0
        if self.itemwise and self.training:
            self.observe(z[0].detach(), (sent_RE * count.mT).to(z.dtype))
        if late and self.trains:
            newest = history.last(1)
            gates_BE = self(newest.drop_hidden_windows().embed(), newest.mask_BL).weights_BTE[:, -1]
        else:
            gates_BE = F.embedding(row_BT[:, -1], weights_RE) * history.mask_BL[:, -1:]
        return RoutedHistory(gates_BE, sent_RE, row_BT, routing.aux_loss)

    def _rows(self, history: History) -> tuple[Tensor, Tensor, Tensor]:
        """The two arguments of ``assign``, and the row of each position.

        A router that is ``itemwise`` gets all distinct items as one sequence. Any other router gets
        the histories themselves, where each position is a row of its own.
        """
        if self.itemwise:
            return self.project_rows(history)[None], history.row_counts()[None], history.index_BL
        mask_BT = history.mask_BL
        position_BT = torch.arange(mask_BT.numel(), device=mask_BT.device).view_as(mask_BT)
        # Rows are projected, so that an item has the same gates at all its positions.
        return gather_rows(self.project_rows(history), history.index_BL), mask_BT, position_BT

    # ---------------------------------------------------------------- for analysis

    @torch.no_grad()
    def gates(self, history: History) -> Tensor:
        """The gates of every position, ``(B, T, E)``."""
        z, count, row_BT = self._rows(history)
        gates_RE = self.assign(z, count).weights_BTE.flatten(0, 1)
        return F.embedding(row_BT, gates_RE) * history.mask_BL[:, :, None]

    @torch.no_grad()
    def projections(self, history: History) -> Tensor:
        """The projections of the distinct rows that occur in a history, ``(N, Z)``."""
        return self.project_rows(history)[history.row_counts() > 0]


class LinearRouter(Router):
    """Base of the routers whose ``project`` computes gates ``p = softmax(W_g x)``.

    Args:
        item_dim: D.
        num_experts: E.
        kwargs: see ``Router``.
    """

    def __init__(self, item_dim: int, num_experts: int, **kwargs: Any) -> None:
        super().__init__(item_dim, num_experts, **kwargs)
        self.gate = nn.Linear(item_dim, num_experts, bias=False)

    def project(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(-1)

    def codes(self) -> Tensor:
        return self.gate.weight.detach()


def one_hot_argmax(scores_BTE: Tensor) -> Tensor:
    """True at the best expert of each item."""
    expert_E = torch.arange(scores_BTE.shape[-1], device=scores_BTE.device)
    return scores_BTE.argmax(-1, keepdim=True) == expert_E
