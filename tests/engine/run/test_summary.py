"""The table at the end of a command, from made-up results."""

from __future__ import annotations

from typing import Any

from engine.run.summary import summary


def result(model: str, seed: int, auc: float, **changes: Any) -> dict[str, Any]:
    metrics = {"AUC": auc, "logloss": 0.5}
    return {
        "expid": f"{model}_tiny",
        "model": model,
        "seed": seed,
        "dataset_hash": "one",
        "metrics": {"valid": metrics, "test": metrics},
        "num_parameters": 10,
        "train_samples_per_s": 100.0,
        "seconds": {"total": 1.0},
        "bayes": {"AUC": 0.9, "gAUC": 0.9},
        "routing": {},
        "params": {},
    } | changes


def test_a_mixture_is_paired_with_its_own_backbone() -> None:
    runs = [result("MIRRN", 1, 0.5), result("TWIN_MoS", 1, 0.75), result("TWIN", 1, 0.5625)]
    text = summary([*runs, result("SDIM_MoS", 1, 0.625)])
    pairs = [line.split()[:5] for line in text.splitlines() if " paired " in line]
    assert pairs == [
        ["TWIN_MoS_tiny", "-", "TWIN_tiny", "paired", "+0.1875"],
        ["TWIN_tiny", "-", "MIRRN_tiny", "paired", "+0.0625"],
        ["SDIM_MoS_tiny", "-", "MIRRN_tiny", "paired", "+0.1250"],  # its backbone did not run
    ]


def test_only_metrics_that_were_asked_for_have_a_best_value() -> None:
    text = summary([result("TWIN", 1, 0.5)])
    assert "best possible AUC" in text and "best possible gAUC" not in text


def test_results_on_different_data_are_not_compared() -> None:
    text = summary([result("TWIN", 1, 0.5), result("TWIN_MoS", 1, 0.7, dataset_hash="two")])
    assert "paired" not in text and text.count("expid") == 2


def test_calibration_of_sampled_negatives_is_said_to_be_corrected() -> None:
    metrics = {"AUC": 0.5, "calibration": 1.25, "ECE": 1.2e-5}
    changes: dict[str, Any] = {"metrics": {"valid": metrics, "test": metrics}}
    sampled = changes | {"params": {"negative_sampling_rate": 1e-4}}
    text = summary([result("TWIN", seed, 0.5, **sampled) for seed in (1, 2)])
    remark = "calibration, ECE: scores are corrected for negatives sampled at the rate 0.0001"
    assert text.splitlines().count(remark) == 1
    row = next(line for line in text.splitlines() if "mean of 2" in line)
    assert "1.2500 ± 0.0000" in row and "1.2e-05 ± 0" in row
    assert "corrected" not in summary([result("TWIN", 1, 0.5, **changes)])
