"""The tuner files: one for each model on each data set, with the paper's grid, read by FuxiCTR."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fuxictr.autotuner import enumerate_params

from engine.config import read as config
from engine.config.load import load
from engine.config.options import RunOptions

from ...support.command_line import ROOT

CONFIG = ROOT / "config"
EXPERIMENTS = {
    expid: (model, dataset_id)
    for expid, (model, dataset_id) in config.list_experiments(CONFIG).items()
    if dataset_id != "session_hopping_micro"  # for timing
}
CHECKED = "Ebnerd_small_x1"  # the data set whose grids are checked to the last experiment


def grid(model: str) -> dict[str, list[Any]]:
    """What the paper tunes (section 5.1)."""
    space: dict[str, list[Any]] = {"learning_rate": [1e-4, 5e-4, 1e-3]}
    if "_" in model:
        space["router_topk"] = [1, 2]
    if model.endswith("_MoS"):
        space["codebook_dim"] = [16, 32, 64]
    return space


def test_every_experiment_has_the_tuner_file_of_its_grid() -> None:
    files = {path.stem: config.read_yaml(path) for path in CONFIG.glob("tuner/*.yaml")}
    for expid, (model, dataset_id) in EXPERIMENTS.items():
        content = {"base_config": "./config/", "base_expid": expid, "dataset_id": dataset_id}
        assert files.pop(expid) == content | {"tuner_space": grid(model)}
    assert not files


@pytest.mark.parametrize("expid", EXPERIMENTS)
def test_fuxictr_enumerates_the_grid(
    expid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a copy, for FuxiCTR writes beside the tuner file."""
    monkeypatch.chdir(ROOT)
    file = Path(shutil.copy(f"config/tuner/{expid}.yaml", tmp_path))
    folder = enumerate_params(str(file))
    space = grid(EXPERIMENTS[expid][0])
    found = config.list_experiments(folder)
    trials = list(product(*space.values()))
    assert list(found.values()) == [EXPERIMENTS[expid]] * len(trials)
    assert all(trial.startswith(f"{expid}_0") for trial in found)
    if EXPERIMENTS[expid][1] == CHECKED:
        params = [load(trial, RunOptions(Path(folder))).params for trial in found]
        assert sorted(tuple(p[key] for key in space) for p in params) == sorted(trials)
