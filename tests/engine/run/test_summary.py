"""The table at the end of a command, from made-up results."""

from pathlib import Path
from typing import Any

from engine.baseline import record
from engine.run.summary import summary

PARAMS = {
    "model_root": "nowhere",
    "dataset_id": "tiny",
    "max_len": 50,
    "train_data": "data/tiny/train.parquet",
}


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
        "stage_log": [{"stage": "joint", "best": True}],
        "params": PARAMS,
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


def test_training_that_changes_nothing_is_told() -> None:
    log = [{"stage": "expert warm-up", "best": True}, {"stage": "joint", "best": False}]
    text = summary([result("TWIN", 1, 0.5), result("TWIN_MoS", 2, 0.5, stage_log=log)])
    (line,) = [line for line in text.splitlines() if "no evaluation was better" in line]
    assert line.startswith("TWIN_MoS_tiny, seed 2") and "which the joint stage started from" in line


def test_results_on_different_data_are_not_compared() -> None:
    text = summary([result("TWIN", 1, 0.5), result("TWIN_MoS", 1, 0.7, dataset_hash="two")])
    assert "paired" not in text and text.count("expid") == 2


def test_calibration_of_sampled_negatives_is_said_to_be_corrected() -> None:
    metrics = {"AUC": 0.5, "calibration": 1.25, "ECE": 1.2e-5}
    changes: dict[str, Any] = {"metrics": {"valid": metrics, "test": metrics}}
    sampled = changes | {"params": PARAMS | {"negative_sampling_rate": 1e-4}}
    text = summary([result("TWIN", seed, 0.5, **sampled) for seed in (1, 2)])
    remark = "calibration, ECE: scores are corrected for negatives sampled at the rate 0.0001"
    assert text.splitlines().count(remark) == 1
    row = next(line for line in text.splitlines() if "mean of 2" in line)
    assert "1.2500 ± 0.0000" in row and "1.2e-05 ± 0" in row
    assert "corrected" not in summary([result("TWIN", 1, 0.5, **changes)])


def test_the_counting_baseline_stands_beside_and_losers_are_told(tmp_path: Path) -> None:
    found = {split: {"AUC": 0.75, "gAUC": 0.7, "logloss": 0.4} for split in ("valid", "test")}
    better = {split: {"AUC": 0.8125} for split in ("valid", "test")}
    entry = {"metrics": {record.ALL: found, record.TIMES: better}}
    record.add(tmp_path / "tiny", "one", 50, entry)
    params = PARAMS | {"model_root": str(tmp_path)}
    runs = [
        result("TWIN", 1, 0.5, params=params),
        result("TWIN", 2, 0.625, params=params),
        result("SDIM", 1, 0.76, params=params),
    ]
    lines = summary(runs).splitlines()
    rows = [line.split() for line in lines if line.startswith("counting baseline")]
    assert rows[0] == ["counting", "baseline", "0.7500", "0.4000", "0.7500"]
    assert rows[1] == ["counting", "baseline", "with", "times", "0.8125", "0.8125"]
    assert lines[-1].startswith("TWIN_tiny loses") and "0.5625 against 0.7500" in lines[-1]
    assert sum("loses" in line for line in lines) == 1
    longer = [result("TWIN", 1, 0.9, params=params | {"max_len": 100})]
    assert "counting baseline" not in summary(longer)  # another length is another baseline


def test_a_gauc_of_impressions_stands_beside_none_of_users(tmp_path: Path) -> None:
    values = {split: {"AUC": 0.75, "gAUC": 0.7} for split in ("valid", "test")}
    record.add(tmp_path / "tiny", "one", 50, {"metrics": {record.ALL: values}})
    shown = {}
    for group in ("user_index", "group_index"):
        params = PARAMS | {"model_root": str(tmp_path), "group_id": group}
        text = summary([result("TWIN", 1, 0.8, params=params, metrics=values)])
        assert "best possible AUC" in text and "counting baseline  " in text
        shown[group] = "best possible gAUC" in text, text.count("0.7000")
    assert shown == {"user_index": (True, 2), "group_index": (False, 1)}


def test_the_command_of_a_missing_baseline_is_shown_for_prepared_data(tmp_path: Path) -> None:
    params = PARAMS | {"train_data": str(tmp_path / "train.parquet"), "model_root": "here"}
    assert "engine.baseline" not in summary([result("TWIN", 1, 0.5, params=params)])
    (tmp_path / "dataset_card.json").write_text("{}")
    last = summary([result("TWIN", 1, 0.5, params=params)]).splitlines()[-1]
    assert last.endswith("--max-len 50 --model-root here") and tmp_path.name in last
    assert "was not measured for max_len 50: python" in last


def test_a_baseline_of_another_length_is_told_to_be_one(tmp_path: Path) -> None:
    found = {split: {"AUC": 0.75} for split in ("valid", "test")}
    for max_len in (200, 20):
        record.add(tmp_path / "tiny", "one", max_len, {"metrics": {record.ALL: found}})
    (tmp_path / "dataset_card.json").write_text("{}")
    data = {"train_data": str(tmp_path / "train.parquet"), "model_root": str(tmp_path)}
    last = summary([result("TWIN", 1, 0.5, params=PARAMS | data)]).splitlines()[-1]
    assert "was not measured for max_len 50, but for 20, 200: python" in last


def test_sampled_negatives_are_named_above_the_table() -> None:
    drawn = {"per_positive": 4, "from": "time"}
    text = summary([result("TWIN", 1, 0.5, negatives=drawn), result("SDIM", 1, 0.5)])
    assert text.startswith("on sampled negatives (4, time)") and text.count("sampled") == 1
    assert "sampled" not in summary([result("TWIN", 1, 0.5, negatives=None)])
