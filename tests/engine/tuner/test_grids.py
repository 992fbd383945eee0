"""The grids: one file for each family, which FuxiCTR reads and which fits every experiment."""

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuxictr.autotuner import enumerate_params

from engine.common.errors import UserError
from engine.config import read as config
from engine.config.options import RunOptions
from engine.tuner.space import read_space

from ...support.command_line import ROOT, Workspace

CONFIG = ROOT / "config"
GRIDS = sorted(CONFIG.glob("tuner/*.yaml"))
EXPERIMENTS = config.list_experiments(CONFIG)
OPTIONS = RunOptions()


def paper_grid(model: str) -> dict[str, list[Any]]:
    """What the paper tunes (section 5.1), and the start of the embeddings."""
    starts = [f"partial(nn.init.normal_, std={std})" for std in ("1e-4", "0.25")]
    space: dict[str, list[Any]] = {"learning_rate": [1e-4, 5e-4, 1e-3]}
    space["embedding_initializer"] = starts
    if "_" in model:
        space["router_topk"] = [1, 2]
    if model.endswith("_MoS"):
        space["codebook_dim"] = [16, 32, 64]
    return space


def test_every_experiment_has_the_papers_grid_and_the_start() -> None:
    for expid, (model, dataset_id) in EXPERIMENTS.items():
        space = read_space(CONFIG, OPTIONS, expid)
        assert space.expid == expid and space.model["dataset_id"] == dataset_id
        assert space.choices == paper_grid(model)


def test_the_file_of_an_earlier_version_stands_for_its_experiment() -> None:
    old = read_space(CONFIG / "tuner" / "TWIN_MoS_MicroVideo1.7M_x2.yaml", OPTIONS)
    assert old == read_space(CONFIG, OPTIONS, "TWIN_MoS_MicroVideo1.7M_x2")
    with pytest.raises(UserError, match=r"--expid TWIN_Mos_movielens_1m: .* did you mean"):
        read_space(CONFIG / "tuner" / "TWIN_Mos_movielens_1m.yaml", OPTIONS)
    with pytest.raises(
        UserError, match="config: this is a configuration directory; write --expid too"
    ):
        read_space(CONFIG, OPTIONS)


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_fuxictr_enumerates_the_grid(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a copy, for FuxiCTR writes beside the tuner file."""
    monkeypatch.chdir(ROOT)
    folder = enumerate_params(str(shutil.copy(file, tmp_path)))
    space = read_space(file, OPTIONS)
    assert space.expid in EXPERIMENTS and space == read_space(CONFIG, OPTIONS, space.expid)
    trials = [config.model_part(folder, expid) for expid in config.list_experiments(folder)]
    found = [tuple(trial[key] for key in space.choices) for trial in trials]
    assert sorted(found) == sorted(product(*space.choices.values()))
    assert {trial["model"] for trial in trials} == {space.model["model"]}


def test_a_configuration_folder_may_have_grids_of_its_own(tmp_path: Path, tiny_data: Path) -> None:
    space = Workspace(tmp_path, tiny_data)
    for expid in ("TWIN_tiny", "TWIN_MoS_tiny"):
        model = space.models[expid]["model"]
        assert read_space(space.config, OPTIONS, expid).choices == paper_grid(model)
    folder = space.config / "tuner"
    folder.mkdir()
    for name, topk in (("default", 1), ("MoS", 2), ("TWIN_MoS", 3), ("TWIN_MoS_tiny", 4)):
        content = {"base_expid": "TWIN_tiny", "tuner_space": {"topk": [topk]}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        found = read_space(space.config, OPTIONS, "TWIN_MoS_tiny")
        assert found.choices == {"topk": [topk]}
    assert read_space(space.config, OPTIONS, "TWIN_tiny").choices == {"topk": [1]}


def test_a_grid_runs_on_another_experiment_of_its_configuration() -> None:
    space = read_space(CONFIG / "tuner" / "MoS.yaml", OPTIONS, "SDIM_MoS_movielens_100k")
    assert space == read_space(CONFIG, OPTIONS, "SDIM_MoS_movielens_100k")
