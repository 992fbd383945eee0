"""What loading an experiment adds: the rate of sampled negatives, and the mode of the monitor."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import UserError
from engine.config.load import checked, load
from engine.config.options import RunOptions
from engine.config.read import load_experiment

from ...support.command_line import Workspace


def test_the_rate_of_negatives_comes_from_the_card_unless_the_configuration_has_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    space = Workspace(tmp_path, tiny_data)
    options = RunOptions(space.config)
    assert "negative_sampling_rate" not in load("TWIN_tiny", options).params
    card = space.data / "dataset_card.json"
    negatives = {"per_positive": 4, "from": "time", "rate": 0.002}
    card.write_text(json.dumps(json.loads(card.read_text()) | {"negatives": negatives}))
    assert load("TWIN_tiny", options).params["negative_sampling_rate"] == 0.002
    space.change_model("TWIN_tiny", negative_sampling_rate=0.5)
    assert load("TWIN_tiny", options).params["negative_sampling_rate"] == 0.5


@pytest.mark.parametrize(
    ("monitor", "right"),
    [
        ("AUC", "max"),
        ("logloss", "min"),
        ({"AUC": 1, "logloss": -0.5}, "max"),
        ({"AUC": -1, "logloss": 2, "gAUC": 0}, "min"),
    ],
    ids=str,
)
def test_the_mode_of_the_monitor_comes_from_its_metrics(
    monitor: Any, right: str, tiny_data: Path, tmp_path: Path
) -> None:
    space, options = Workspace(tmp_path, tiny_data), RunOptions(tmp_path / "experiments")
    space.change_model("TWIN_tiny", monitor=monitor)
    assert load("TWIN_tiny", options).params["monitor_mode"] == right
    space.change_model("TWIN_tiny", monitor_mode=right)
    assert load("TWIN_tiny", options).params["monitor_mode"] == right
    wrong = "min" if right == "max" else "max"
    space.change_model("TWIN_tiny", monitor_mode=wrong)
    with pytest.raises(UserError, match=f"mode {wrong} would keep .*; leave monitor_mode out"):
        load("TWIN_tiny", options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net_regularizer": "l2(1e)"}, r"net_regularizer: is 'l2\(1e\)'; write a number, l1\(x\)"),
        ({"net_regularizer": "l1_l2(1e-3, 1.2.3)"}, "net_regularizer: is 'l1_l2"),
        ({"dataset_id": "../tiny"}, "dataset_id: is '../tiny'; write a name without slashes"),
        ({"dataset_id": ".."}, "dataset_id: is '..'; write a name without slashes"),
        ({"model_id": r"TWIN\tiny"}, "model_id: is .*; write a name without slashes"),
    ],
    ids=str,
)
def test_a_text_that_would_be_code_or_another_folder_is_refused(
    changes: dict[str, Any], message: str, tiny_data: Path, tmp_path: Path
) -> None:
    space = Workspace(tmp_path, tiny_data)
    params = load_experiment(space.config, "TWIN_tiny") | {"net_regularizer": "l1_l2(.5, 1.e-3)"}
    options = RunOptions(space.config)
    assert checked(params, options).params["net_regularizer"] == "l1_l2(.5, 1.e-3)"
    with pytest.raises(UserError, match=message):
        checked(params | changes, options)
