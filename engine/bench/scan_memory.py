"""Peak memory of one scan, forward and backward, in a process of its own:
``python -m engine.bench.scan_memory NAME LENGTH BATCH DEVICE`` prints the bytes beyond what the process
held before, inputs and room for their gradients included."""

from __future__ import annotations

import subprocess
import sys

import torch

from .process import ROOT, memory
from .scan_cases import SCANS, random_inputs


def peak_bytes(name: str, length: int, batch_size: int, device: torch.device) -> int:
    """The peak of ``SCANS[name]``."""
    arguments = [name, str(length), str(batch_size), str(device)]
    command = [sys.executable, "-m", "engine.bench.scan_memory", *arguments]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    name, length, batch_size, device = sys.argv[1:]
    scan = SCANS[name]
    few = [x.to(device).requires_grad_() for x in random_inputs(2, 2)]
    scan(*few).sum().backward()  # what is loaded at the first call is not the scan's
    inputs = [x.to(device).requires_grad_() for x in random_inputs(int(length), int(batch_size))]
    for x in inputs:
        x.grad = torch.ones_like(x)
    before = memory("VmRSS") if device == "cpu" else torch.cuda.memory_allocated()
    scan(*inputs).sum().backward()
    peak = memory("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()
    print(peak - before)


if __name__ == "__main__":
    main()
