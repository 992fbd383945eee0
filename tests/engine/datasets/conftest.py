"""The command ``data/prepare.py`` without a process of its own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.datasets.command import main

from ...support.command_line import Outcome


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """The command, run in this process and in the temporary folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        code: Any = end.value.code
        return Outcome(code, *capsys.readouterr())

    return run
