"""Peak memory of one scan, forward and backward, in a process of its own:
``python -m engine.bench.scan_memory NAME LENGTH BATCH DEVICE`` prints the bytes beyond what the process
held before, inputs and room for their gradients included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from .scan_cases import SCANS, random_inputs

ROOT = Path(__file__).resolve().parents[2]


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
    before = _bytes("VmRSS") if device == "cpu" else torch.cuda.memory_allocated()
    scan(*inputs).sum().backward()
    peak = _bytes("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()
    print(peak - before)


def _bytes(field: str) -> int:
    """From the kernel's count of this process; ``getrusage`` would count the parent's peak too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
