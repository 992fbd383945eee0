"""A Python process: what it takes in time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # of the project


class Usage(NamedTuple):
    """What a process took: wall time, processor time of all its threads, and its peak memory.

    Linux counts the starting process's peak too, so that one must stay small.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run_python(
    *arguments: str, cwd: Path | None = None, log: Path, variables: Mapping[str, str] | None = None
) -> Usage:
    """Run ``python arguments`` to its end.

    Args:
        cwd: its folder; default: this process's.
        log: file for what it prints.
        variables: of its environment, beside those of this process.

    Raises:
        UserError: it fails; the message has the last lines of its log.
    """
    with open(log, "wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=os.environ | dict(variables or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C: leave nothing running
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = " / ".join(log.read_text(errors="replace").split("\n")[-4:]).strip(" /")
        raise UserError(
            f"python {' '.join(arguments)}: stopped with exit code {process.returncode}: {last}"
        )
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def memory(field: str) -> int:
    """Bytes of this process by the kernel's count: ``VmRSS`` now, ``VmHWM`` at its peak. ``getrusage``
    would count the parent's peak too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Let ``VmHWM`` start again from what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
