"""Engines, which run trials: an engine starts command lines, reports their end, and stops them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from ..common.places import RUN_EXPID

CPU = -1
PATIENCE = 10.0  # seconds that a process has to end after SIGTERM, before SIGKILL
PR_SET_PDEATHSIG = 1  # a number of prctl(2)


class Job(NamedTuple):
    """A command line to run.

    Attributes:
        name: the name of the trial.
        command: the command line, to which the engine adds ``--gpu``.
        log: the file to which the output is appended.
        folder: the working directory.
    """

    name: str
    command: list[str]
    log: Path
    folder: Path


class Exit(NamedTuple):
    """The end of a job.

    Attributes:
        name: the name of the trial.
        code: the exit code; a negative one is a signal, and None means that the machine was lost.
        device: where the job ran.
    """

    name: str
    code: int | None
    device: str


class Engine(Protocol):
    """The interface of an engine, as the scheduler uses it."""

    def free(self) -> bool:
        """Say whether another job can start now."""

    def start(self, job: Job) -> str:
        """Start a job, and return its device, or the engine's name if no device is known yet."""

    def poll(self) -> list[Exit]:
        """List the jobs that have ended since the last call, without those that were stopped."""

    def stop(self, name: str) -> None:
        """End a job and wait for its end."""

    def close(self) -> None:
        """End all jobs and wait for their end."""


class LocalEngine:
    """Runs jobs as processes of this machine.

    Args:
        gpus: CUDA devices; -1 is the CPU.
        per_gpu: how many jobs run on each device at a time.
    """

    def __init__(self, gpus: Sequence[int], per_gpu: int) -> None:
        self._idle = list(gpus) * per_gpu
        self._environment = threads_environment(len(self._idle))
        self._running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def free(self) -> bool:
        return bool(self._idle)

    def start(self, job: Job) -> str:
        gpu = self._idle.pop(0)
        self._running[job.name] = launch(job, gpu, self._environment), gpu
        return _device_name(gpu)

    def poll(self) -> list[Exit]:
        ended = [name for name, (process, _) in self._running.items() if process.poll() is not None]
        return [self._forget(name) for name in ended]

    def stop(self, name: str) -> None:
        end(self._running[name][0])
        self._forget(name)

    def close(self) -> None:
        for process, _ in self._running.values():
            process.terminate()
        for name in list(self._running):
            self.stop(name)

    def _forget(self, name: str) -> Exit:
        process, gpu = self._running.pop(name)
        self._idle.append(gpu)
        return Exit(name, process.returncode, _device_name(gpu))


def launch(job: Job, gpu: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process for a job; it ends when this process ends, even by a kill."""
    with open(job.log, "ab") as file:
        return subprocess.Popen(
            [*job.command, "--gpu", str(gpu)],
            cwd=job.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the tuner alone, which then ends its jobs
            preexec_fn=partial(_die_with, os.getpid()),
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for its end."""
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


def run_expid_command(config: Path, model_zoo: Path | None) -> list[str]:
    """The command line of ``run_expid.py`` on a configuration directory."""
    zoo = ["--model-zoo", str(model_zoo.resolve())] if model_zoo else []
    return [sys.executable, "-u", *RUN_EXPID, "--config", str(config), *zoo]


def _device_name(gpu: int) -> str:
    """The name by which torch knows a device."""
    return "cpu" if gpu == CPU else f"cuda:{gpu}"


# Loaded here, because a process must not load it between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this new process when its parent dies."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent had already died when the line above ran
            os._exit(1)
