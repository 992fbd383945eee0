"""Measure how a mixture routes: load, dead experts, switching, consistency, codes.

Shape suffixes: B samples, T items or windows, E experts, I items of the catalogue.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ranks
from ..batch import Batch
from ..history.history import History
from ..history.item_dict import ItemDict
from ..moe.branch import Branch
from .trainable import Trainable

DEAD, DOMINANT = 0.01, 0.9  # routing has collapsed if an expert's share is below or above these


@torch.no_grad()
def routing_report(model: Trainable, loader: Iterable[Batch]) -> dict[str, dict[str, Any]]:
    """Measure how each branch of a mixture routes the histories of a loader, in evaluation mode.

    Returns:
        For each branch, a dictionary that JSON can hold. Experts are numbered from 0.

        - ``item_share``: each expert's share of the routed (item, expert) pairs.
        - ``sample_share``: each expert's share of the (sample, expert) pairs whose output is used.
        - ``item_entropy``, ``sample_entropy``: the entropy of these shares, from 0 (all go to one
          expert) to 1 (all experts have the same share).
        - ``unserved``: among samples with a history, the share whose newest item has no expert.
        - ``dead``: the experts with less than 1 % of the pairs in ``item_share``.
        - ``switch_rate``: how often the best expert changes from one item to the next, 0 to 1.
        - ``code_cosine``: the cosines between the experts' codes; None without codes.
        - ``consistency``: the share of appearances that go to the usual expert of their item, over
          items seen twice or more. It is None if the loader does not know items by index.
        - ``most_popular``, ``least_popular``: how the appearances of the most and the least seen of
          these items are spread over the experts (the paper's figures 5 and 9).
    """
    if not model.branches:
        return {}
    model.eval()
    tallies = {name: Tally(branch) for name, branch in model.branches.items()}
    for batch in loader:
        for name, sequence in model.routed(batch).items():
            items = batch[1] if name != "window" and isinstance(batch[1], ItemDict) else None
            tallies[name].add(sequence, items)
    return {name: tally.summary() for name, tally in tallies.items()}


def log_report(report: dict[str, dict[str, Any]]) -> None:
    """Log one line per branch, and one warning if the routing of any has collapsed."""
    collapsed = []
    for name, branch in report.items():
        load, consistency = branch["item_share"], branch["consistency"]
        logging.info(
            f"{name} experts: load {' '.join(f'{share:.0%}' for share in load)}, "
            f"entropy {branch['item_entropy']:.2f}, switch rate {branch['switch_rate']:.2f}"
            + ("" if consistency is None else f", consistency {consistency:.2f}")
        )
        if len(load) > 1 and any(load):
            outside = [e for e, share in enumerate(load) if not DEAD <= share <= DOMINANT]
            collapsed += [f"{name} expert {expert} has {load[expert]:.1%}" for expert in outside]
    if collapsed:
        logging.warning(f"routing has collapsed: {', '.join(collapsed)} of the load")


def branch_codes(model: Trainable) -> dict[str, Tensor]:
    """A copy of the experts' codes, one row each, of each branch whose router has codes."""
    codes = {name: branch.router.codes() for name, branch in model.branches.items()}
    return {name: c.detach().float().cpu().clone() for name, c in codes.items() if c is not None}


def code_movement(before_EC: Tensor | None, after_EC: Tensor | None) -> float | None:
    """The mean cosine distance (0 to 2) between codes before and after; None without codes."""
    if before_EC is None or after_EC is None:
        return None
    return float(1 - F.cosine_similarity(before_EC.double(), after_EC.double(), dim=-1).mean())


class Tally:
    """Counts how one branch routes, over many batches."""

    def __init__(self, branch: Branch) -> None:
        self.router = branch.router
        self.item_E = self.sample_E = torch.zeros(self.router.num_experts)
        self.switched = self.pairs = self.samples = self.unserved = torch.tensor(0)
        self.appearances_IE = torch.zeros(0, self.router.num_experts)

    def add(self, sequence: History, items: ItemDict | None) -> None:
        """Count a batch; ``items`` says which item each position holds, or is None."""
        weights_BTE = self.router.gates(sequence)
        sent_BTE = weights_BTE > 0
        self.item_E = self.item_E + sent_BTE.sum((0, 1)).cpu()
        self.sample_E = self.sample_E + sent_BTE[:, -1].sum(0).cpu()
        read_B = sequence.mask_BL[:, -1]
        self.samples = self.samples + read_B.sum()
        self.unserved = self.unserved + (read_B & ~sent_BTE[:, -1].any(-1)).sum()
        routed_BT, best_BT = sent_BTE.any(-1), weights_BTE.argmax(-1)
        both = routed_BT[:, 1:] & routed_BT[:, :-1]
        self.pairs = self.pairs + both.sum()
        self.switched = self.switched + (both & (best_BT[:, 1:] != best_BT[:, :-1])).sum()
        if items is not None and items.index.shape[1] > 1:
            if not len(self.appearances_IE):
                count = len(next(iter(items.tables.values())))
                self.appearances_IE = best_BT.new_zeros(count, self.router.num_experts)
            item, expert = items.index[:, :-1].to(best_BT)[routed_BT], best_BT[routed_BT]
            one = torch.ones_like(item)
            self.appearances_IE.index_put_((item, expert), one, accumulate=True)

    def summary(self) -> dict[str, Any]:
        """The numbers that ``routing_report`` gives for this branch, from the counts of all ranks."""
        for name, count in vars(self).items():
            if isinstance(count, Tensor):
                setattr(self, name, ranks.total(count))
        item_share, sample_share = shares(self.item_E), shares(self.sample_E)
        codes, cosines = self.router.codes(), None
        if codes is not None:
            unit = F.normalize(codes.float(), dim=-1)
            cosines = (unit @ unit.T).tolist()
        found: dict[str, Any] = {
            "item_share": item_share,
            "sample_share": sample_share,
            "item_entropy": entropy(item_share),
            "sample_entropy": entropy(sample_share),
            "unserved": float(self.unserved / self.samples.clamp(min=1)),
            "dead": [expert for expert, share in enumerate(item_share) if share < DEAD],
            "switch_rate": float(self.switched / self.pairs.clamp(min=1)),
            "code_cosine": cosines,
            **dict.fromkeys(("consistency", "most_popular", "least_popular")),
        }
        repeated_IE = self.appearances_IE[self.appearances_IE.sum(1) > 1]
        if len(repeated_IE):
            count_I = repeated_IE.sum(1)
            found["consistency"] = float(repeated_IE.amax(1).sum() / count_I.sum())
            found["most_popular"] = shares(repeated_IE[count_I.argmax()])
            found["least_popular"] = shares(repeated_IE[count_I.argmin()])
        return found


def shares(count_E: Tensor) -> list[float]:
    """Each count as a share of their sum; all zeros if the sum is zero."""
    return (count_E / count_E.sum().clamp(min=1)).tolist()


def entropy(share_E: list[float]) -> float:
    """The normalised entropy of shares: 1 if all are the same, 0 if one expert has everything."""
    if len(share_E) == 1:
        return 1.0
    return -sum(s * math.log(s) for s in share_E if s) / math.log(len(share_E))
