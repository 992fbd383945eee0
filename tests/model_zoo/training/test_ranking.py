"""Metrics within groups: ties count as in all orders on average, and the order of rows is nothing."""

import math
from itertools import groupby, permutations

import numpy as np
import pytest
from fuxictr.metrics import MRR, NDCG

from model_zoo.training.metrics import evaluate_metrics

METRICS = ["MRR", "NDCG(k=1)", "NDCG(k=3)", "HR(k=1)", "HR(k=2)", "HR(k=3)", "HR(k=50)"]


def value(name: str, labels: list[int]) -> float:
    """A metric of the labels of one group, best first."""
    if name.startswith("HR"):
        return float(any(labels[: int(name[5:-1])]))
    score = np.arange(len(labels), 0, -1.0)
    of_fuxictr = MRR if name == "MRR" else NDCG(int(name[7:-1]))
    return float(of_fuxictr(np.array(labels), score))


def over_all_orders(name: str, rows: list[tuple[int, float]]) -> float:
    """The mean of a metric over all orders of one group in which no row stands below a lower score."""
    runs = groupby(sorted(rows, key=lambda row: -row[1]), key=lambda row: row[1])
    orders = [[]]
    for _, run in runs:
        tied = [label for label, _ in run]
        orders = [[*before, *after] for before in orders for after in permutations(tied)]
    return math.fsum(value(name, order) for order in orders) / len(orders)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scores", [1, 2, 3, 9])
def test_ties_count_as_in_all_orders_on_average(scores: int, dtype: type) -> None:
    rng = np.random.default_rng(scores)
    group = np.sort(rng.integers(0, 40, 160)) * 3
    y_pred = rng.integers(0, scores, len(group)).astype(dtype) / 10
    y_true = (rng.random(len(group)) < 0.3).astype(int)
    y_true[group == 3], y_true[group == 6] = 0, 1
    kept = np.concatenate([np.flatnonzero(group == g)[:5] for g in np.unique(group)])
    y_true, y_pred, group = y_true[kept], y_pred[kept], group[kept]
    found = evaluate_metrics(y_true, y_pred, METRICS, group)
    for name in METRICS:
        expected = [
            over_all_orders(
                name, list(zip(y_true[own].tolist(), y_pred[own].tolist(), strict=True))
            )
            for own in (group == g for g in np.unique(group))
        ]
        assert found[name] == pytest.approx(np.mean(expected), abs=1e-11), name
    order = rng.permutation(len(group))
    assert evaluate_metrics(y_true[order], y_pred[order], METRICS, group[order]) == found


def test_equal_scores_are_chance() -> None:
    """One positive and four negatives that a model cannot tell apart."""
    y_true, group = np.tile([1, 0, 0, 0, 0], 7), np.repeat(np.arange(7), 5)
    found = evaluate_metrics(y_true, np.zeros(35), ["HR(k=1)", "HR(k=2)", "HR(k=9)", "MRR"], group)
    mean = sum(1 / rank for rank in range(1, 6)) / 5
    assert [*found.values()] == pytest.approx([0.2, 0.4, 1, mean], abs=1e-12)
    assert found["HR(k=9)"] == 1


def test_all_groups_count_in_a_hit_rate() -> None:
    """As in FuxiCTR's MRR and NDCG: 0 without a positive, 1 without a negative."""
    found = evaluate_metrics(
        [0, 0, 1, 0, 1], [0.1, 0.2, 0.9, 0.1, 0.5], ["HR(k=1)"], [1, 1, 2, 2, 3]
    )
    assert found["HR(k=1)"] == pytest.approx(2 / 3)


def test_average_auc_leaves_groups_of_one_label_out() -> None:
    found = evaluate_metrics(
        [1, 0, 1, 1, 0], [0.9, 0.1, 0.5, 0.1, 0.3], ["avgAUC"], [1, 1, 2, 2, 2]
    )
    assert found["avgAUC"] == pytest.approx(0.75)
    with pytest.raises(ValueError, match="avgAUC is undefined: no group has both labels"):
        evaluate_metrics([1, 0], [0.9, 0.1], ["avgAUC"], [1, 2])


@pytest.mark.parametrize("metric", ["HR", "recall", "HR(k=0)", "NDCG(k=x)"])
def test_what_is_no_metric(metric: str) -> None:
    with pytest.raises(ValueError, match="is not a metric"):
        evaluate_metrics([1, 0], [0.9, 0.1], [metric], [1, 1])
