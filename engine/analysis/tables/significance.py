"""Statistics over seeds: mean and spread, paired comparison, correction for many tests, ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of intervals
SIGNIFICANT = 0.05  # a best or second best is marked if its corrected p is below this


class Comparison(NamedTuple):
    """By how much one model is better than another on the same seeds, in the unit of the metric.

    Attributes:
        gain: mean difference over the pairs; positive if the first model is larger.
        low: lower end of the 95 % t-interval of the gain; None with one pair.
        high: upper end.
        p: two-sided p value of the paired t-test; None with one pair.
        pairs: number of seeds that both have.
    """

    gain: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def paired(values: dict[int, float], reference: dict[int, float]) -> Comparison | None:
    """Compare two models on the seeds that both have; None if there is no such seed.

    The t-test is undefined where all differences are equal. Then the interval is that one value, and
    p is 1 if it is zero, else 0.

    Args:
        values: a metric of the one model by seed.
        reference: the same metric of the other.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    ours = np.array([values[seed] for seed in seeds], np.float64)
    theirs = np.array([reference[seed] for seed in seeds], np.float64)
    difference = ours - theirs
    mean = float(difference.mean())
    if len(seeds) == 1:
        return Comparison(mean, None, None, None, 1)
    # 0.72 - 0.71 and 0.71 - 0.70 differ in the last bits: equal means equal up to rounding.
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(ours).max(), np.abs(theirs).max())
    if np.ptp(difference) <= rounding:
        return Comparison(mean, mean, mean, float(abs(mean) <= rounding), len(seeds))
    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(CONFIDENCE)
    return Comparison(mean, float(low), float(high), float(test.pvalue), len(seeds))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction for a family of tests.

    Args:
        p_values: p of each test, in any order. None stands for no test and does not count.

    Returns:
        the corrected values in the same order; None stays None.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    tests = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for done, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - done) * p))
        corrected[i] = largest
    return corrected


def mean_std(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); the deviation of a single value is None."""
    array = np.array(list(values), np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def ranks(values: list[float]) -> list[int]:
    """Competition ranking, 1 is the largest; ties share the smallest rank, as in the paper."""
    return [int(rank) for rank in stats.rankdata(-np.array(values, np.float64), method="min")]
