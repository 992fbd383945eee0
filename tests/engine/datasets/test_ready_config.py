"""The configuration that is written with a data set follows from the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.read import list_experiments, read_yaml
from engine.datasets import ready_config
from model_zoo.registry import model_names

NEGATIVES = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.00012}


def written(data: Path, folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """The checked parameters of every experiment for the tiny data, whose card is changed."""
    shutil.copytree(data, folder / "mine")
    card = folder / "mine" / "dataset_card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    ready_config.write(folder / "mine", folder / "mine")
    options = RunOptions(folder / "mine" / "config")
    return {model: load(f"{model}_mine", options).params for model in model_names()}


@pytest.mark.parametrize("negatives", [{}, {"negatives": NEGATIVES}])
def test_the_start_of_every_model_follows_from_the_negatives(
    tiny_data: Path, tmp_path: Path, negatives: dict
) -> None:
    for params in written(tiny_data, tmp_path, **negatives).values():
        start = (params["embedding_initializer"], params["embedding_regularizer"])
        assert params.get("negative_sampling_rate") == (0.00012 if negatives else None)
        if negatives:
            assert start == ("partial(nn.init.normal_, std=0.25)", 0)
        else:
            assert start == ("partial(nn.init.normal_, std=1e-4)", 1e-5)


def test_a_key_that_all_models_share_is_written_once(tiny_data: Path, tmp_path: Path) -> None:
    written(tiny_data, tmp_path, negatives=NEGATIVES)
    config = tmp_path / "mine" / "config"
    assert len(list_experiments(config)) == 23
    base, *experiments = read_yaml(config / "model_config.yaml").values()
    assert base["embedding_regularizer"] == 0
    assert not any("embedding_regularizer" in experiment for experiment in experiments)
