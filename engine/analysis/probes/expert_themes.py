"""What experts stand for: how well their items match known categories, and the items nearest to their codes.

The expert of an item is the one that it goes to most often (``item_experts.usual_experts``), or -1 if no
expert takes it. Every item counts once.

Shape suffixes: I items, E experts (codes), C codebook width, G categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from .sessions import unit

NEAREST = 8  # items listed for each code
SHUFFLES = 10  # of the labels, for the null


def describe_codes(
    z_IC: NDArray,
    codes_EC: NDArray,
    expert_I: NDArray,
    item_I: NDArray,
    label_I: NDArray | None,
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
    codes: list[dict[str, Any]] = []
    for e, cosine_I in enumerate(cosine_IE.T):
        own = np.flatnonzero(expert_I == e)
        order = own[np.argsort(-cosine_I[own], kind="stable")[:NEAREST]]
        nearest = [
            {
                "item": int(item_I[i]),
                "cosine": float(cosine_I[i]),
                "category": None if label_I is None else int(label_I[i]),
            }
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
