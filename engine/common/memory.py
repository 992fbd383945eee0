"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def memory(field: str) -> int:
    """Bytes of this process: of ``VmRSS`` now, of ``VmHWM`` at the peak.

    ``getrusage`` would count the peak of the process that started this one, too.

    Raises:
        OSError: the system is not Linux.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Let the peak start again, from what this process needs now.

    What was freed goes back to the system first, for malloc may keep it.

    Raises:
        OSError: the system is not Linux, or does not allow it.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
