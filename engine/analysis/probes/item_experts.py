"""To which experts the routers send one item each time that it appears (paper, figures 5 and 9).

In evaluation and in training: a router may drop items, draw at random or open more gates while it trains.

Shape suffixes: B users, L items of a history, E experts, I distinct items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_zoo.history.history import History
from model_zoo.moe.branch import Branch

SEEN = 5  # appearances that the least popular item, and those of the mean consistency, must have


def dispatch(
    branch: Branch, histories: Sequence[History], items: Sequence[NDArray], seed: int
) -> dict[str, Any]:
    """How a branch routes the histories, item by item. The branch is as it was afterwards.

    Args:
        branch: routes items, not windows.
        histories: batches of histories.
        items: the index of each position's item, ``(B, L)`` for each batch.
        seed: of a router that draws.

    Returns:
        ``experts``, how many there are; ``most`` and ``least``, ``{"item", "appearances"}`` of the
        most popular item and of the least popular one that appears ``SEEN`` times or more (of equal
        ones the first); and for each mode
        ``train`` and ``eval``: ``most`` and ``least``, the share of the item's routed appearances
        whose *best* expert is each one; ``most_sent`` and ``least_sent``, the same of all (appearance,
        expert) pairs with a gate above zero; ``consistency``, the mean over items seen ``SEEN``
        times of the share of routed appearances that go to the item's usual expert; ``unrouted``, the
        share of all appearances that no expert takes. Without an item seen so often, ``most`` and
        ``least`` are None.
    """
    item_I, row_P, count_I = np.unique(
        _seen(histories, items), return_inverse=True, return_counts=True
    )
    often_I = np.flatnonzero(count_I >= SEEN)
    ends = (
        (often_I[count_I[often_I].argmax()], often_I[count_I[often_I].argmin()])
        if len(often_I)
        else ()
    )
    named = dict(zip(("most", "least"), ends, strict=False))
    result: dict[str, Any] = {"most": None, "least": None} | {
        name: {"item": int(item_I[row]), "appearances": int(count_I[row])}
        for name, row in named.items()
    }
    for mode in ("train", "eval"):
        gates_PE = gates(branch, histories, training=mode == "train", seed=seed)
        best_IE, sent_IE = tally(gates_PE, row_P, len(item_I))
        most_share_I = best_IE[often_I].max(1, initial=0) / best_IE[often_I].sum(1).clip(min=1)
        result["experts"] = gates_PE.shape[1]
        result[mode] = {
            **{name: shares(best_IE[row]) for name, row in named.items()},
            **{f"{name}_sent": shares(sent_IE[row]) for name, row in named.items()},
            "consistency": float(most_share_I.mean()) if len(often_I) else None,
            "unrouted": float((gates_PE.max(1) == 0).mean()),
        }
    return result


@torch.no_grad()
def gates(branch: Branch, histories: Sequence[History], training: bool, seed: int = 0) -> NDArray:
    """The gates of all real positions, ``(P, E)``, in the order of the batches.

    Only the router's mode changes, and is put back; ``routing`` shows the codebook nothing. The
    state of torch's generators is put back too.
    """
    before = branch.router.training
    branch.router.train(training)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts = [branch.router.gates(history)[history.mask_BL] for history in histories]
    finally:
        branch.router.train(before)
    return torch.cat(parts).float().cpu().numpy()


def usual_experts(
    branch: Branch, histories: Sequence[History], items: Sequence[NDArray]
) -> NDArray:
    """The expert that is most often the best one of each item in evaluation, ``(I,)``; -1 if none takes it.

    Args:
        branch, histories, items: as in ``dispatch``; the distinct real items in order are I.
    """
    row_P = np.unique(_seen(histories, items), return_inverse=True)[1]
    best_IE, _ = tally(gates(branch, histories, training=False), row_P, row_P.max() + 1)
    return np.where(best_IE.any(1), best_IE.argmax(1), -1)


def _seen(histories: Sequence[History], items: Sequence[NDArray]) -> NDArray:
    """The item of each real position, in the order of the batches."""
    real = [history.mask_BL.cpu().numpy() for history in histories]
    return np.concatenate(
        [index_BL[mask_BL] for index_BL, mask_BL in zip(items, real, strict=True)]
    )


def tally(gates_PE: NDArray, row_P: NDArray, num_items: int) -> tuple[NDArray, NDArray]:
    """For each item how often each expert is its best, and how often it gets it, ``(I, E)`` each."""
    best_IE = np.zeros((num_items, gates_PE.shape[1]), np.int64)
    sent_IE = np.zeros_like(best_IE)
    routed_P = gates_PE.max(1) > 0
    np.add.at(best_IE, (row_P[routed_P], gates_PE[routed_P].argmax(1)), 1)
    place, expert = np.nonzero(gates_PE)
    np.add.at(sent_IE, (row_P[place], expert), 1)
    return best_IE, sent_IE


def shares(count_E: NDArray) -> list[float]:
    """Counts as shares of their sum; zeros if there is nothing."""
    return (count_E / max(1, count_E.sum())).tolist()


def experts_of(branch: Branch, history: History) -> list[int]:
    """The best expert of each real position of one history in evaluation; -1 where there is none."""
    gates_PE = gates(branch, [history], training=False)
    return np.where(gates_PE.max(1) > 0, gates_PE.argmax(1), -1).tolist()
