"""The parts of a call of the tuner: its search, its engine, the command of a trial, and its report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..common.places import RUN_EXPID
from .engines import CPU, Engine, LocalEngine
from .folder import Folder
from .leaderboard import exit_code, write_report
from .scheduler import Scheduler
from .search import Grid, Search
from .space import Space


def make_search(space: Space, folder: Folder, tag: str, trials: int | None) -> Search:
    """The search, with what the output folder knows of its trials.

    Args:
        space: what the trials vary.
        folder: the output folder.
        tag: run only the trials with this text in their name.
        trials: how many trials Optuna draws; None runs the whole grid.
    """
    if trials is None:
        return Grid(space, folder, tag)
    from .optuna_search import OptunaSearch

    return OptunaSearch(space, folder, trials)


def make_engine(gpus: Sequence[int], per_gpu: int, ray: bool) -> Engine:
    """Where the trials run: on devices of this machine, or on a Ray cluster."""
    if not ray:
        return LocalEngine(gpus, per_gpu)
    from .ray_engine import RayEngine

    return RayEngine(gpu=list(gpus) != [CPU], per_device=per_gpu)


def run_expid_command(folder: Folder, model_zoo: Path | None) -> list[str]:
    """The command line of ``run_expid.py`` on the configuration that the folder has."""
    zoo = ["--model-zoo", str(model_zoo.resolve())] if model_zoo else []
    return [sys.executable, "-u", *RUN_EXPID, "--config", str(folder.path), *zoo]


def require_devices(gpus: Sequence[int]) -> None:
    """Reject a CUDA device that is not there."""
    from ..run.devices import require_device  # imports torch

    for gpu in gpus:
        require_device(gpu)


def run_and_report(
    folder: Folder, search: Search, engine: Engine, command: list[str], home: Path
) -> int:
    """Run all that a search asks for, and write and print the report; returns the exit code."""
    try:
        Scheduler(folder, search, engine, command).run()
    finally:  # what is known so far, also after Ctrl-C
        report = write_report(folder, search, home)
    print("\n" + report)
    return exit_code(search)
