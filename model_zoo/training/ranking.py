"""Metrics of the order of samples within groups, such as users or impressions.

Samples of equal scores have no order. So each metric is its mean over all orders of them, and the
order of rows never matters. FuxiCTR's MRR and NDCG give a tie to the row that its sort happens to put
first; without ties these here equal them to 1e-12. As in FuxiCTR, all groups count in them: a group
without a positive gives 0.

Shape suffixes: R runs, which are the samples of one group and score; G groups.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EPS = 1e-12  # as in FuxiCTR; it makes 0 of groups without a positive


class Runs(NamedTuple):
    """The runs of each group, from the lowest score to the highest.

    Attributes:
        first_G: the first run of each group.
        above_R: how many samples of the group have higher scores.
        size_R, positive_R: how many samples a run has, and how many of them have label 1.
    """

    first_G: NDArray[np.int64]
    above_R: NDArray[np.int64]
    size_R: NDArray[np.int64]
    positive_R: NDArray[np.int64]

    def mixed_G(self) -> NDArray[np.bool_]:
        """Which groups have both labels."""
        positive_G = self.per_group(self.positive_R)
        return (positive_G > 0) & (positive_G < self.per_group(self.size_R))

    def per_group(self, values_R: NDArray) -> NDArray:
        """The sum of values over the runs of each group."""
        return np.add.reduceat(values_R, self.first_G)


def runs_of(y_true: NDArray, y_pred: NDArray, group_id: NDArray) -> Runs:
    """Sort samples by group and score.

    Group, score and label are packed into one 64-bit integer key, so that one sort is enough.
    """
    code = _order_preserving_code(y_pred)
    group = group_id.astype(np.int64)
    if len(group) and (group.min() < 0 or group.max() >= 2**31):
        group = np.unique(group_id, return_inverse=True)[1]
    key = (group.astype(np.uint64) << np.uint64(33)) | (code.astype(np.uint64) << np.uint64(1))
    key |= y_true.astype(np.uint64)
    key.sort()
    start_R, start_G = _starts(key >> np.uint64(1)), _starts(key >> np.uint64(33))
    first_G = np.searchsorted(start_R, start_G)
    end_R = np.r_[start_R[1:], len(key)][: len(start_R)]
    end_G = np.r_[start_G[1:], len(key)][: len(start_G)]
    group_end_R = np.repeat(end_G, np.diff(np.r_[first_G, len(start_R)]))
    positive_R = np.add.reduceat((key & np.uint64(1)).astype(np.int64), start_R)
    return Runs(first_G, group_end_R - end_R, end_R - start_R, positive_R)


def auc_by_group(runs: Runs) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The AUC and the size of each group; AUC is NaN where all labels of a group are the same."""
    size_G, positive_G = runs.per_group(runs.size_R), runs.per_group(runs.positive_R)
    pairs_G = positive_G * (size_G - positive_G)
    # Twice the count of Mann and Whitney is an integer, so it is exact. A positive loses to all that
    # are above it, and half to those beside it. Positives do so among each other, which is taken back.
    lost_G = runs.per_group(runs.positive_R * (2 * runs.above_R + runs.size_R)) - positive_G**2
    with np.errstate(invalid="ignore"):
        return np.where(pairs_G > 0, (2 * pairs_G - lost_G) / 2 / pairs_G, np.nan), size_G


def gauc(runs: Runs) -> float:
    """The mean AUC of the groups, weighted by their numbers of samples (gAUC, as in DIN).

    Groups whose labels are all the same are left out.
    """
    (value_G, size_G), mixed_G = auc_by_group(runs), runs.mixed_G()
    return float((value_G * size_G)[mixed_G].sum() / size_G[mixed_G].sum())


def avg_auc(runs: Runs) -> float:
    """The mean AUC of the groups, all of the same weight (avgAUC, as for MIND); see ``gauc``."""
    return float(auc_by_group(runs)[0][runs.mixed_G()].mean())


def mrr(runs: Runs) -> float:
    """The mean of ``1 / rank`` over the positives of a group, then over all groups."""
    found_G = runs.per_group(_gain(runs, 1 / np.arange(1, _longest(runs) + 1)))
    return float((found_G / (runs.per_group(runs.positive_R) + EPS)).mean())


def ndcg(runs: Runs, k: int) -> float:
    """The mean over all groups of the discounted gain of the ``k`` best, as a share of the best one."""
    discount = 1 / np.log2(np.arange(min(k, _longest(runs))) + 2)
    positive_G = np.minimum(runs.per_group(runs.positive_R), len(discount))
    ideal_G = np.r_[0, discount.cumsum()][positive_G]
    return float((runs.per_group(_gain(runs, discount)) / (ideal_G + EPS)).mean())


def hit_rate(runs: Runs, k: int) -> float:
    """The share of all groups of which a positive is among the ``k`` best (HR).

    Of a run that goes beyond place ``k``, a part is drawn. The chance that it has no positive is
    hypergeometric. A group without a positive gives 0, and one without a negative 1.
    """
    drawn_R = np.clip(k - runs.above_R, 0, runs.size_R)
    negative_R, miss_R = runs.size_R - runs.positive_R, np.ones(len(drawn_R))
    for i in range(drawn_R.max(initial=0)):
        more = drawn_R > i
        miss_R[more] *= np.maximum(negative_R[more] - i, 0) / (runs.size_R[more] - i)
    return float((1 - np.multiply.reduceat(miss_R, runs.first_G)).mean())


def _longest(runs: Runs) -> int:
    """The number of samples of the largest group."""
    return int((runs.above_R + runs.size_R).max(initial=0))


def _gain(runs: Runs, discount: NDArray) -> NDArray[np.float64]:
    """What the positives of each run gain at their places; beyond the last discount it is nothing."""
    total = np.r_[0, discount.cumsum()]
    first_R = np.minimum(runs.above_R, len(discount))
    last_R = np.minimum(runs.above_R + runs.size_R, len(discount))
    return runs.positive_R / runs.size_R * (total[last_R] - total[first_R])


def _starts(values: NDArray) -> NDArray[np.int64]:
    """The indices at which runs of equal values start."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])


def _order_preserving_code(y_pred: NDArray) -> NDArray[np.uint32]:
    """Map scores to 32-bit integers of the same order; equal scores give equal integers."""
    if y_pred.dtype != np.float32:
        return np.unique(y_pred, return_inverse=True)[1].astype(np.uint32)
    bits = (y_pred + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(2**31))
