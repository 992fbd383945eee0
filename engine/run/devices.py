"""The device of a run: check that it exists, and measure how much memory the run took."""

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ..common.errors import UserError


def require_devices(*gpus: int) -> None:
    """Raise a UserError if a CUDA device does not exist; -1 is the CPU."""
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if missing := [gpu for gpu in gpus if gpu >= devices]:
        sees = f"torch {torch.__version__} sees {devices} CUDA devices"
        raise UserError(f"--gpu {missing[0]}: {sees}; write --gpu -1 for the CPU")


def peak_memory(gpu: int) -> Callable[[], int | None]:
    """Start to watch the memory of a run.

    Returns:
        A function that returns the peak since then in bytes, of the GPU's allocator or of this
        process. It returns None if the system does not measure the peak.
    """
    if gpu >= 0:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(gpu)
        return lambda: torch.cuda.max_memory_allocated(gpu)
    # What was freed goes back to the system first, for malloc may keep it.
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    except OSError:  # no Linux, or one that does not allow it
        return lambda: None
    return _peak_of_process


def _peak_of_process() -> int | None:
    """The peak in bytes, as the kernel counts it; None where it does not.

    ``getrusage`` would count the peak of the process that started this one, too.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else None
