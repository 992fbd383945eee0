"""A branch: a router and its experts, which a mixture adds to the global block.

Shape suffixes: B samples, T items or windows, R rows that are routed, E experts, k experts used per
sample, P = B * k (sample, expert) pairs, S samples of one expert, D item width, H output width, M
numbers on what matches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..history.history import History
from ..layers.block import SequenceBlock
from ..ops.precision import unrounded
from .routers import Router

MakeBlock = Callable[[], SequenceBlock]


@dataclass
class Plan:
    """A branch's decisions for a batch, made before its experts run.

    Attributes:
        sizes: one-dimensional tensor of integers that ``run`` needs on the host.
        aux_loss: scalar that is added to the training loss.
        run: computes the branch's output ``(B, H)`` from ``sizes``, as a list, and the targets
            ``(B, D)``. A sample without history gets zeros.
    """

    sizes: Tensor
    aux_loss: Tensor
    run: Callable[[list[int], Tensor], Tensor]


class Branch(nn.Module):
    """A router and its experts, each a copy of the backbone's block.

    Each expert reads the items sent to it, and the gates of the newest item weight the outputs. The
    output is ``y = sum_i G(x_newest)[i] F_i(subsequence_i)`` (eq. 6, and eq. 7 on windows). An
    expert whose gate is zero at the newest item adds nothing. So only the experts of the newest
    item run, each on its own subsequence, which keeps the order and is left-padded. Outputs and
    gradients are the same as if all experts ran, at about 1 / E of the cost.

    A forward pass has two steps. ``plan`` decides what the experts read, without waiting for a GPU.
    ``Plan.run`` runs them. Between the two, a mixture fetches the sizes of all its branches at
    once, so that the host waits only once per step. A branch that works in another way overrides
    ``plan``.

    Args:
        router: decides which expert gets which item.
        make_block: builds one expert, with its own parameters.
        num_experts: E, the number of experts.

    Attributes:
        output_dim: H, width of the output.
    """

    def __init__(self, router: Router, make_block: MakeBlock, num_experts: int) -> None:
        super().__init__()
        self.router = router
        experts = [make_block() for _ in range(num_experts)]
        self.output_dim = experts[0].output_dim
        self.experts = cast(Sequence[SequenceBlock], nn.ModuleList(experts))
        self.match_EMH: nn.Parameter | None = None

    def read_matches(self, count: int) -> None:
        """Each expert adds a linear function of M numbers on what matches in its part; it starts at 0."""
        zeros_EMH = torch.zeros(len(self.experts), count, self.output_dim)
        self.match_EMH = nn.Parameter(zeros_EMH)

    def plan(self, history: History) -> Plan:
        """Route a history and decide what each expert reads."""
        with unrounded(history.mask_BL):
            routed = self.router.route(history)
        E, most = len(self.experts), self.router.max_experts
        gate_Bk, expert_Bk = routed.gates_BE.topk(most, dim=-1)
        # A choice whose gate is zero is not used. It sorts behind all experts and never runs.
        expert_P = torch.where(gate_Bk.detach() > 0, expert_Bk, E).flatten()
        expert_P, order_P = expert_P.sort(stable=True)
        sample_P, gate_P = order_P // most, gate_Bk.flatten()[order_P]
        row_PT = routed.row_BT.index_select(0, sample_P)
        flat_PT = row_PT * E + expert_P.clamp(max=E - 1)[:, None]
        member_PT = routed.sent_RE.flatten().index_select(0, flat_PT.flatten()).view_as(flat_PT)
        # A pair exists because its newest item chose the expert; rounding must not undo that.
        member_PT[:, -1] = True
        member_PT &= history.mask_BL.index_select(0, sample_P)
        columns = compact(member_PT)
        # For each expert: how many pairs it has, and its longest subsequence (at least 1).
        pairs_E = expert_P.new_zeros(E + 1)
        pairs_E.scatter_add_(0, expert_P, torch.ones_like(expert_P))
        width_E = torch.ones_like(pairs_E).scatter_reduce(0, expert_P, member_PT.sum(1), "amax")

        def run(sizes: list[int], target_BD: Tensor) -> Tensor:
            counts, widths = sizes[:E], sizes[E:]
            sample, gate, index, mask = (x[: sum(counts)] for x in (sample_P, gate_P, *columns))
            read = history.subsequences(sample, index, mask)
            parts, targets = read.split(counts, widths), target_BD[sample].split(counts)
            runs = zip(self.experts, parts, targets, strict=True)
            outputs = [
                expert(part, target_SD) for expert, part, target_SD in runs if len(target_SD)
            ]
            y_BH = target_BD.new_zeros(len(target_BD), self.output_dim)
            if outputs:
                y_PH = torch.cat(outputs)
                if self.match_EMH is not None and history.matches_within is not None:
                    match_PM = history.matches_within(sample, read).to(y_BH)
                    each = zip(match_PM.split(counts), self.match_EMH, strict=True)
                    linear = [match_SM @ weight_MH for match_SM, weight_MH in each]
                    y_PH = y_PH + torch.cat(linear)
                y_BH = y_BH.index_add(0, sample, y_PH * gate[:, None])
            return y_BH

        return Plan(torch.cat([pairs_E[:E], width_E[:E]]), routed.aux_loss, run)

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The output ``(B, H)`` of this branch alone, and the router's auxiliary loss."""
        plan = self.plan(history)
        return plan.run(plan.sizes.tolist(), target_BD), plan.aux_loss


def compact(member_PT: Tensor) -> tuple[Tensor, Tensor]:
    """Move the kept columns of each row to its right end, in the same order.

    Args:
        member_PT: bool, True at the columns to keep.

    Returns:
        ``index_PT``, the column that each slot shows (0 in padded slots), and ``mask_PT``, which is
        True where a slot shows a kept column.
    """
    P, T = member_PT.shape
    length_P1 = member_PT.sum(1, keepdim=True)
    slot_PT = torch.where(member_PT, T - length_P1 + member_PT.cumsum(1) - 1, T)
    column_PT = torch.arange(T, device=member_PT.device).expand(P, T)
    # The columns that are left out go to slot T, which is cut off.
    index_PT = torch.zeros(P, T + 1, dtype=torch.long, device=member_PT.device)
    index_PT.scatter_(1, slot_PT, column_PT)
    mask_PT = torch.arange(T, device=member_PT.device) >= T - length_P1
    return index_PT[:, :T], mask_PT
