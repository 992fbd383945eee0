"""A sparse mixture over subsequences: route, compact, and run only the experts that are read.

Shape suffixes: B samples, T items or windows, E experts, k experts read per sample, P = B * k
(sample, expert) pairs, U distinct rows, N of them in use, D item width, Z routing width, H output width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..ops.precision import unrounded
from .routers import Router, Routing

Counts = list[list[int]]


class SubsequenceExperts(nn.Module):
    """``y = sum_i G(x_newest)[i] F_i(subsequence_i)`` (eq. 6, and eq. 7 on windows).

    An expert whose gate is zero at the newest item adds nothing, so for each sample only the
    experts of its newest item run, each on its own compacted subsequence: order kept, left padded.
    Outputs and gradients are those of running all of them, at about 1 / E of the cost.

    Args:
        router: decides who gets what.
        make_block: builds one expert, a ``SequenceBlock`` with its own parameters.
        num_experts: E.
    """

    def __init__(
        self, router: Router, make_block: Callable[[], nn.Module], num_experts: int
    ) -> None:
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(make_block() for _ in range(num_experts))
        self.output_dim = self.experts[0].output_dim

    def forward(self, history: History, target_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed output ``(B, H)`` and the router's auxiliary loss.

        A sample without history gets exact zeros.
        """
        reading = self.read(history)
        return self.run(reading, *host_counts([reading]), target_BD), reading.aux_loss

    def read(self, history: History) -> Reading:
        """Route: which subsequences have to be read. Nothing here waits for a GPU."""
        with unrounded(history.mask_BL):
            member, readout_BE, aux_loss = self._route(history)
        weight_Bk, expert_Bk = readout_BE.topk(self.router.max_experts, dim=-1)
        return Reading(history, weight_Bk, expert_Bk, len(self.experts), member, aux_loss)

    def run(self, reading: Reading, counts: Counts, target_BD: Tensor) -> Tensor:
        """The mixed output ``(B, H)`` of the experts that are read."""
        subsequences = reading.subsequences()
        samples, outputs = [], []
        for expert, pairs, width in slices(*counts):
            sample = reading.sample_P[pairs]
            subsequence = subsequences.rows(pairs).last(width)
            output = self.experts[expert](subsequence, target_BD[sample])
            weight = reading.weight_Bk.flatten()[reading.order_P[pairs]]
            samples.append(sample)
            outputs.append(output * weight[:, None])
        y_BH = target_BD.new_zeros(len(target_BD), self.output_dim)
        if samples:
            y_BH = y_BH.index_add(0, torch.cat(samples), torch.cat(outputs))
        return y_BH

    @torch.no_grad()
    def routing(self, history: History) -> Routing:
        """The gates of every position, for analysis: nothing is kept by ``forward``."""
        if not self.router.itemwise:
            return self.router.assign(history.map(self.router.project), history.mask_BL)
        z_UZ = self.router.project_rows(history.table)
        routing = self.router.assign(z_UZ[None], row_counts(history)[None])
        weights_BTE = F.embedding(history.index_BL, routing.weights_BTE[0])
        return Routing(weights_BTE * history.mask_BL[:, :, None], routing.aux_loss)

    def _route(self, history: History) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
        """Membership as a lookup ``(sample_P, expert_P) -> bool (P, T)``, the gates of the newest
        item ``(B, E)`` with gradient, and the auxiliary loss."""
        if self.router.itemwise:
            return self._route_distinct(history)
        routing = self.router.assign(history.map(self.router.project), history.mask_BL)
        sent_BET = routing.weights_BTE.detach().transpose(1, 2) > 0

        def member(sample_P: Tensor, expert_P: Tensor) -> Tensor:
            return sent_BET[sample_P, expert_P]

        return member, routing.weights_BTE[:, -1], routing.aux_loss

    def _route_distinct(
        self, history: History
    ) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
        """``_route`` for an itemwise router: each distinct row once, then members are looked up."""
        count_U = row_counts(history)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.router.auxiliary):
            z_UZ = self.router.project_rows(history.table)
            routing = self.router.assign(z_UZ[None], count_U[None])
        sent_UE = routing.weights_BTE[0].detach() > 0
        if self.training:
            self.router.observe(z_UZ.detach(), (sent_UE * count_U[:, None]).to(z_UZ.dtype))

        def member(sample_P: Tensor, expert_P: Tensor) -> Tensor:
            flat = history.index_BL[sample_P] * sent_UE.shape[1] + expert_P[:, None]
            member_PT = sent_UE.flatten()[flat]
            # A pair exists because its newest item chose the expert; rounding must not undo that.
            member_PT[:, -1] = True
            return member_PT & history.mask_BL[sample_P]

        newest = history.last(1)
        if self.router.auxiliary or not self.router.trains:
            readout_BE = F.embedding(newest.index_BL[:, 0], routing.weights_BTE[0])
            return member, readout_BE * newest.mask_BL, routing.aux_loss
        readout = self.router(newest.narrow().embed(), newest.mask_BL)
        return member, readout.weights_BTE[:, -1], routing.aux_loss

    @torch.no_grad()
    def projections(self, history: History) -> Tensor:
        """The projections of the distinct rows that occur in the history, ``(N, Z)``."""
        return self.router.project_rows(history.table)[row_counts(history) > 0]


def row_counts(history: History) -> Tensor:
    """How many real positions show each row, ``(U,)``. Items share rows; every window has its own."""
    real = history.mask_BL.flatten().float()
    count_U = real.new_zeros(len(history.table))
    return count_U.index_add_(0, history.index_BL.flatten(), real)


class Reading:
    """Which (sample, expert) pairs run, sorted by expert, and the compacted columns of each.

    Args:
        history: whose positions are read.
        weight_Bk: gates of the k choices; those of zero are not used.
        expert_Bk: the chosen experts.
        num_experts: E.
        member: lookup of the positions that belong to a pair's subsequence.
        aux_loss: of the router.

    Attributes:
        counts_2E: pairs of each expert, and its longest subsequence.
    """

    def __init__(
        self,
        history: History,
        weight_Bk: Tensor,
        expert_Bk: Tensor,
        num_experts: int,
        member: Callable[[Tensor, Tensor], Tensor],
        aux_loss: Tensor,
    ) -> None:
        self._history, self.weight_Bk, self.aux_loss = history, weight_Bk, aux_loss
        k = expert_Bk.shape[1]
        # Unused choices sort last, behind every expert, and are never sliced.
        expert_P = torch.where(weight_Bk.detach() > 0, expert_Bk, num_experts).flatten()
        expert_P, self.order_P = expert_P.sort(stable=True)
        self.sample_P = self.order_P // k
        member_PT = member(self.sample_P, expert_P.clamp(max=num_experts - 1))
        self._columns = compact(member_PT)

        length_P = member_PT.sum(1)
        pairs_E = expert_P.new_zeros(num_experts + 1)
        pairs_E.scatter_add_(0, expert_P, torch.ones_like(expert_P))
        width_E = torch.zeros_like(pairs_E).scatter_reduce(0, expert_P, length_P, "amax")
        self.counts_2E = torch.stack([pairs_E, width_E])[:, :num_experts]

    def subsequences(self) -> History:
        """The subsequence of each pair."""
        return self._history.rows(self.sample_P).take(*self._columns).narrow()


def host_counts(readings: Sequence[Reading]) -> list[Counts]:
    """The counts of readings with equally many experts: all at once, so that a host waits for a GPU
    once in a step (and where a block packs histories)."""
    return torch.stack([reading.counts_2E for reading in readings]).tolist()


def slices(pairs_E: list[int], width_E: list[int]) -> list[tuple[int, slice, int]]:
    """``(expert, slice of pairs, longest subsequence)`` of every expert that has work."""
    out, start = [], 0
    for expert, (pairs, width) in enumerate(zip(pairs_E, width_E, strict=True)):
        if pairs:
            out.append((expert, slice(start, start + pairs), max(width, 1)))
        start += pairs
    return out


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
