"""Metrics equal FuxiCTR's to 1e-12, ties and single-class groups included."""

from __future__ import annotations

import numpy as np
import pytest
from fuxictr.metrics import evaluate_metrics as fuxictr_metrics
from fuxictr.metrics import gAUC as fuxictr_gauc
from sklearn.metrics import log_loss, roc_auc_score

from model_zoo.training.metrics import auc, evaluate_metrics, grouped_auc, logloss


def random_predictions(seed: int, dtype: type, ties: bool) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    n = 3000
    y_pred = rng.random(n)
    if ties:
        y_pred = np.round(y_pred, 2)
    group = rng.integers(0, 150, n) * 7  # gaps in the ids
    y_true = (rng.random(n) < 0.4).astype(np.float64)
    y_true[group == 7], y_true[group == 14] = 0, 1  # single-class groups
    return y_true, y_pred.astype(dtype), group


def reference_gauc(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray) -> float:
    parts = [fuxictr_gauc(y_true[group == g], y_pred[group == g]) for g in np.unique(group)]
    return sum(p[0] for p in parts) / sum(p[1] for p in parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_the_references(seed: int, ties: bool, dtype: type) -> None:
    y_true, y_pred, group = random_predictions(seed, dtype, ties)
    assert auc(y_true, y_pred) == pytest.approx(roc_auc_score(y_true, y_pred), abs=1e-12)
    assert logloss(y_true, y_pred) == pytest.approx(
        log_loss(y_true, y_pred.astype(np.float64)), abs=1e-12
    )
    assert grouped_auc(y_true, y_pred, group) == pytest.approx(
        reference_gauc(y_true, y_pred, group), abs=1e-12
    )


def test_equal_to_fuxictr_as_it_is_called() -> None:
    y_true, y_pred, group = random_predictions(5, np.float64, ties=True)
    metrics = ["AUC", "gAUC", "logloss", "NDCG(k=3)"]
    ours = evaluate_metrics(y_true, y_pred, metrics, group)
    theirs = fuxictr_metrics(y_true, y_pred, metrics, group)
    assert list(ours) == list(theirs)
    for metric in metrics:
        assert ours[metric] == pytest.approx(theirs[metric], abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_any_sign_and_order_of_samples(dtype: type) -> None:
    rng = np.random.default_rng(3)
    y_pred = np.r_[-0.0, 0.0, -1e-30, 1e-30, rng.normal(size=500)].astype(dtype)
    y_true = np.r_[0, 1, 1, 0, rng.integers(0, 2, 500)]
    group = rng.integers(0, 20, len(y_true))
    expected = roc_auc_score(y_true, y_pred)
    assert auc(y_true, y_pred) == pytest.approx(expected, abs=1e-12)
    order = rng.permutation(len(y_true))
    assert auc(y_true[order], y_pred[order]) == auc(y_true, y_pred)
    assert grouped_auc(y_true[order], y_pred[order], group[order]) == grouped_auc(
        y_true, y_pred, group
    )


def test_negative_and_huge_group_ids() -> None:
    y_true, y_pred, group = random_predictions(4, np.float32, ties=True)
    expected = grouped_auc(y_true, y_pred, group)
    assert grouped_auc(y_true, y_pred, group - 500) == expected
    assert grouped_auc(y_true, y_pred, group * 10**15) == expected


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, 1], [np.nan, 0.5], "1 of 2 predictions are NaN"),
        ([0, 1], [np.inf, 0.5], "NaN or infinite"),
        ([0, 2], [0.1, 0.5], "labels must be 0 or 1"),
        ([1, 1], [0.1, 0.5], "all labels are the same"),
    ],
)
def test_undefined_metrics_are_errors(y_true: list, y_pred: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_metrics(y_true, y_pred, ["AUC"])


def test_gauc_without_groups_or_with_single_class_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="group_id"):
        evaluate_metrics([0, 1], [0.1, 0.2], ["gAUC"])
    with pytest.raises(ValueError, match="no group has both labels"):
        evaluate_metrics([0, 1], [0.1, 0.2], ["gAUC"], [1, 2])
