"""Metrics equal FuxiCTR's to 1e-12, single-class groups included; calibration is counted."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from fuxictr.metrics import evaluate_metrics as fuxictr_metrics
from fuxictr.metrics import gAUC as fuxictr_gauc
from sklearn.metrics import log_loss, roc_auc_score

from model_zoo.training.metrics import auc, evaluate_metrics, logloss

from ...support.helpers import build_model, loader, tiny_params


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


def grouped_auc(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray) -> float:
    return evaluate_metrics(y_true, y_pred, ["gAUC"], group)["gAUC"]


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
    y_true, y_pred, group = random_predictions(5, np.float64, ties=False)
    metrics = ["AUC", "gAUC", "avgAUC", "logloss", "MRR", "NDCG(k=3)", "NDCG(k=100)"]
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


def calibration_by_hand(y_true: list, y_pred: list, rate: float) -> dict[str, float]:
    """Every sample in turn, in float64; a bin holds the samples of equal rank."""
    p = [q / (q + (1 - q) / rate) for q in map(float, y_pred)]
    weight = [1.0 if y else 1 / rate for y in y_true]
    bins: dict[int, list[int]] = {}
    for i, q in enumerate(p):
        bins.setdefault(sum(other < q for other in p) * 20 // len(p), []).append(i)
    error = 0.0
    for rows in bins.values():
        inside = sum(weight[i] for i in rows)
        mean_p = sum(p[i] * weight[i] for i in rows) / inside
        mean_y = sum(y_true[i] * weight[i] for i in rows) / inside
        error += inside / sum(weight) * abs(mean_p - mean_y)
    clicks = sum(y * w for y, w in zip(y_true, weight, strict=True))
    predicted = sum(q * w for q, w in zip(p, weight, strict=True))
    return {"calibration": predicted / clicks, "ECE": error}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [1.0, 0.3, 1.2e-5])
@pytest.mark.parametrize("n", [1, 7, 900])
def test_calibration_against_a_plain_loop(n: int, rate: float, dtype: type) -> None:
    rng = np.random.default_rng(n)
    y_true = np.r_[1, rng.integers(0, 2, n - 1)]
    y_pred = np.round(rng.random(n), 2).astype(dtype)  # with ties
    expected = calibration_by_hand(y_true.tolist(), y_pred.tolist(), rate)
    found = evaluate_metrics(y_true, y_pred, ["calibration", "ECE"], negative_rate=rate)
    assert found == pytest.approx(expected, rel=1e-9)
    order = rng.permutation(n)
    again = evaluate_metrics(y_true[order], y_pred[order], [*found], negative_rate=rate)
    assert again == pytest.approx(found, rel=1e-9)


def test_sampling_negatives_moves_neither_calibration_nor_ece() -> None:
    """Right scores of all samples, and of a part of the negatives after training on that part."""
    rng = np.random.default_rng(0)
    p = rng.beta(1, 30, 500_000)
    y_true = (rng.random(len(p)) < p).astype(int)
    rate = 0.05
    kept = (y_true == 1) | (rng.random(len(p)) < rate)
    among_kept = (p / (p + (1 - p) * rate))[kept]
    names = ["calibration", "ECE"]
    every = evaluate_metrics(y_true, p, names)
    some = evaluate_metrics(y_true[kept], among_kept, names, negative_rate=rate)
    blind = evaluate_metrics(y_true[kept], 2 * p[kept], names, negative_rate=rate)
    assert every["calibration"] == pytest.approx(1, abs=0.02) and every["ECE"] < 1e-3
    assert some["calibration"] == pytest.approx(1, abs=0.03) and some["ECE"] < 2e-3
    assert blind["calibration"] < 0.2 and blind["ECE"] > 0.02


def test_a_model_corrects_and_says_so(tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["AUC", "calibration"]
    params = tiny_params(
        tiny_data, "SDIM", metrics=names, monitor="AUC", negative_sampling_rate=0.01
    )
    caplog.set_level(logging.INFO)
    model = build_model(params)
    found = model.evaluate(loader(params, "valid"))
    with torch.no_grad():
        scores = torch.cat([model(batch)["y_pred"] for batch in loader(params, "valid")]).flatten()
    y_true = np.concatenate([batch[0]["is_click"].numpy() for batch in loader(params, "valid")])
    expected = calibration_by_hand(y_true.tolist(), scores.tolist(), 0.01)["calibration"]
    assert found["calibration"] == pytest.approx(expected, rel=1e-6)
    said = next(line for line in caplog.messages if line.startswith("[Metrics] AUC: "))
    assert f" - calibration: {found['calibration']:.6f} (calibration: scores are corrected" in said
    assert said.endswith("for negatives sampled at the rate 0.01)")
    build_model(params | {"negative_sampling_rate": 1.0}).evaluate(loader(params, "valid"))
    assert "corrected" not in caplog.messages[-1]


def test_scores_of_0_and_1_stay_finite() -> None:
    found = evaluate_metrics([1, 0], [1.0, 0.0], ["calibration", "ECE"], negative_rate=1e-6)
    assert found == {"calibration": 1.0, "ECE": 0.0}


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, 1], [np.nan, 0.5], "1 of 2 predictions are NaN"),
        ([0, 1], [np.inf, 0.5], "NaN or infinite"),
        ([0, 2], [0.1, 0.5], "labels must be 0 or 1"),
        ([1, 1], [0.1, 0.5], "all labels are the same"),
        ([], [], "all labels are the same"),
    ],
)
def test_undefined_metrics_are_errors(y_true: list, y_pred: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_metrics(y_true, y_pred, ["AUC"])


def test_an_undefined_metric_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    names, groups = ["AUC", "calibration", "gAUC", "logloss"], [1, 1]
    found = evaluate_metrics([0, 0], [0.1, 0.2], names, groups, skip_undefined=True)
    assert found.keys() == {"logloss"}
    assert [r.message.split(" is undefined")[0] for r in caplog.records] == names[:-1]
    with pytest.raises(ValueError, match="NaN"):
        evaluate_metrics([0, 0], [np.nan, 0.2], names, groups, skip_undefined=True)


def test_calibration_without_a_positive_is_an_error() -> None:
    with pytest.raises(ValueError, match="calibration is undefined: no label is 1"):
        evaluate_metrics([0, 0], [0.1, 0.2], ["calibration"])
    assert evaluate_metrics([0, 0], [0.1, 0.2], ["ECE"])["ECE"] == pytest.approx(0.15)


def test_gauc_without_groups_or_with_single_class_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="group_id"):
        evaluate_metrics([0, 1], [0.1, 0.2], ["gAUC"])
    with pytest.raises(ValueError, match="no group has both labels"):
        evaluate_metrics([0, 1], [0.1, 0.2], ["gAUC"], [1, 2])
