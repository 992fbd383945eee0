"""The files of a run while it runs: its progress, its lock, and a disk that fills up."""

import io
import json
import logging
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.common.errors import UserError
from engine.config.load import load
from engine.config.options import RunOptions
from engine.run.artifacts import RunFiles
from engine.run.experiment import code_of
from model_zoo import atomic
from model_zoo.training.progress import TrainingError, save_atomically

from ...support.command_line import ROOT, Outcome, Workspace, environment, snapshot, wait_for
from ...support.helpers import build_model, loader, tiny_params

KEPT = json.loads((ROOT / "tests/kept/results/TWIN_mine_seed1.json").read_text())
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture
def space(tiny_data: Path, tmp_path: Path) -> Workspace:
    space = Workspace(tmp_path, tiny_data)
    space.change_model("TWIN_tiny", epochs=3, early_stop_patience=3, batch_size=256)
    return space


def run(space: Workspace, *prefix: str) -> list[str]:
    """The command line of a run."""
    script = [str(ROOT / "run_expid.py"), "--config", str(space.config)]
    return [sys.executable, *prefix, *script, "--expid", "TWIN_tiny", "--seed", "1", "--resume"]


def run_limited(space: Workspace, limit: int) -> Outcome:
    """Run where no file can grow beyond ``limit`` bytes, as if the disk were full then."""
    command = run(space, "-c", LIMITED, str(limit))
    done = subprocess.run(
        command, cwd=space.cwd, env=environment(), capture_output=True, text=True, timeout=120
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


# ---------------------------------------------------------------- progress and lock


def test_every_evaluation_is_told(tiny_data: Path, tmp_path: Path) -> None:
    params = tiny_params(tiny_data, model_root=str(tmp_path), verbose=0)
    model = build_model(params)
    told: list[list[tuple[str, float]]] = []
    model.fit(
        loader(params),
        loader(params, "valid"),
        epochs=1,
        on_evaluation=lambda log: told.append([(e["stage"], e["epoch"]) for e in log]),
    )
    stages = [("backbone", 1), ("experts", 1), ("joint", 1)]
    assert told == [stages[:n] for n in (1, 2, 3)]


@pytest.mark.slow
def test_second_run_of_the_same_name_is_refused(space: Workspace) -> None:
    """While the first runs, and it ends as if it were alone; its progress is there meanwhile."""
    space.change_model("TWIN_tiny", epochs=200, early_stop_patience=200)
    progress = space.file("TWIN_tiny", 1, "progress.json")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(run(space), cwd=space.cwd, env=environment(), **quiet) as first:
        wait_for(progress.exists, 60)
        entries = json.loads(progress.read_text())["stage_log"]
        assert entries[0]["stage"] == "joint" and 0 <= entries[0]["AUC"] <= 1
        log = space.file("TWIN_tiny", 1, "log")
        before = log.read_text()
        second = space.run_expid("--expid", "TWIN_tiny", "--seed", "1")
        assert first.poll() is None, "the first run was too short"
        first.kill()
    assert second.code == 2 and second.stderr.startswith("error: TWIN_tiny_seed1: another run")
    assert second.stderr.count("\n") == 1 and log.read_text().startswith(before)
    space.change_model("TWIN_tiny", epochs=1)
    third = space.run_expid("--expid", "TWIN_tiny", "--seed", "1")  # the lock went with the process
    assert third.code == 0, third.stderr
    assert not progress.exists()


def test_run_that_another_process_has_just_finished_stays_as_it_is(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a process' look at the files and its start."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    params = load("TWIN_tiny", RunOptions(space.config, seed=1)).params
    files = RunFiles(params)
    files.folder.mkdir(parents=True)
    files.result.write_text("{}")
    files.log.write_text("its log\n")
    before = snapshot(space.checkpoints)
    with pytest.raises(UserError, match="has just finished it"):
        files.open(params, resume=True)
    assert snapshot(space.checkpoints) == before


# ---------------------------------------------------------------- what a resume is checked for


CODE = {"torch": "2.1", "the digest of the code": "one"}


def killed_run(space: Workspace, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> RunFiles:
    """The files of a run that was killed after it had begun, with its parameters in ``params``."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    params = load("TWIN_tiny", RunOptions(space.config, seed=1)).params
    files = RunFiles(params)
    files.open(params | CODE | {"dataset_hash": "before"} | changes, resume=False)
    return RunFiles(params)


def params_of(space: Workspace) -> dict[str, Any]:
    return load("TWIN_tiny", RunOptions(space.config, seed=1)).params


def test_resume_on_other_data_is_refused(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    files = killed_run(space, monkeypatch)
    files.require_unchanged(params_of(space), CODE)
    files.require_same_data("before", resume=True)
    other = r"other data \(hash before, now now\); put the data back, or "
    with pytest.raises(UserError, match=other + "start again without --resume"):
        files.require_same_data("now", resume=True)
    files.result.write_text(json.dumps(KEPT | {"dataset_hash": "before"}))
    for resume in (True, False):
        with pytest.raises(UserError, match=other + "write --model-root DIR"):
            files.require_same_data("now", resume)


@pytest.mark.parametrize(
    "what", ["learning_rate", "epochs", "torch", "the digest of the code", "an_unknown_key"]
)
def test_a_state_of_another_run_is_refused(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The state itself says whose it is, so it may be all that a kill has left."""
    files = killed_run(space, monkeypatch, **{what: "other"})
    for file in files.folder.iterdir():
        if file != files.state:
            file.unlink()
    message = f"--resume: {what} was 'other' when the run started and is .+ now; put it back, or "
    with pytest.raises(UserError, match=message + f"start again .+ after deleting {files.state}"):
        files.require_unchanged(params_of(space), CODE)


def test_a_run_that_was_started_again_is_not_finished(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = killed_run(space, monkeypatch)
    files.result.write_text(json.dumps(KEPT | {"params": params_of(space) | {"epochs": 99}}))
    assert not files.finished()
    files.require_unchanged(params_of(space), CODE)  # the result is of an earlier run
    files.state.unlink()
    assert files.finished()
    with pytest.raises(UserError, match="epochs was 99"):
        files.require_unchanged(params_of(space), {"torch": "other than it was"})


def test_the_digest_of_the_code_sees_every_file_that_computes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1")
    known = code_of.__wrapped__(str(tmp_path))
    assert known == code_of.__wrapped__(str(tmp_path)) != code_of.__wrapped__()
    (tmp_path / "mine.py").rename(tmp_path / "yours.py")
    assert code_of.__wrapped__(str(tmp_path)) != known


@pytest.mark.parametrize("content", [b"", b"half of a state"])
def test_a_damaged_state_starts_again(
    content: bytes, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = tiny_params(tiny_data, "TWIN", model_root=str(tmp_path), verbose=0)
    weights = []
    for name in ("whole", "damaged"):
        state = tmp_path / name
        if name == "damaged":
            state.write_bytes(content)
        model = build_model(params)
        model.fit(loader(params), loader(params, "valid"), epochs=1, resume_file=str(state))
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert "damaged" in caplog.text and "starts at its beginning" in caplog.text


# ---------------------------------------------------------------- a full disk


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.model"
    save_atomically({"weights": torch.ones(10)}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(TrainingError, match=r"run.model: cannot be written \(File too large\)"):
            save_atomically({"weights": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path)["weights"].equal(torch.ones(10))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("at_byte", [0, 5_000, 400_000])
def test_interrupt_while_saving_is_an_interrupt(
    at_byte: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.FileIO):
        def write(self, data: bytes) -> int:
            if self.tell() + len(data) > at_byte:
                raise KeyboardInterrupt
            return super().write(data)

    path = tmp_path / "run.model"
    save_atomically({"weights": torch.ones(10)}, path)
    monkeypatch.setattr(atomic, "open", Interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"weights": torch.ones(100_000), "more": torch.ones(10)}, path)
    assert torch.load(path)["weights"].equal(torch.ones(10))
    assert list(tmp_path.iterdir()) == [path]


def test_other_failures_of_saving_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        save_atomically({"weights": lambda: 0}, tmp_path / "run.model")
    assert not isinstance(caught.value, TrainingError)


@pytest.mark.parametrize(
    ("kilobytes", "file"),
    [
        (1, "log"),
        pytest.param(60, "resume", marks=pytest.mark.slow),
        pytest.param(500, "resume", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_full_disk_is_one_line_and_the_run_can_go_on(
    kilobytes: int, file: str, space: Workspace
) -> None:
    outcome = run_limited(space, kilobytes * 1024)
    path = space.file("TWIN_tiny", 1, file)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert f"{path}: cannot be written (File too large)" in outcome.stderr
    left = snapshot(space.checkpoints)
    assert not [name for name in left if name.endswith(".tmp")]
    assert not space.file("TWIN_tiny", 1, "json").exists()
    if file == "resume":
        done = subprocess.run(run(space), cwd=space.cwd, env=environment(), capture_output=True)
        assert done.returncode == 0, done.stderr
        assert space.result("TWIN_tiny", 1)["status"] == "done"


@pytest.mark.slow
def test_output_that_cannot_be_written_is_one_line(space: Workspace) -> None:
    space.change_model("TWIN_tiny", verbose=0)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            run(space), cwd=space.cwd, env=environment(), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr == b"error: the output cannot be written (No space left on device)\n"
