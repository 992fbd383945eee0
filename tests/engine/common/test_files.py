"""One process at a time holds a lock."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.common.errors import UserError
from engine.common.files import lock

from ...support.command_line import ROOT

TAKE = """
import sys
from engine.common.files import lock
file = open(sys.argv[1], "a")
lock(file)
"""


def test_another_process_holds_the_lock(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        lock(file)
        command = [sys.executable, "-c", TAKE, str(tmp_path / "file")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
    subprocess.run(command, cwd=ROOT, check=True)


def test_a_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open(tmp_path / "file", "w") as file, pytest.raises(UserError, match="use Linux"):
        lock(file)
