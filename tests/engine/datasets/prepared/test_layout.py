"""A folder appears whole or not at all, also when processes are killed or work at the same time."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.common import files
from engine.common.errors import UserError
from engine.common.files import one_at_a_time
from engine.datasets.prepared import layout, ready_config
from engine.datasets.prepared.layout import new_folder

from ....support.command_line import ROOT, Outcome, environment, snapshot, wait_for


def write(output: Path, content: str) -> None:
    """A data set of one file, with a configuration."""
    with new_folder(output, overwrite=True) as folder:
        (folder / "train.parquet").write_text(content)
        (folder / layout.CONFIG).mkdir()
        (folder / layout.CONFIG / "model_config.yaml").write_text(content)


def is_whole(output: Path, content: str, before: str = "") -> bool:
    """Whether a folder has all that ``write`` gives it, and what was kept of the one before."""
    expected: dict[str, Any] = {"train.parquet": content.encode()}
    folders = {layout.CONFIG: content} | ({layout.CONFIG_BEFORE: before} if before else {})
    for name, text in folders.items():
        expected |= {name: None, f"{name}/model_config.yaml": text.encode()}
    return snapshot(output) == expected


def stopped_at_line(count: int, stop: Callable[[], Any], output: Path) -> bool:
    """Overwrite a folder, and stop before the ``count``-th line; returns whether it came to that."""
    watched, seen = {layout.__file__, files.__file__}, 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            seen += 1
            if seen == count:
                stop()
        return trace

    if stop is kill and (child := os.fork()):
        return os.waitpid(child, 0)[1] != 0
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write(output, "new")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        if stop is kill:
            os._exit(0)
    return False


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("stop", [kill, interrupt])
def test_stopped_anywhere_the_old_or_the_new_folder_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], Any], at_once: bool
) -> None:
    """Between any two lines; where two folders cannot be exchanged at once, the next call heals."""
    if not at_once:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    output, count, before, found = tmp_path / "data", 0, "", set()
    while True:
        write(output, "old")
        count += 1
        if not stopped_at_line(count, stop, output):
            break
        if not output.exists():  # a command that only looks puts it back
            assert not at_once
            with pytest.raises(UserError, match="exists already"), new_folder(output):
                pass
        is_old = is_whole(output, "old", before)
        assert is_old or is_whole(output, "new", "old"), count
        found.add(is_old)
        write(output, "older")
        before = "older"
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert is_whole(output, "new", "old")
    assert found == {True, False} and count > 30


def test_what_came_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    output = tmp_path / "data"
    with pytest.raises(UserError, match="exists already"), new_folder(output):
        write_by_hand = output / "notes.txt"
        output.mkdir()
        write_by_hand.write_text("mine")
    assert snapshot(tmp_path) == {"data": None, "data/notes.txt": b"mine"}


def test_a_full_disk(tmp_path: Path) -> None:
    write(tmp_path / "data", "old")
    with (
        pytest.raises(UserError, match="No space left"),
        new_folder(tmp_path / "data", overwrite=True) as folder,
    ):
        (folder / "train.parquet").write_text("new")
        raise OSError(28, "No space left on device")
    assert is_whole(tmp_path / "data", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "data" and Path(target) == tmp_path / "data":
            raise OSError(5, "Input/output error")
        replace(source, target)

    write(tmp_path / "data", "old")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="Input/output error"):
        write(tmp_path / "data", "new")
    assert is_whole(tmp_path / "data", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_without_its_configuration_no_folder_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Outcome]
) -> None:
    def fail(folder: Path, place: Path) -> str:
        assert (folder / "train.parquet").exists() and not place.exists()
        raise UserError("no room for the configuration")

    monkeypatch.setattr(ready_config, "write", fail)
    assert command("session_hopping", "--size", "tiny", "--output", "out").code == 2
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- several processes

ENSURE = """
import sys
from engine.datasets import ensure_generated
ensure_generated({"data_root": sys.argv[1], "dataset_id": "session_hopping_tiny"})
"""


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_one_process_generates_and_the_others_wait_for_it(tmp_path: Path) -> None:
    processes = [start("-c", ENSURE, str(tmp_path / "data")) for _ in range(4)]
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, texts
    assert sum(text.count("generating") for text in texts) == 1
    assert all(text.count("waiting") <= 1 for text in texts)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["session_hopping_tiny"]


def test_the_second_preparation_waits_and_then_finds_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare = ("data/prepare.py", "session_hopping", "--size", "tiny", "--output", str(output))
    with one_at_a_time(tmp_path / ".out.lock", ""):
        second = start(*prepare)
        assert second.stdout is not None
        line = second.stdout.readline()
        assert line == f"another process is writing {output}; waiting for it\n"
        output.mkdir()
        (output / "train.parquet").write_text("first")
    rest = second.communicate(timeout=60)[0]
    assert second.returncode == 2 and "exists already; add --overwrite" in rest
    assert snapshot(tmp_path) == {"out": None, "out/train.parquet": b"first"}


def test_a_killed_process_keeps_no_lock(tmp_path: Path) -> None:
    hold = "import time; from pathlib import Path; from engine.datasets.prepared.layout import new_folder\n"
    hold += f"with new_folder(Path({str(tmp_path / 'data')!r})): time.sleep(60)"
    process = start("-c", hold)
    wait_for((tmp_path / ".data.new").exists)
    process.kill()
    process.communicate()
    write(tmp_path / "data", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
