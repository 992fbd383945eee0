"""Settings of a process that trains on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
SCRIPT = """
import torch
from engine.run.cpu import set_up_cpu
torch.set_num_threads(3)
set_up_cpu()
print(int((torch.full((2**20,), 2e-38) * 0.1).count_nonzero()))
"""


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot flush denormal numbers"
)
def test_no_thread_computes_with_denormal_numbers() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
