"""Optuna's search on runs that only pretend: drawn once, pruned, killed and gone on with."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import UserError
from engine.tuner import command
from engine.tuner.optuna_search import OptunaSearch

from ...support.command_line import alive, children, wait_for
from ...support.fake_tuner import FakeTuner, start
from ...support.helpers import without_package

CHOICES = {"learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5], "topk": [1, 2, 3, 4, 5, 6]}


@pytest.fixture
def tuner(tmp_path: Path) -> FakeTuner:
    return FakeTuner(tmp_path)


def draws(tuner: FakeTuner) -> list[Any]:
    assert isinstance(tuner.search, OptunaSearch)
    return tuner.search.study.trials


def test_a_combination_runs_once_however_often_it_is_drawn(tuner: FakeTuner) -> None:
    """And the number of trials is that of different ones, if there are so many."""
    tuner.write({"topk": [1, 2, 3, 4]}, seconds=0.1)
    assert tuner.run(trials=3) == 0
    assert len(tuner.status()) == 3
    assert tuner.run(trials=9) == 0
    assert len(tuner.status()) == 4 and len(draws(tuner)) > 4
    assert all(d.state.is_finished() for d in draws(tuner))
    assert all(tuner.starts(name) == 1 for name in tuner.status())
    complete = [drawn.params["topk"] for drawn in draws(tuner) if drawn.state.name == "COMPLETE"]
    assert len(complete) == len(set(complete)) == 4  # Optuna counts no result twice
    assert tuner.run() == 0  # the grid takes up what Optuna ran
    assert all(tuner.starts(name) == 1 for name in tuner.status())


@pytest.mark.slow
def test_it_finds_a_good_trial_and_prunes_bad_ones(tuner: FakeTuner) -> None:
    tuner.write(CHOICES, epochs=8, seconds=0.2)
    assert tuner.run(jobs=4, trials=16) == 0
    status = tuner.status()
    pruned = {name for name, s in status.items() if s["status"] == "pruned"}
    done = {n: sum(s["metrics"]["valid"].values()) for n, s in status.items() if s["metrics"]}
    assert pruned and done and not pruned & set(done)
    assert "pruned" in tuner.reports()["table.md"]
    draw_of = tuner.search._draws
    for name in pruned:
        assert draws(tuner)[draw_of[name].number].state.name == "PRUNED"
        assert not (tuner.out / "runs" / "tiny" / f"{name}_seed1.json").exists()
    starts = {name: tuner.starts(name) for name in status}
    assert tuner.run(jobs=4, trials=16) == 0  # there are 16
    assert {name: tuner.starts(name) for name in tuner.status()} == starts
    assert tuner.run(jobs=4) == 0  # the whole grid runs the pruned ones to their end
    assert {s["status"] for s in tuner.status().values()} == {"done"}


@pytest.mark.slow
def test_killed_it_goes_on_with_what_was_running(tuner: FakeTuner) -> None:
    def running() -> set[str]:
        return {name for name, status in tuner.status().items() if status["status"] == "running"}

    tuner.write(CHOICES, epochs=4, seconds=10)  # they outlive the tuner on any machine
    rng = random.Random(3)
    for _ in range(2):
        with start(tuner, "6") as process:
            wait_for(lambda process=process: running() and children(process.pid))
            time.sleep(rng.uniform(0, 1))
            runs = children(process.pid)
            process.kill()
        wait_for(lambda runs=runs: not any(map(alive, runs)))
    before = running()
    tuner.write(CHOICES, epochs=4, seconds=0.2)
    assert before
    assert tuner.run(trials=6) == 0
    assert all(d.state.is_finished() for d in draws(tuner))
    after = tuner.status()
    assert len(after) == 6
    assert {s["status"] for s in after.values()} <= {"done", "pruned"}
    assert all(len(after[name]["attempts"]) > 1 for name in before)


def test_failures_stay_open_and_are_tried_again_in_the_next_call(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]}, modes={"1": "fails"})
    assert tuner.run(trials=3) == 1
    assert {d.state.name for d in draws(tuner)} == {"RUNNING"}
    tuner.write({"topk": [1]})
    assert tuner.run(trials=3) == 0
    assert {s["status"] for s in tuner.status().values()} == {"done"}
    assert [d.state.name for d in draws(tuner)] == ["COMPLETE"]


def test_another_base_experiment_starts_another_study(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2]})
    assert tuner.run(trials=2) == 0
    tuner.write({"topk": [1, 2, 3]})
    assert tuner.run(trials=3) == 0 and len(tuner.status()) == 3
    assert all(tuner.starts(name) == 1 for name in tuner.status())


def test_without_optuna_it_says_what_to_install(
    tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch, "optuna", "engine.tuner.optuna_search")
    tuner.write({"topk": [1]})
    with pytest.raises(UserError, match="pip install optuna==5"):
        command.make_search(tuner.space(), None, "", 3)  # type: ignore[arg-type]
