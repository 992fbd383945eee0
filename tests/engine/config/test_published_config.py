"""The published configuration: every experiment is complete and right, and lengths merge."""

import copy
import random
import re
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import fuxictr.utils
import pytest
import yaml
from fuxictr.utils import load_config

from engine.common.errors import UserError
from engine.config import expids
from engine.config import read as config
from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.validate import check
from model_zoo import get_model
from model_zoo.registry import model_names

from ...support.command_line import ROOT, run_here

CONFIG = ROOT / "config"
EXPERIMENTS = config.list_experiments(CONFIG)
LENGTHS = (50, 100, 200, 500, 1000)
BENCHMARK = "session_hopping_micro"  # for timing two models


@pytest.fixture(autouse=True)
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """FuxiCTR parses the files anew for each experiment, which takes half a second."""

    def load(file: TextIO, Loader: type[yaml.FullLoader]) -> dict:
        return copy.deepcopy(parsed(file.read()))

    monkeypatch.setattr(fuxictr.utils, "yaml", SimpleNamespace(load=load, FullLoader=None))


@cache
def parsed(text: str) -> dict:
    return yaml.load(text, Loader=yaml.FullLoader)


def test_every_model_runs_on_every_data_set() -> None:
    models, datasets = (set(names) for names in zip(*EXPERIMENTS.values(), strict=True))
    assert datasets == set(config.read_yaml(CONFIG / "dataset_config.yaml"))
    expected = {(model, dataset) for model in models for dataset in datasets - {BENCHMARK}}
    assert expected <= set(EXPERIMENTS.values()) and len(models) == len(model_names())


@pytest.mark.parametrize("expid", EXPERIMENTS)
def test_every_experiment_is_read_as_fuxictr_does_and_passes_the_check(expid: str) -> None:
    params = config.load_experiment(CONFIG, expid)
    assert params == load_config(str(CONFIG), expid)
    check(params, get_model(EXPERIMENTS[expid][0]))


def test_the_file_is_what_the_command_writes() -> None:
    text = (CONFIG / "model_config.yaml").read_text()
    assert expids.with_expids(text) == text, "run python -m engine.config.expids"


def test_a_model_and_a_data_set_get_their_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets are merged where there are some; a preset that lacks a data set is no data set."""
    presets = """
.datasets:
    shared: &shared {epochs: 1}
    mine: &mine {<<: *shared, dataset_id: Mine_x1}
.mixtures:
    mos: &mos {num_experts: 3}
"""
    monkeypatch.setattr(expids, "model_names", lambda: ["MeanPool", "MeanPool_MoS"])
    found = yaml.safe_load(expids.with_expids(presets + expids.MARK + "old: lines"))
    assert {key: entry for key, entry in found.items() if key[0] != "."} == {
        "MeanPool_Mine_x1": {"model": "MeanPool", "epochs": 1, "dataset_id": "Mine_x1"},
        "MeanPool_MoS_Mine_x1": {
            "model": "MeanPool_MoS", "epochs": 1, "dataset_id": "Mine_x1", "num_experts": 3,
        },
    }  # fmt: skip
    with pytest.raises(UserError, match="has no line"):
        expids.with_expids(presets)
    missing = run_here(expids.main, "--config", "nowhere")
    assert missing.code == 2 and "--config nowhere: has no model_config.yaml" in missing.stderr


def test_a_configuration_that_was_changed_in_memory_or_on_disk_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "model_config.yaml"
    file.write_text("a: {list: [1, 2]}")
    config.read_yaml(file)["a"]["list"].append(3)
    assert config.read_yaml(file) == {"a": {"list": [1, 2]}}
    file.write_text("a: {list: []}")
    assert config.read_yaml(file) == {"a": {"list": []}}


def test_relative_paths_start_at_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = load("TWIN_session_hopping_tiny", RunOptions(CONFIG)).params
    assert Path(params["train_data"]) == ROOT / "data" / "session_hopping_tiny" / "train.parquet"
    assert Path(params["model_root"]) == ROOT / "checkpoints"


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_merged_first_changes_max_len_alone(length: int, tmp_path: Path) -> None:
    text = (CONFIG / "model_config.yaml").read_text()
    before = config.read_yaml(CONFIG / "model_config.yaml")
    text = re.sub(r"^(\w.*<<: )\[", rf"\1[*len{length}, ", text, flags=re.M)
    text = re.sub(r"^(\w.*<<: )(\*\w+)", rf"\1[*len{length}, \2]", text, flags=re.M)
    (tmp_path / "model_config.yaml").write_text(text)
    shutil.copy(CONFIG / "dataset_config.yaml", tmp_path)
    after = config.read_yaml(tmp_path / "model_config.yaml")
    for expid in EXPERIMENTS:
        assert after[expid] == before[expid] | {"max_len": length}
    for expid in random.Random(length).sample(list(EXPERIMENTS), 5):
        params = load_config(str(tmp_path), expid)
        assert params == config.load_experiment(tmp_path, expid)
        assert params == load_config(str(CONFIG), expid) | {"max_len": length}
