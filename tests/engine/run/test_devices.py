"""The memory that a run takes is its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.run.devices import peak_memory

from ...support.command_line import ROOT

SCRIPT = """
import torch
from engine.run.cpu import set_up_cpu
from engine.run.devices import peak_memory
set_up_cpu()  # malloc keeps what is freed
for numbers in (50_000_000, 1):
    peak = peak_memory(-1)
    torch.ones(numbers)
    print(peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")
def test_a_small_run_does_not_inherit_the_peak_of_a_large_one() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    large, small = map(int, done.stdout.split())
    assert 180e6 < large - small < 250e6


def test_there_is_no_peak_where_the_system_counts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert peak_memory(-1)() is None
