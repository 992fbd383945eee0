"""``run_param_tuner.py`` and FuxiCTR's own tuner on the real ``run_expid.py``."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuxictr.utils import load_config

from engine.tuner.command import main

from ...support.command_line import (
    ROOT,
    Outcome,
    Workspace,
    alive,
    children,
    environment,
    run_here,
    run_script,
    wait_for,
)
from .test_tuner_space import tuner_file

PATHS = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def space(tiny_data: Path, tmp_path: Path) -> Workspace:
    space = Workspace(tmp_path, tiny_data)
    space.change_model("TWIN_tiny", epochs=1, batch_size=1024, verbose=0)
    return space


def words(space: Workspace, file: Path, *arguments: str) -> tuple[str, ...]:
    """The arguments that tune a file."""
    return ("--config", str(file), "--output", str(space.folder / "out"), *arguments)


def tuner(space: Workspace, file: Path, *arguments: str, timeout: float = 300) -> Outcome:
    given = words(space, file, *arguments)
    return run_script("run_param_tuner.py", *given, cwd=space.cwd, timeout=timeout)


def leaderboard(out: Path) -> list[dict[str, str]]:
    with open(out / "leaderboard.csv") as file:
        return list(csv.DictReader(file))


def test_a_trial_from_file_to_best_experiment(space: Workspace) -> None:
    """On real data and with the real ``run_expid.py``."""
    file = tuner_file(space, {"attention_dim": [32], "num_heads": 2})
    outcome = run_here(main, *words(space, file))
    out = space.folder / "out"
    assert outcome.code == 0, outcome.stderr
    (best,) = leaderboard(out)
    assert best["attention_dim"] == "32"
    status = json.loads((out / "trials" / f"{best['trial']}.json").read_text())
    result = json.loads((out / "runs" / "tiny" / f"{best['trial']}_seed2024.json").read_text())
    assert status["metrics"] == result["metrics"]
    assert float(best["test_AUC"]) == result["metrics"]["test"]["AUC"]
    assert load_config(str(out), best["trial"])["attention_dim"] == 32
    assert load_config(str(out / "best"), "TWIN_tiny_best")["attention_dim"] == 32
    assert not list(out.rglob("*.progress.json")) and not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_the_best_of_two_trials_runs_alone(space: Workspace) -> None:
    choices = {"attention_dim": [64, 32], "num_heads": 2, "dnn_activations": ["relu"]}
    outcome = tuner(space, tuner_file(space, choices), "--trials-per-gpu", "2")
    out = space.folder / "out"
    best, other = leaderboard(out)
    assert outcome.code == 0, outcome.stderr
    assert {best["attention_dim"], other["attention_dim"]} == {"64", "32"}
    alone = run_script(
        "run_expid.py", "--config", str(out / "best"), "--expid", "TWIN_tiny_best", cwd=space.cwd
    )
    assert alone.code == 0, alone.stderr
    again = space.result("TWIN_tiny_best", 2024)["metrics"]
    assert [float(best[f"test_{name}"]) for name in again["test"]] == list(again["test"].values())


def test_bad_value_is_refused_before_anything_is_written(space: Workspace) -> None:
    for choices, arguments, says in (
        ({"topk": [5, -0.5]}, (), "tuner.yaml: TWIN_tiny, topk: is -0.5"),
        (
            {"attention_dim": [63], "num_heads": [1, 2]},
            (),
            "TWIN_tiny with attention_dim: 63, num_heads: 2, ",
        ),
        ({"topk": [5]}, ("--gpu", "0", "1"), "error: --gpu 0: torch"),
    ):
        outcome = run_here(main, *words(space, tuner_file(space, choices), *arguments))
        assert outcome.code == 2 and outcome.stderr.count("\n") == 1
        assert says in outcome.stderr
    assert not (space.folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trials-per-gpu", "0"), "--trials-per-gpu: is 0; write a number above 0"),
        (("--search", "optuna"), "--trials N"),
        (("--trials", "3"), "--search optuna"),
        (("--search", "optuna", "--trials", "0"), "--trials: is 0; write"),
        (("--search", "optuna", "--trials", "3", "--tag", "x"), "--tag"),
    ],
)
def test_arguments_that_do_not_fit(arguments: tuple[str, ...], says: str) -> None:
    outcome = run_here(main, *arguments)
    assert outcome.code == 2 and outcome.stderr.startswith("error: ") and says in outcome.stderr


@pytest.mark.slow
def test_fuxictrs_own_tuner_runs_the_file(space: Workspace) -> None:
    """Its ``enumerate_params`` and ``grid_search``, ``python`` being the one of PATH."""
    file = tuner_file(space, {"topk": [5, 10]})
    code = (
        "import sys; from fuxictr.autotuner import enumerate_params, grid_search; "
        "grid_search(enumerate_params(sys.argv[1]), gpu_list=[-1], script=sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file), str(ROOT / "run_expid.py")],
        cwd=space.cwd,
        env=environment() | PATHS,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(f.read_text()) for f in (space.checkpoints / "tiny").glob("*.json")]
    assert sorted(result["params"]["topk"] for result in results) == [5, 10]
    assert len((space.cwd / "tuner.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_reports(space: Workspace) -> None:
    """Twelve real trials, killed three times, against an undisturbed call."""
    choices = {"learning_rate": [1e-3, 1e-2, 1e-1], "topk": [5, 10], "short_seq_len": [5, 10]}
    file = tuner_file(space, choices)
    space.change_model("TWIN_tiny", epochs=3, batch_size=128)
    calm = tuner(space, file, "--trials-per-gpu", "2", timeout=600)
    assert calm.code == 0, calm.stderr
    (space.folder / "out").rename(space.folder / "calm")
    rng = random.Random(5)
    command = [sys.executable, str(ROOT / "run_param_tuner.py"), "--config", str(file)]
    command += ["--output", str(space.folder / "out"), "--trials-per-gpu", "2"]
    for _ in range(3):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
            wait_for(lambda process=process: children(process.pid), 120)
            time.sleep(rng.uniform(3, 20))
            runs = children(process.pid)
            process.send_signal(signal.SIGKILL)
        wait_for(lambda runs=runs: not any(map(alive, runs)))
    outcome = tuner(space, file, "--trials-per-gpu", "2", timeout=600)
    assert outcome.code == 0, outcome.stderr
    for name in ("table.md", "leaderboard.csv", "bars_leaderboard.csv"):
        assert (space.folder / "out" / name).read_text() == (
            space.folder / "calm" / name
        ).read_text(), name
    attempts = [
        len(json.loads(f.read_text())["attempts"])
        for f in (space.folder / "out" / "trials").glob("*.json")
    ]
    assert sum(attempts) > 12
