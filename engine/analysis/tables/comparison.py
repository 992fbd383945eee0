"""Which of several models is better, by how much, and how sure that is: the numbers of the tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of intervals
SIGNIFICANT = 0.05  # a best or second best is marked if its corrected p is below this
Values = Mapping[str, dict[int, float]]  # a metric by model and seed


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


@dataclass(frozen=True)
class Group:
    """Models that are ranked among each other.

    Attributes:
        names: all of them.
        references: the names that the others are compared with; the best by mean is taken.
    """

    names: tuple[str, ...]
    references: tuple[str, ...]


class Standing(NamedTuple):
    """One model on one data set and metric, as fractions; by default of a model without a run.

    Attributes:
        mean: over its seeds.
        std: over its seeds; None with one.
        n: number of its seeds.
        reference: the model that it is compared with; empty without one.
        gain: over the reference, on the seeds that both have; None without one.
        low: lower end of the interval of the gain, as in ``Comparison``.
        high: upper end.
        p: p value of the gain, Holm-corrected over all gains that were computed together.
        rank: in its group, by mean; 1 is best. None unless all of the group have equally many seeds:
            a rank among the models that happen to be there says nothing.
        mark: ``best``, ``second`` or empty.
    """

    mean: float | None = None
    std: float | None = None
    n: int = 0
    reference: str = ""
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    rank: int | None = None
    mark: str = ""


def compare(groups: list[Group], values: Values) -> dict[str, Standing]:
    """The standing of every model that has values.

    The p values of the gains are one family of tests, and the p values of the marks another.

    Args:
        groups: each model is in one of them.
        values: a metric on one data set, by model and seed; models without a seed are missing.
    """
    spread = {name: mean_std(by_seed.values()) for name, by_seed in values.items()}
    means = {name: mean for name, (mean, _) in spread.items()}
    present = [[name for name in group.names if name in values] for group in groups]
    rank: dict[str, int] = {}
    reference: dict[str, str] = {}
    for group, names in zip(groups, present, strict=True):
        if len({len(values.get(name, ())) for name in group.names}) == 1:
            rank |= zip(names, ranks([means[name] for name in names]), strict=True)
        candidates = [name for name in group.references if name in values]
        if candidates:
            best = max(candidates, key=means.__getitem__)
            reference |= {name: best for name in names if name not in group.references}
    gains = paired_gains({name: (name, other) for name, other in reference.items()}, values)
    marks = _marks(present, means, values)
    standings = {}
    for name, by_seed in values.items():
        gain, low, high, p, _ = gains.get(name, (None,) * 5)
        standings[name] = Standing(
            *spread[name], len(by_seed), reference.get(name, ""), gain, low, high, p,
            rank.get(name), marks.get(name, ""),
        )  # fmt: skip
    return standings


def _marks(groups: list[list[str]], means: dict[str, float], values: Values) -> dict[str, str]:
    """Models that are significantly better than the next by mean, as ``best`` or ``second``."""
    marks: dict[str, str] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for names in groups:
        order = sorted(names, key=means.__getitem__, reverse=True)
        for mark, (better, worse) in zip(("best", "second"), pairwise(order), strict=False):
            marks[better], pairs[better] = mark, (better, worse)
    return {
        name: marks[name]
        for name, gain in paired_gains(pairs, values).items()
        # Over the common seeds alone the order may be the other way round.
        if gain.p is not None and gain.p < SIGNIFICANT and gain.gain > 0
    }


def paired_gains(pairs: Mapping[str, tuple[str, str]], values: Values) -> dict[str, Comparison]:
    """The gain of the first model of each pair over the second; p is Holm-corrected over all pairs.

    Args:
        pairs: two models, by any name.
        values: a metric by model and seed.

    Returns:
        the gains by name; pairs without a common seed are missing.
    """
    known = {n: paired(values.get(a, {}), values.get(b, {})) for n, (a, b) in pairs.items()}
    found = {name: gain for name, gain in known.items() if gain}
    corrected = holm([gain.p for gain in found.values()])
    return {n: g._replace(p=p) for (n, g), p in zip(found.items(), corrected, strict=True)}
