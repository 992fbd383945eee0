"""Keep freed memory in the process: on the CPU, most of a step's time was page faults.

Every step frees and takes the same large blocks. By default glibc gives each back to the system and
gets it again as new pages, which the kernel has to clear on first touch.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tell glibc's malloc to serve large blocks from its heap and never to shrink it.

    Measured on MovieLens 1M, TWIN, batch 2048: 2.0 times the samples per second. Does nothing
    where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
