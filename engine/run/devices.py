"""The device of a run: check that it exists, and measure how much memory the run took."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..common.errors import UserError
from ..common.memory import forget_peak, memory


def require_device(gpu: int) -> None:
    """Raise a UserError if a CUDA device does not exist; -1 is the CPU."""
    if gpu >= 0 and (not torch.cuda.is_available() or gpu >= torch.cuda.device_count()):
        raise UserError(
            f"--gpu {gpu}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "write --gpu -1 for the CPU"
        )


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
    try:
        forget_peak()
        memory("VmHWM")
    except OSError:
        return lambda: None
    return lambda: memory("VmHWM")
