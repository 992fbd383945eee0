"""Run the real command lines in temporary folders of their own."""

import atexit
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import yaml

from engine.common.errors import run_command
from engine.config.read import read_yaml
from engine.datasets.prepared.card import CARD, fingerprint
from engine.datasets.prepared.card import FILES as DATA

ROOT = Path(__file__).resolve().parents[2]
FILES = ("train", "valid", "test", "user_info", "item_info")


class Outcome(NamedTuple):
    """What a command line did."""

    code: int
    stdout: str
    stderr: str


class Workspace:
    """A folder with a configuration of ``TWIN_tiny`` and ``TWIN_MoS_tiny``, the data set ``tiny``,
    ``checkpoints``, and the folder ``cwd`` to run commands in.

    Attributes:
        models, datasets: content of the two YAML files, as ``save`` writes them.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.config, self.data = folder / "experiments", folder / "data" / "tiny"
        self.checkpoints, self.cwd = folder / "checkpoints", folder / "cwd"
        self.cwd.mkdir(parents=True)
        self.config.mkdir()
        shutil.copytree(data, self.data)
        real = read_yaml(ROOT / "config" / "model_config.yaml")
        self.models: dict[str, Any] = {
            "Base": real["Base"] | {"model_root": str(self.checkpoints)},
            "TWIN_tiny": real["TWIN_session_hopping_tiny"] | {"dataset_id": "tiny"},
            "TWIN_MoS_tiny": real["TWIN_MoS_session_hopping_tiny"] | {"dataset_id": "tiny"},
        }
        tiny = read_yaml(ROOT / "config" / "dataset_config.yaml")["session_hopping_tiny"]
        paths = {k: str(self.data / Path(v).name) for k, v in tiny.items() if "parquet" in str(v)}
        paths["data_root"], paths["data_format"] = str(self.data.parent), "parquet"
        self.datasets: dict[str, Any] = {"tiny": tiny | paths}
        self.save()

    def save(self) -> None:
        """Write the configuration as it is now."""
        (self.config / "model_config.yaml").write_text(yaml.safe_dump(self.models))
        (self.config / "dataset_config.yaml").write_text(yaml.safe_dump(self.datasets))

    def change_model(self, expid: str, **changes: Any) -> None:
        """Give an experiment other keys."""
        self.models[expid] |= changes
        self.save()

    def change_dataset(self, **changes: Any) -> None:
        """Give the data set other keys."""
        self.datasets["tiny"] |= changes
        self.save()

    def renew_card(self) -> None:
        """Let the card have the hash of the files as they are now."""
        card = json.loads((self.data / CARD).read_text())
        card["hash"] = fingerprint(self.data / name for name in DATA)
        (self.data / CARD).write_text(json.dumps(card))

    def run_expid(self, *arguments: str, timeout: float = 120) -> Outcome:
        """``python run_expid.py --config ... arguments`` in ``cwd``."""
        config = () if "--config" in arguments else ("--config", str(self.config))
        return run_script("run_expid.py", *config, *arguments, cwd=self.cwd, timeout=timeout)

    def result(self, expid: str, seed: int) -> dict[str, Any]:
        """The JSON of a finished run."""
        return json.loads(self.file(expid, seed, "json").read_text())

    def file(self, expid: str, seed: int, suffix: str) -> Path:
        """A file that a run writes."""
        return self.checkpoints / "tiny" / f"{expid}_seed{seed}.{suffix}"


def run_script(script: str, *arguments: str, cwd: Path, timeout: float = 120) -> Outcome:
    """Run a script of the repository in a process of its own."""
    return _run([sys.executable, str(ROOT / script), *arguments], cwd, timeout)


def prepare_and_train(folder: Path, flags: Sequence[str], expid: str) -> Outcome:
    """Prepare ``log.csv`` of a folder as the data set ``out``, and train an experiment for an epoch."""
    made = run_script(
        "data/prepare.py", "generic", "--input", "log.csv", *flags, "--output", "out", cwd=folder
    )
    assert made.code == 0, made.stderr
    trained = run_script(
        "run_expid.py", "--config", "out/config", "--expid", expid, "--set", "epochs=1",
        "--model-root", "results", cwd=folder,
    )  # fmt: skip
    assert trained.code == 0, trained.stderr
    return trained


def run_module(module: str, *arguments: str, timeout: float = 120) -> Outcome:
    """``python -m module arguments`` in the repository's folder."""
    return _run([sys.executable, "-m", module, *arguments], ROOT, timeout)


def _run(command: list[str], cwd: Path, timeout: float) -> Outcome:
    done = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_here(main: Callable[[], Any], *arguments: str) -> Outcome:
    """Run the ``main`` of a command in this process, which saves the import of torch.

    Processes that it starts get the same environment as those of ``run_script``.
    """
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.dict(os.environ, environment()),
        patch.object(sys, "argv", ["command", *arguments]),
        patch("torch.cuda.is_available", return_value=False),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            run_command(main)
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


SERVER = """
import contextlib, io, json, os, sys, traceback
sys.path.insert(0, sys.argv[1])
import run_expid

for line in sys.stdin:
    job = json.loads(line)
    os.chdir(job["cwd"])
    sys.argv = [job["script"], *job["arguments"]]
    stdout, stderr, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            run_expid.main()
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
    print(json.dumps([code, stdout.getvalue(), stderr.getvalue()]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    """A process that runs one command line of ``run_expid.py`` after the other."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    atexit.register(process.communicate)  # which lets it end by itself
    return process


def run_expid_often(jobs: list[tuple[Workspace, tuple[str, ...]]]) -> list[Outcome]:
    """``run_expid.py`` for each job, in a process that all tests share: torch is imported once."""
    return [
        run_expid_in(space.cwd, "--config", str(space.config), *arguments)
        for space, arguments in jobs
    ]


def run_expid_in(cwd: Path, *arguments: str, timeout: float = 120) -> Outcome:
    """``python run_expid.py arguments`` in a folder, and in the process that all tests share."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    job = {"script": str(ROOT / "run_expid.py"), "cwd": str(cwd), "arguments": arguments}
    stop = threading.Timer(timeout, server.kill)
    stop.start()
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    stop.cancel()
    assert answer, "the process has ended, or was too slow"
    return Outcome(*json.loads(answer))


def environment() -> dict[str, str]:
    """One thread, which is fastest for tiny runs; no GPU; no byte code beside the sources."""
    return os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder; ``None`` for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    """Whether a process is there and runs."""
    return state(pid) != "Z"


def state(pid: int) -> str:
    """Linux's letter: R running, S asleep, T stopped, Z ended; of a process that is gone Z, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def kill_child(pid: int) -> None:
    """Kill a process that another one has started, and that is not at its end: it is stopped first."""
    while True:
        wait_for(lambda: children(pid))
        for child in children(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                wait_for(lambda child=child: state(child) in "TZ")
                if state(child) == "T":
                    os.kill(child, signal.SIGKILL)
                    return


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
