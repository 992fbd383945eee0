"""``run_expid.py --set``, repeated arguments, and what a resume may change; all in one process."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ...support.command_line import Outcome, Workspace, run_expid_often

ONE = ("--expid", "TWIN_tiny", "--seed", "1")
SET = (*ONE, "--set", "learning_rate=1e-2", "batch_size=512")
JOBS: dict[str, tuple[str, ...]] = {
    "plain": ONE,
    "twice": ("--expid", "TWIN_tiny", "TWIN_tiny", "--seed", "1", "1"),
    "set": SET,
    "set again": (*ONE, "--resume", "--set", "batch_size=512", "learning_rate=0.01"),
    "quiet": (*ONE, "--resume", "--set", "verbose=0", "num_workers=2"),
    "data": (*ONE, "--set", "test_data={valid}"),
    "unknown": (*ONE, "--set", "learning_rte=1"),
    "wrong": (*ONE, "--set", "batch_size=much"),
    "seed": (*ONE, "--set", "seed=2"),
}


class Done(NamedTuple):
    space: Workspace
    outcomes: dict[str, Outcome]
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def done(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    space = Workspace(tmp_path_factory.mktemp("set"), tiny_data)
    space.change_model("TWIN_tiny", epochs=1, verbose=1)
    valid = str(space.data / "valid.parquet")
    jobs = [tuple(w.format(valid=valid) for w in job) for job in JOBS.values()]
    outcomes = run_expid_often([(space, job) for job in jobs])
    files = sorted((space.checkpoints / "tiny").glob("*.json"))
    results = [json.loads(file.read_text()) for file in files]
    return Done(space, dict(zip(JOBS, outcomes, strict=True)), results)


def test_what_is_set_is_recorded_beside_the_plain_result(done: Done) -> None:
    for name in ("plain", "set", "data"):
        assert done.outcomes[name].code == 0, done.outcomes[name].stderr
    plain, *others = sorted((r["set"] for r in done.results), key=len)
    assert plain == {}
    valid = str(done.space.data / "valid.parquet")
    assert others == [{"test_data": valid}, {"learning_rate": 0.01, "batch_size": 512}]
    for result in done.results:
        assert result["expid"] == "TWIN_tiny" and result["params"].items() >= result["set"].items()
    assert done.space.result("TWIN_tiny", 1)["set"] == {}


def test_the_same_values_are_the_same_run(done: Done) -> None:
    assert "finished already" in done.outcomes["set again"].stdout


def test_a_resume_may_change_what_changes_no_number(done: Done) -> None:
    assert "finished already" in done.outcomes["quiet"].stdout, done.outcomes["quiet"].stderr


def test_repeated_arguments_run_once(done: Done) -> None:
    lines = done.outcomes["twice"].stdout.splitlines()
    assert [line.split()[:2] for line in lines].count(["TWIN_tiny", "1"]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown", "unknown key `learning_rte` for TWIN; did you mean `learning_rate`?"),
        ("wrong", "batch_size: is 'much'; write a whole number"),
        ("seed", "--set seed: cannot be set; write --seed"),
    ],
)
def test_a_wrong_key_or_value_is_answered(done: Done, name: str, message: str) -> None:
    outcome = done.outcomes[name]
    assert outcome.code == 2 and message in outcome.stderr and outcome.stderr.count("\n") == 1


def test_nothing_of_fuxictr_reaches_the_console(done: Done) -> None:
    for outcome in done.outcomes.values():
        assert "column index" not in outcome.stdout + outcome.stderr
