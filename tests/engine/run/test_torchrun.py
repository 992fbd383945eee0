"""``torchrun run_expid.py``: several processes train one model, stop together and go on together."""

import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from engine.common.errors import UserError, run_command, say
from engine.run import experiment
from model_zoo import ranks

from ...support.command_line import ROOT, Outcome, Workspace, children, environment, wait_for
from ...support.helpers import build_model, loader, tiny_params

EXPID, SEED = "TWIN_MoS_tiny", 1


class Torchrun:
    """``run_expid.py`` as two processes, in a workspace."""

    def __init__(self, space: Workspace, *arguments: str) -> None:
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
        ]
        given = "--config", str(space.config), "--expid", EXPID, "--seed", str(SEED), *arguments
        self.process = subprocess.Popen(
            [*torchrun, str(ROOT / "run_expid.py"), *given],
            cwd=space.cwd, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def signal_second(self, number: int) -> None:
        """Send a signal to rank 1 alone."""
        for pid in children(self.process.pid):
            if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                os.kill(pid, number)

    def wait(self) -> Outcome:
        stdout, stderr = self.process.communicate(timeout=300)
        return Outcome(self.process.returncode, stdout, stderr)


def workspace(folder: Path, data: Path) -> Workspace:
    space = Workspace(folder, data)
    space.change_model(EXPID, attention_dropout=0.0, net_dropout=0.0, epochs=2, tensorboard=True)
    return space


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_together(tiny_data: Path, tmp_path: Path) -> None:
    alone, space = workspace(tmp_path / "1", tiny_data), workspace(tmp_path / "2", tiny_data)
    done = alone.run_expid("--expid", EXPID, "--seed", str(SEED))
    assert done.code == 0, done.stderr
    done = Torchrun(space).wait()
    assert done.code == 0, done.stderr

    one, two = alone.result(EXPID, SEED), space.result(EXPID, SEED)
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert len(two["stage_log"]) == len(one["stage_log"])
    for a, b in zip(one["stage_log"], two["stage_log"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-3)
    assert two["metrics"]["test"]["AUC"] == pytest.approx(one["metrics"]["test"]["AUC"], abs=0.02)
    assert done.stdout.count("best possible AUC") == 1  # rank 0 alone speaks
    assert space.file(EXPID, SEED, "log").read_text().count("Params:") == 1
    assert len((space.cwd / "experiments.csv").read_text().splitlines()) == 1
    assert len([*space.checkpoints.rglob("events.out.*")]) == 1

    broken = workspace(tmp_path / "3", tiny_data)
    log = broken.file(EXPID, SEED, "log")
    for number, line in ((signal.SIGTERM, "Stage backbone"), (signal.SIGKILL, "Stage experts")):
        run = Torchrun(broken, "--resume")
        wait_for(lambda line=line: log.exists() and line in log.read_text(), 120)
        run.signal_second(number)
        assert run.wait().code != 0
        assert not broken.file(EXPID, SEED, "json").exists()
    assert "SIGTERM: the state after step" in log.read_text()  # which rank 0 has written
    refused = broken.run_expid("--expid", EXPID, "--seed", str(SEED), "--resume")
    assert refused.code == 2 and "ranks was 2 when the run started and is 1 now" in refused.stderr
    done = Torchrun(broken, "--resume").wait()
    assert done.code == 0, done.stderr
    again = broken.result(EXPID, SEED)
    assert again["metrics"] == two["metrics"] and again["routing"] == two["routing"]
    for a, b in zip(two["stage_log"], again["stage_log"], strict=True):
        assert all(a[key] == b[key] for key in ("train_loss", "AUC", "logloss", "routing"))


def test_other_commands_refuse_to_be_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: 0)
    assert "WORLD_SIZE" in capsys.readouterr().err


def test_an_error_that_all_processes_have_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    store = TCPStore("localhost", 0, is_master=True)
    environ = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for error in ("shared", "of one", "shared"):
        say(UserError(error))
    assert capsys.readouterr().err == "error: shared\nerror: of one\n"


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [["--expid", "nothing"], ["--set", "batch_size=1"]])
def test_torchrun_says_an_error_once(wrong: list[str], tiny_data: Path, tmp_path: Path) -> None:
    done = Torchrun(workspace(tmp_path / "1", tiny_data), *wrong).wait()
    assert done.code != 0 and done.stderr.count("error: ") == 1, done.stderr


def test_dice_in_experts_and_batches_with_too_few_samples_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_data: Path
) -> None:
    params = tiny_params(tiny_data)
    loaders = {"train": loader(params, batch_size=3), "valid": loader(params, "valid")}
    dice = {"attention_hidden_activations": "Dice"}
    in_experts, outside = (
        build_model(tiny_params(tiny_data, name, **dice)) for name in ("DIN_GShard", "DIN")
    )
    monkeypatch.setattr(ranks, "size", lambda: 4)
    with pytest.raises(UserError, match="attention_hidden_activations: ReLU"):
        experiment._divide(in_experts, loaders, "DIN_GShard")
    with pytest.raises(UserError, match="3 samples for 4 processes"):
        experiment._divide(outside, loaders, "DIN")


@pytest.mark.parametrize(("size", "least"), [(1, 2), (2, 2), (3, 3)])
def test_batch_norm_sees_two_samples_at_least(
    size: int, least: int, monkeypatch: pytest.MonkeyPatch, tiny_data: Path
) -> None:
    params = tiny_params(tiny_data, batch_norm=True)
    model, loaders = build_model(params), {"train": loader(params)}
    monkeypatch.setattr(ranks, "size", lambda: size)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    experiment._divide(model, loaders, "TWIN")
    assert loaders["train"].least == least


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_shares_of_a_batch_are_the_whole_batch(tiny_data: Path, shuffle: bool) -> None:
    params = tiny_params(tiny_data)

    def targets(share: slice) -> list[list[int]]:
        made = loader(params, batch_size=7, shuffle=shuffle)
        made.share = share
        return [batch[1].index[:, -1].tolist() for batch in made]

    shares = [targets(slice(rank, None, 3)) for rank in range(3)]
    for whole, *parts in zip(targets(slice(None)), *shares, strict=True):
        assert sorted(whole) == sorted(chain(*parts))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
