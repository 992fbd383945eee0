"""Settings of a process for fast training on a CPU. Importing this module changes nothing."""

import ctypes
import os
import sys

# Parameters of mallopt(3)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def set_up_threads() -> None:
    """Let OpenMP's threads wait for each other about as long as a small operation takes.

    torch's OpenMP (libgomp in its wheels for Linux) reads its environment when torch is imported,
    so this has to be called before. By default the threads spin for milliseconds while they wait.
    If another job holds a core, each of a model's many small operations then waits for a turn of
    the scheduler. Threads that sleep at once are slow to wake. With them, the selective scan took 3
    times as long on 2 idle cores. A variable that the user has set is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def set_up_cpu() -> None:
    """Set up memory and arithmetic; this must be called before torch starts its threads.

    Numbers below 2^-126 (in float64 2^-1022) count as zero, since processors are many times slower
    with them. A selective scan, whose states decay exponentially, is full of such numbers.
    """
    import torch  # here, so that ``set_up_threads`` can come before it

    keep_freed_memory()
    torch.set_flush_denormal(True)


def keep_freed_memory() -> None:
    """Tell glibc's malloc to serve large blocks from its heap and never to shrink it.

    Every step frees and takes the same large blocks. By default glibc gives each back to the system
    and gets it again as new pages, which the kernel has to clear on first touch. This was most of a
    step's time: on MovieLens 1M, TWIN with batches of 2048 trains 2.0 times as fast without it.
    Nothing happens if the C library is not glibc.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
