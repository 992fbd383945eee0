"""Experts that read subsequences: route, compact, and run only the experts that are read.

Shape suffixes: B samples, T items or windows, E experts, k experts read per sample, P = B * k
(sample, expert) pairs, D item width, H output width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..history.history import History
from ..ops.precision import unrounded
from .branch import Branch, Plan
from .routers import RoutedHistory


class SubsequenceExperts(Branch):
    """Experts that each read the items sent to them; the newest item weights their outputs.

    The output is ``y = sum_i G(x_newest)[i] F_i(subsequence_i)`` (eq. 6, and eq. 7 on windows). An
    expert whose gate is zero at the newest item adds nothing to it. So only the experts of the
    newest item run, each on its own compacted subsequence: in order, left padded. Outputs and
    gradients are those of running all experts, at about 1 / E of the cost.
    """

    def plan(self, history: History) -> SubsequencePlan:
        with unrounded(history.mask_BL):
            routed = self.router.route(history)
        return SubsequencePlan(self, history, routed)


class SubsequencePlan(Plan):
    """Which (sample, expert) pairs run, sorted by expert, and the compacted columns of each.

    Args:
        branch: its experts run.
        history: its positions are read.
        routed: how the branch's router routed that history.

    Attributes:
        gate_P: gate of each pair, with gradient.
        sample_P: sample of each pair. Choices of gate zero come last and are not run.
        sizes: ``(2, E)``, the number of pairs of each expert, and its longest subsequence (at least
            1).
    """

    def __init__(self, branch: Branch, history: History, routed: RoutedHistory) -> None:
        self.experts, self.output_dim = branch.experts, branch.output_dim
        self.aux_loss = routed.aux_loss
        E, most = len(self.experts), branch.router.max_experts
        gate_Bk, expert_Bk = routed.gates_BE.topk(most, dim=-1)
        # Unused choices sort last, behind every expert, and are never sliced.
        expert_P = torch.where(gate_Bk.detach() > 0, expert_Bk, E).flatten()
        expert_P, order_P = expert_P.sort(stable=True)
        self.sample_P = order_P // most
        self.gate_P = gate_Bk.flatten()[order_P]
        member_PT = routed.members(self.sample_P, expert_P.clamp(max=E - 1))
        self._history, self._columns = history, compact(member_PT)

        length_P = member_PT.sum(1)
        pairs_E = expert_P.new_zeros(E + 1)
        pairs_E.scatter_add_(0, expert_P, torch.ones_like(expert_P))
        width_E = torch.ones_like(pairs_E).scatter_reduce(0, expert_P, length_P, "amax")
        self.sizes = torch.stack([pairs_E, width_E])[:, :E]

    def run(self, sizes: list[int], target_BD: Tensor) -> Tensor:
        E = len(self.experts)
        counts, widths = sizes[:E], sizes[E:]
        used = sum(counts)
        sample_P, gate_P, index_PT, mask_PT = (
            x[:used] for x in (self.sample_P, self.gate_P, *self._columns)
        )
        read = self._history.subsequences(sample_P, index_PT, mask_PT).split(counts, widths)
        outputs = [
            expert(own, target_SD)
            for expert, own, target_SD in zip(
                self.experts, read, target_BD[sample_P].split(counts), strict=True
            )
            if len(target_SD)
        ]
        y_BH = target_BD.new_zeros(len(target_BD), self.output_dim)
        if outputs:
            y_BH = y_BH.index_add(0, sample_P, torch.cat(outputs) * gate_P[:, None])
        return y_BH


def compact(member_PT: Tensor) -> tuple[Tensor, Tensor]:
    """Move the members of each row to its right end, order kept.

    Args:
        member_PT: bool, which columns to keep.

    Returns:
        ``index_PT`` (the column that each slot shows; 0 in padded slots) and ``mask_PT``.
    """
    P, T = member_PT.shape
    length_P1 = member_PT.sum(1, keepdim=True)
    slot_PT = torch.where(member_PT, T - length_P1 + member_PT.cumsum(1) - 1, T)
    column_PT = torch.arange(T, device=member_PT.device).expand(P, T)
    # Slot T is a bin for the columns that are left out.
    index_PT = torch.zeros(P, T + 1, dtype=torch.long, device=member_PT.device)
    index_PT.scatter_(1, slot_PT, column_PT)
    mask_PT = torch.arange(T, device=member_PT.device) >= T - length_P1
    return index_PT[:, :T], mask_PT
