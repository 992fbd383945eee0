"""To which experts the routers send items, and what experts stand for (paper, figures 5 and 9).

Dispatch in evaluation and in training differ: a router may drop items, draw at random or open more gates
while it trains. The expert of an item is the one that it goes to most often, or -1 if no expert takes it.

Shape suffixes: I distinct items, P appearances of items, E experts (codes), C codebook width, G categories.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from model_zoo.history.history import History
from model_zoo.moe.branch import Branch

from .sessions import unit

SEEN = 5  # appearances that an item must have to be the least popular one or to have a consistency
NEAREST = 8  # items listed for each code
SHUFFLES = 10  # of the labels, for the null


def dispatch(
    branch: Branch, histories: Sequence[History], item_I: NDArray, row_P: NDArray, seed: int
) -> dict[str, Any]:
    """How a branch routes the histories, item by item. The branch stays as it was.

    Args:
        branch: a branch that routes items, not windows.
        histories: batches of histories.
        item_I: the index of each distinct item.
        row_P: the place in ``item_I`` of each real position, in the order of the batches.
        seed: seed of a router that draws.

    Returns:
        ``experts``: the number of experts.

        ``most`` and ``least``: ``{"item", "appearances"}`` of the most popular item and of the least
        popular one that appears ``SEEN`` times or more. They are None if no item appears so often, and
        the first of equally popular items.

        ``train`` and ``eval``, one for each mode: ``most`` and ``least``, the share of the item's routed
        appearances for which each expert is the *best*; ``most_sent`` and ``least_sent``, the shares of
        the (appearance, expert) pairs with a gate above zero; ``consistency``, the share of routed
        appearances that go to an item's usual expert, averaged over the items seen ``SEEN`` times;
        ``unrouted``, the share of all appearances that no expert takes.
    """
    count_I = np.bincount(row_P)
    often_I = np.flatnonzero(count_I >= SEEN)
    result: dict[str, Any] = {"most": None, "least": None}
    ends = {"most": np.argmax, "least": np.argmin} if len(often_I) else {}
    named = {name: often_I[end(count_I[often_I])] for name, end in ends.items()}
    for name, row in named.items():
        result[name] = {"item": int(item_I[row]), "appearances": int(count_I[row])}
    for mode in ("train", "eval"):
        gates_PE = gates(branch, histories, training=mode == "train", seed=seed)
        best_IE, sent_IE = tally(gates_PE, row_P)
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

    The router's mode and the state of torch's generators are put back afterwards. A codebook sees
    nothing of it.
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


def usual_experts(branch: Branch, histories: Sequence[History], row_P: NDArray) -> NDArray:
    """The expert that is most often the best one of each item in evaluation, ``(I,)``; -1 if none takes it.

    The arguments are those of ``dispatch``.
    """
    return _best(tally(gates(branch, histories, training=False), row_P)[0])


def experts_of(branch: Branch, history: History) -> list[int]:
    """The best expert of each real position of one history in evaluation; -1 where there is none."""
    return _best(gates(branch, [history], training=False)).tolist()


def _best(weight_XE: NDArray) -> NDArray:
    """The expert with the largest weight in each row; -1 where all are zero."""
    return np.where(weight_XE.any(1), weight_XE.argmax(1), -1)


def tally(gates_PE: NDArray, row_P: NDArray) -> tuple[NDArray, NDArray]:
    """For each item how often each expert is its best, and how often it gets it, ``(I, E)`` each."""
    best_IE, sent_IE = np.zeros((2, row_P.max() + 1, gates_PE.shape[1]), np.int64)
    routed_P = gates_PE.any(1)
    np.add.at(best_IE, (row_P[routed_P], gates_PE[routed_P].argmax(1)), 1)
    np.add.at(sent_IE, row_P, gates_PE > 0)
    return best_IE, sent_IE


def shares(count_E: NDArray) -> list[float]:
    """Counts as shares of their sum; zeros if there is nothing."""
    return (count_E / max(1, count_E.sum())).tolist()


def describe_codes(
    z_IC: NDArray, codes_EC: NDArray, expert_I: NDArray, item_I: NDArray, label_I: NDArray | None
) -> list[dict[str, Any]]:
    """What each code of a codebook stands for.

    Args:
        z_IC: items in theme space.
        codes_EC: the codebook.
        expert_I: the expert of each item.
        item_I: index of each item.
        label_I: category of each item, 0 unknown; None where there are none.

    Returns:
        One dictionary for each expert. ``items`` is the number of its items. ``nearest`` lists those of
        them that are nearest to its code, the nearest first (``{"item", "cosine", "category"}``). With
        categories there are ``main_category`` and ``main_share`` of its items as well.
    """
    cosine_IE = unit(z_IC) @ unit(codes_EC).T
    categories = [None] * len(item_I) if label_I is None else label_I.tolist()
    codes: list[dict[str, Any]] = []
    for e, cosine_I in enumerate(cosine_IE.T):
        own = np.flatnonzero(expert_I == e)
        order = own[np.argsort(-cosine_I[own], kind="stable")[:NEAREST]]
        nearest = [
            {"item": int(item_I[i]), "cosine": float(cosine_I[i]), "category": categories[i]}
            for i in order
        ]
        codes.append({"items": len(own), "nearest": nearest})
        if label_I is not None:
            count_G = np.bincount(label_I[own][label_I[own] > 0], minlength=1)
            codes[-1]["main_category"] = int(count_G.argmax()) or None
            codes[-1]["main_share"] = float(count_G.max() / max(1, count_G.sum()))
    return codes


def match(expert_I: NDArray, label_I: NDArray, seed: int) -> dict[str, float | int]:
    """How well experts and categories agree, over the items that have both.

    Args:
        expert_I: the expert of each item.
        label_I: category of each item, 0 unknown.
        seed: seed of the shuffles.

    Returns:
        ``purity``: the share of items that belong to the main category of their expert.
        ``ami``: the adjusted mutual information, which is 0 by chance and 1 for the same partition.
        ``purity_null`` and ``ami_null``: their means over ``SHUFFLES`` shuffles of the categories.
        ``items`` and ``categories``: the numbers of both.
    """
    known_I = (label_I > 0) & (expert_I >= 0)
    expert_I, label_I = expert_I[known_I], label_I[known_I]
    rng = np.random.default_rng(seed)
    nulls = [rng.permutation(label_I) for _ in range(SHUFFLES)]
    return {
        "items": len(label_I),
        "categories": len(np.unique(label_I)),
        "purity": purity(expert_I, label_I),
        "purity_null": float(np.mean([purity(expert_I, null_I) for null_I in nulls])),
        "ami": float(adjusted_mutual_info_score(label_I, expert_I)),
        "ami_null": float(np.mean([adjusted_mutual_info_score(n, expert_I) for n in nulls])),
    }


def purity(expert_I: NDArray, label_I: NDArray) -> float:
    """The share of items in the main category of their expert."""
    main = contingency_matrix(label_I, expert_I).max(0, initial=0)
    return float(main.sum() / max(1, len(label_I)))
