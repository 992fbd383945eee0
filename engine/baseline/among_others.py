"""How popular a candidate was, where no moments tell what was known by then.

Shape suffixes: B samples, N items, E the interactions that are counted.
"""

import numpy as np
from numpy.typing import NDArray

FOLDS = 5  # of users


def fold_of(user: NDArray) -> NDArray:
    """The fold of each user, from 1 to ``FOLDS``, as if drawn: numbers of users may go in steps."""
    return 1 + (user * 2654435761 >> 16) % FOLDS


class AmongOthers:
    """Popularity in the training data, for logs without times.

    A training sample counts the events of users in other folds. With its own event, which it has
    only if it was clicked, popularity would tell its label.

    Args:
        item_E: the item of each event of the training data.
        fold_E: the fold of its user, from 1 to ``FOLDS``.
        values: the value of each item, by feature.
    """

    def __init__(self, item_E: NDArray, fold_E: NDArray, values: dict[str, NDArray]) -> None:
        self._shares = {}
        for name, value_N in values.items():
            size = 1 + int(value_N.max())
            place_E = fold_E * size + value_N[item_E]
            own = np.bincount(place_E, minlength=(1 + FOLDS) * size).reshape(-1, size)
            others = own.sum(0) - own
            self._shares[name] = others / np.maximum(1, others.sum(1, keepdims=True))

    def share(self, name: str, value_B: NDArray, known_B: NDArray) -> NDArray:
        """The share of the events with a value of a feature.

        Args:
            name: of the feature.
            value_B: the value.
            known_B: the fold whose events are left out; 0 leaves none out.
        """
        return self._shares[name][known_B, value_B]
