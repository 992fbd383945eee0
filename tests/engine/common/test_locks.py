"""One process at a time holds a lock, on systems with ``fcntl`` and on Windows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.common.locks import lock

from ...support.command_line import ROOT

TAKE = """
import sys
from engine.common.locks import lock
file = open(sys.argv[1], "a")
lock(file.fileno())
"""


def test_another_process_holds_the_lock(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        lock(file.fileno())
        command = [sys.executable, "-c", TAKE, str(tmp_path / "file")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
    subprocess.run(command, cwd=ROOT, check=True)


def test_windows_locks_a_byte_behind_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def locking(file: int, mode: int, count: int) -> None:
        place = os.lseek(file, 0, os.SEEK_CUR)
        if place in taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.append(place)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with open(tmp_path / "file", "w") as file:
        file.write("content")
        lock(file.fileno())
        with pytest.raises(BlockingIOError):
            lock(file.fileno())
    assert taken == [2**30] and (tmp_path / "file").read_text() == "content"
