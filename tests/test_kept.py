"""What earlier versions wrote goes on working: ``kept/`` holds a small one of each.

``kept/mine`` was prepared by ``data/prepare.py generic`` and its configuration made smaller,
``kept/results`` and the checkpoint come from ``run_expid.py`` on it. None of them is written anew
when the code changes: a later version has to read them as they are.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.run.experiment import make_loaders

from .support.command_line import ROOT, run_module, run_script

KEPT = Path(__file__).parent / "kept"
RESULTS = KEPT / "results"
FOLDERS = ("--config", str(KEPT / "mine" / "config"), "--data-root", str(KEPT))


def test_a_prepared_folder_is_still_sound(tmp_path: Path) -> None:
    done = run_script("data/prepare.py", "check", str(KEPT / "mine"), cwd=tmp_path)
    assert done.code == 0, done.stdout + done.stderr


def test_a_checkpoint_still_gives_its_metrics() -> None:
    result = json.loads((RESULTS / "TWIN_MoS_mine_seed1.json").read_text())
    experiment = load("TWIN_MoS_mine", RunOptions(KEPT / "mine" / "config", data_root=KEPT))
    params = experiment.params
    feature_map = build_feature_map(params)
    model = experiment.model_class(feature_map, **params)
    model.load_weights(str(KEPT / "TWIN_MoS_mine_seed1.model"))
    found = model.evaluate(make_loaders(params, feature_map, "cpu")["test"])
    assert found["logloss"] == pytest.approx(result["metrics"]["test"]["logloss"], abs=1e-5)
    assert found["AUC"] == pytest.approx(result["metrics"]["test"]["AUC"], abs=2e-3)


@pytest.mark.slow
def test_a_prepared_folder_still_trains(tmp_path: Path) -> None:
    expids = ("TWIN_mine", "TWIN_MoS_mine")
    done = run_script(
        "run_expid.py", *FOLDERS, "--expid", *expids, "--model-root", str(tmp_path), cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    assert "TWIN_MoS_mine - TWIN_mine" in done.stdout
    for expid in expids:
        result = json.loads((tmp_path / "mine" / f"{expid}_seed2024.json").read_text())
        before = json.loads((RESULTS / f"{expid}_seed1.json").read_text())
        assert result["dataset_hash"] == before["dataset_hash"]
        assert before.keys() <= result.keys()


def test_results_are_still_analysed(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    done = run_module("engine.analysis", str(tmp_path / "results"))
    assert done.code == 0, done.stderr
    done = run_module("engine.report", str(tmp_path / "results"), "-o", str(tmp_path / "page.html"))
    assert done.code == 0, done.stderr
    assert "TWIN_MoS_mine" in (tmp_path / "page.html").read_text()


NO_DATA = ("--data-root", "nowhere")
COMMANDS = {
    # Each is written as the documents of the version had it, with data that is not there: what
    # fails is the data, not the command line.
    "run_expid.py --expid TWIN_MoS_movielens_1m --gpu -1 --seed 1 2 --resume": NO_DATA,
    "run_expid.py --config config --expid TWIN_movielens_1m": NO_DATA,
    "run_param_tuner.py --config config/tuner/TWIN_MoS_movielens_1m.yaml --gpu -1": NO_DATA,
    "run_param_tuner.py --config config/tuner/MIRRN_movielens_1m.yaml --trials-per-gpu 2 --tag x": NO_DATA,
    "run_param_tuner.py --config config/tuner/TWIN_movielens_1m.yaml --search optuna --trials 3": NO_DATA,
    "-m engine.study table1 --dataset movielens_1m --seeds 5 --runs-per-gpu 2": NO_DATA,
    "-m engine.study knobs --dataset movielens_1m --backbones TWIN --variants MoS --seeds 3 "
    "--budget 1 --set max_len=100 epochs=5": NO_DATA,
    "data/prepare.py movielens --input nowhere --output out": (),
    "data/prepare.py generic --input nowhere.csv --user u --item i --time t --label l --output out": (),
    "data/prepare.py check nowhere": (),
    "-m engine.analysis nowhere": (),
    "-m engine.report nowhere -o page.html": (),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_still_understood(command: str, tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    first, *arguments = [*command.split(), *COMMANDS[command]]
    run = run_module if first == "-m" else partial(run_script, first, cwd=tmp_path)
    done = run(*arguments)
    assert done.code == 2 and "nowhere" in done.stderr and "usage:" not in done.stderr, done
