"""Where trials run: an engine starts command lines, tells which have ended, and stops them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

CPU = -1
PATIENCE = 10.0  # seconds from the polite signal to the other one
PR_SET_PDEATHSIG = 1  # prctl(2)


class Job(NamedTuple):
    """A command line to run.

    Attributes:
        name: of the trial.
        command: for a device: -1 is the CPU.
        log: gets its output, added to what is there.
        folder: its working directory.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    log: Path
    folder: Path


class Exit(NamedTuple):
    """The end of a job.

    Attributes:
        code: as of ``subprocess``: negative is a signal; None where the machine was lost.
        device: where it ran.
    """

    name: str
    code: int | None
    device: str


class Engine(Protocol):
    """What the scheduler needs; a job that was stopped does not appear in ``poll``."""

    def free(self) -> bool:
        """Whether another job can start now."""

    def start(self, job: Job) -> str:
        """Start a job; returns the device, as far as it is known yet."""

    def poll(self) -> list[Exit]:
        """The jobs that have ended since the last call."""

    def stop(self, name: str) -> None:
        """End a job and wait for it."""

    def close(self) -> None:
        """End all jobs and wait for them."""


class LocalEngine:
    """Processes of this machine.

    Args:
        gpus: CUDA devices; -1 is the CPU.
        per_gpu: how many jobs at a time on each.
    """

    def __init__(self, gpus: Sequence[int], per_gpu: int) -> None:
        self._idle = [gpu for _ in range(per_gpu) for gpu in gpus]
        self._environment = threads_environment(len(self._idle))
        self._running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def free(self) -> bool:
        return bool(self._idle)

    def start(self, job: Job) -> str:
        gpu = self._idle.pop(0)
        process = launch(job.command(gpu), job.log, job.folder, self._environment)
        self._running[job.name] = process, gpu
        return device_name(gpu)

    def poll(self) -> list[Exit]:
        ended = []
        for name, (process, gpu) in list(self._running.items()):
            if process.poll() is not None:
                ended.append(Exit(name, process.returncode, device_name(gpu)))
                self._forget(name)
        return ended

    def stop(self, name: str) -> None:
        end(self._running[name][0])
        self._forget(name)

    def close(self) -> None:
        for process, _ in self._running.values():
            process.terminate()
        for name in list(self._running):
            self.stop(name)

    def _forget(self, name: str) -> None:
        _, gpu = self._running.pop(name)
        self._idle.append(gpu)


def launch(
    command: Sequence[str], log: Path, folder: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one, even when this one is killed."""
    with open(log, "ab") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tuner, which then ends its jobs
            preexec_fn=partial(_die_with, os.getpid()),
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def threads_environment(jobs: int) -> dict[str, str]:
    """The environment of each of ``jobs`` processes that share the cores of this machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    shared = {"OMP_NUM_THREADS": str(max(1, cores // jobs))} if jobs > 1 else {}
    return shared | os.environ


def device_name(gpu: int) -> str:
    """As torch calls it."""
    return "cpu" if gpu == CPU else f"cuda:{gpu}"


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before a process forks


def _die_with(parent: int) -> None:
    """In the new process: get killed when the parent dies."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
