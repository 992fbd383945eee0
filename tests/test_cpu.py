"""Settings of a process that trains on a CPU."""

import subprocess
import sys

import pytest
import torch

SCRIPT = """
import torch
from engine.cpu import set_up_cpu
torch.set_num_threads(3)
set_up_cpu()
print(int((torch.full((2**20,), 1e-38) * 0.1).count_nonzero()))
"""


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot flush denormal numbers"
)
def test_no_thread_computes_with_denormal_numbers():
    command = [sys.executable, "-c", SCRIPT]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"
