"""``run_expid.py --data-root --model-root``: the same experiments on data in other folders."""

import json
from pathlib import Path

import pytest

from engine.config import read as config
from engine.datasets import synthetic
from engine.datasets.prepared import layout

from ...support.command_line import Workspace, run_expid_in, run_expid_often, snapshot

ONE_RUN = ("--expid", "TWIN_tiny", "--seed", "1")


@pytest.mark.slow
def test_results_on_other_data_go_elsewhere_or_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    space = Workspace(tmp_path, tiny_data)
    first = space.run_expid(*ONE_RUN)
    assert first.code == 0, first.stderr
    before = snapshot(space.checkpoints)
    stand_in = space.cwd / "made" / "tiny"
    card = layout.write(synthetic.generate(synthetic.SIZES["tiny"], seed=2), stand_in)

    made = (*ONE_RUN, "--data-root", "made")
    elsewhere = (*made, "--model-root", "../results")
    jobs = (made, elsewhere, (*elsewhere, "--resume"), elsewhere)
    refused, moved, resumed, again = run_expid_often([(space, job) for job in jobs])
    assert refused.code == 2 and refused.stderr.count("\n") == 1
    for part in ("TWIN_tiny_seed1.json", card["hash"], "write --model-root DIR"):
        assert part in refused.stderr
    assert "Stage" not in refused.stdout
    assert moved.code == again.code == 0, moved.stderr + again.stderr
    assert "finished already" in resumed.stdout
    assert snapshot(space.checkpoints) == before

    result = json.loads((tmp_path / "results" / "tiny" / "TWIN_tiny_seed1.json").read_text())
    assert result["dataset_hash"] == card["hash"] != space.result("TWIN_tiny", 1)["dataset_hash"]
    assert result["bayes"]["AUC"] == card["bayes_auc"]["test"]
    for key in ("train_data", "valid_data", "test_data", "user_info", "item_info"):
        assert Path(result["params"][key]).parent == stand_in


def test_generated_data_is_generated_there(tmp_path: Path) -> None:
    folders = ("--data-root", "data", "--model-root", "results")
    expid = "AttenMixer_session_hopping_tiny"
    outcome = run_expid_in(tmp_path, "--expid", expid, *folders)
    assert outcome.code == 0, outcome.stderr
    assert f"generating session_hopping_tiny into {tmp_path}" in outcome.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results", "config.csv"}
    names = {path.suffix for path in (tmp_path / "results" / "session_hopping_tiny").iterdir()}
    assert names == {".json", ".model", ".log"}


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ("--expid", "TWIN_KuaiVideo_x2", "--data-root", "nowhere", "--model-root", "results")
    outcome = run_expid_in(tmp_path, *command)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1
    assert f"{tmp_path}/nowhere/KuaiVideo_x2/" in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_only_paths_below_data_root_move(tmp_path: Path) -> None:
    root = tmp_path / "a" / "repository"
    configured = {
        "data_root": "../sets/",
        "train_data": "../sets/x/train.parquet",
        "valid_data": "../other/../sets/x/y/valid.parquet",
        "test_data": "../sets_of_others/x/test.parquet",
        "user_info": "../sets/../user_info.parquet",
        "item_info": "/somewhere/item_info.parquet",
    }
    params = config.resolve_paths(configured, root)
    assert config.redirect(params, None) == params
    moved = config.redirect(params, tmp_path / "new")
    stays = {key: params[key] for key in ("test_data", "user_info", "item_info")}
    assert moved == stays | {
        "data_root": str(tmp_path / "new"),
        "train_data": str(tmp_path / "new" / "x" / "train.parquet"),
        "valid_data": str(tmp_path / "new" / "x" / "y" / "valid.parquet"),
    }
