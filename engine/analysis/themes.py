"""What the codes of a codebook stand for: their nearest items, and how well experts match known categories.

Shape suffixes: I items, E experts (codes), C codebook width, G categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from .session_hopping import unit

NEAREST = 8  # items listed for each code
SHUFFLES = 10  # of the labels, for the null


def themes(
    z_IC: NDArray, codes_EC: NDArray, item_I: NDArray, label_I: NDArray | None, seed: int
) -> dict[str, Any]:
    """Describe each code, and compare the experts with categories; every item counts once.

    Args:
        z_IC: items in theme space.
        codes_EC: the codebook.
        item_I: index of each item.
        label_I: category of each item, 0 unknown; None where there are none.
        seed: of the shuffles.

    Returns:
        ``codes``: for each expert ``items`` (how many are nearest to its code), ``nearest``
        (``{"item", "cosine", "category"}``, the nearest first) and, with categories, ``main_category``
        and ``main_share`` of its items; and the numbers of ``match``, if there are categories.
    """
    cosine_IE = unit(z_IC) @ unit(codes_EC).T
    expert_I = cosine_IE.argmax(1)
    result: dict[str, Any] = {
        "codes": [
            _code(cosine_IE[:, e], expert_I == e, item_I, label_I) for e in range(len(codes_EC))
        ]
    }
    return result if label_I is None else result | match(expert_I, label_I, seed)


def match(expert_I: NDArray, label_I: NDArray, seed: int) -> dict[str, float | int]:
    """How well experts and categories agree, over the items with a known category.

    Returns:
        ``purity``, the share of items that belong to the main category of their expert; ``ami``, the
        adjusted mutual information (0 expected by chance, 1 the same partition); both for shuffled
        categories (``purity_null``, ``ami_null``, means over ``SHUFFLES``); ``items`` and ``categories``.
    """
    known_I = label_I > 0
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
    main = [np.bincount(label_I[expert_I == expert]).max() for expert in np.unique(expert_I)]
    return float(sum(main) / max(1, len(label_I)))


def _code(
    cosine_I: NDArray, owned_I: NDArray, item_I: NDArray, label_I: NDArray | None
) -> dict[str, Any]:
    order = np.argsort(-cosine_I, kind="stable")[:NEAREST]
    nearest = [
        {
            "item": int(item_I[i]),
            "cosine": float(cosine_I[i]),
            "category": None if label_I is None else int(label_I[i]),
        }
        for i in order
    ]
    code: dict[str, Any] = {"items": int(owned_I.sum()), "nearest": nearest}
    if label_I is not None:
        count_G = np.bincount(label_I[owned_I & (label_I > 0)], minlength=1)
        code["main_category"] = int(count_G.argmax()) or None
        code["main_share"] = float(count_G.max() / max(1, count_G.sum()))
    return code
