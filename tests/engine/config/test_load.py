"""What loading an experiment adds: the rate of sampled negatives, and the mode of the monitor."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import UserError
from engine.config.load import load
from engine.config.options import RunOptions

from ...support.command_line import Workspace


def test_the_rate_of_negatives_comes_from_the_card_unless_the_configuration_has_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    space = Workspace(tmp_path, tiny_data)
    options = RunOptions(space.config)
    assert "negative_sampling_rate" not in load("TWIN_tiny", options).params
    card = space.data / "dataset_card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"negatives": {"rate": 0.002}}))
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
