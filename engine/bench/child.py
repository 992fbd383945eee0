"""Python processes of their own, and what they take in time and memory.

Peak memory is read where only Linux has it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from ..common.errors import UserError
from ..run.devices import peak_memory

T = TypeVar("T")


def run_python(*arguments: str, log: Path, **variables: str) -> tuple[float, int]:
    """Run ``python arguments`` to its end, in the folder of ``log``.

    Args:
        arguments: what follows ``python``.
        log: a file for what it prints.
        variables: of its environment, beside those of this process.

    Returns:
        Its wall time in seconds, and its peak memory in bytes. Linux counts the peak of the process
        that starts it, too, so that one must stay small.

    Raises:
        UserError: the process fails. The message has the last lines of its log.
    """
    command = [sys.executable, *arguments]
    with open(log, "wb") as output:
        start = time.perf_counter()
        env = os.environ | variables
        process = subprocess.Popen(command, cwd=log.parent, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = " / ".join(log.read_text(errors="replace").split("\n")[-4:]).strip(" /")
        what = f"python {' '.join(arguments)}"
        raise UserError(f"{what}: stopped with exit code {process.returncode}: {last}")
    return seconds, usage.ru_maxrss * 1024


def in_own_process(function: Callable[..., T], *args: Any) -> T:
    """Call a function of a module in a new process, whose memory is its own, and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def with_peak(work: Callable[[], T], gpu: int = -1) -> tuple[T, int]:
    """Return the result of ``work``, and the most bytes that it took, of a GPU or of this process."""
    peak = peak_memory(gpu)
    before = peak() or 0
    result = work()
    return result, (peak() or 0) - before
