"""One call of the tuner, from its arguments to its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..common.errors import UserError
from ..common.places import RUN_EXPID
from ..config.options import RunOptions
from .display import Display
from .engines import CPU, Engine, LocalEngine
from .folder import Folder
from .leaderboard import Monitor, exit_code, write_report
from .scheduler import Command, Scheduler
from .search import Grid, Search
from .space import Space, data_hash, read_space
from .trial import QUEUED, Trial


def tune(
    config: Path,
    options: RunOptions,
    expid: str | None = None,
    output: Path | None = None,
    tag: str = "",
    trials: int | None = None,
    *,
    gpus: Sequence[int] = (CPU,),
    per_gpu: int = 1,
    ray: bool = False,
) -> int:
    """Run the trials of a grid and write their report; returns the exit code.

    Args:
        config: a configuration directory or a tuner file, see ``read_space``.
        options: of the runs; they start ``run_expid.py`` with the same ``model_zoo``.
        expid: the experiment to tune; None takes the one that the tuner file names.
        output: default ``checkpoints/tuner/<experiment or name of the file>``.
        tag: run only the trials with this text in their name.
        trials: how many trials Optuna draws; None runs the whole grid.
        gpus: CUDA devices; -1 is the CPU.
        per_gpu: trials at a time on each device.
        ray: run on a Ray cluster.

    Raises:
        UserError: bad input; nothing has been started.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the runs are ended, and the same call goes on.
    """
    for wanted, module in ((trials, ".optuna_search"), (ray, ".ray_engine")):
        if wanted:
            import_module(module, __package__)  # says what is missing before anything slow starts
    space = read_space(config, options, expid)
    known_by = config / "tuner" / f"{expid}.yaml" if config.is_dir() else config
    folder = Folder(output or options.home / "checkpoints" / "tuner" / (expid or config.stem))

    from .checks import check_space  # imports torch, after what can be said without it

    space = check_space(space, options)
    if not ray:
        require_devices(gpus)
    folder.open(known_by)
    search = make_search(space, folder, tag, trials)
    folder.require_same_data(search.trials.values(), data_hash(space, options.home))
    engine = make_engine(gpus, per_gpu, ray)
    command = run_expid_command(folder, options.model_zoo)
    return run_and_report(space, folder, search, engine, command, options.home)


def make_search(space: Space, folder: Folder, tag: str, trials: int | None) -> Search:
    """The search, with what the output folder knows of its trials."""
    if trials is not None:
        from .optuna_search import OptunaSearch

        return OptunaSearch(space, folder, trials)
    known = list(space.grid())
    for trial in known:
        folder.restore(trial)
    grid = Grid(known, tag)
    if not grid.size:
        names = ", ".join(trial.name for trial in known[:5])
        raise UserError(f"--tag {tag}: in no trial's name; there are {names} ({len(known)} in all)")
    return grid


def make_engine(gpus: Sequence[int], per_gpu: int, ray: bool) -> Engine:
    """Where the trials run."""
    if not ray:
        return LocalEngine(gpus, per_gpu)
    from .ray_engine import RayEngine

    return RayEngine(gpu=list(gpus) != [CPU], per_device=per_gpu)


def run_and_report(
    space: Space, folder: Folder, search: Search, engine: Engine, command: Command, home: Path
) -> int:
    """Run all that the search asks for, and write and print the report; returns the exit code."""
    try:
        run_all(space, folder, search, engine, command)
    finally:  # what is known so far, also after Ctrl-C
        report = write_report(space, folder, search.trials, home)
    print("\n" + report)
    return exit_code(search.selected())


def run_all(space: Space, folder: Folder, search: Search, engine: Engine, command: Command) -> None:
    """Run all that the search asks for, showing progress; a signal ends it as Ctrl-C does."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    ended = sum(trial.status != QUEUED for trial in search.selected())
    display = Display(search.size, ended, Monitor(space.model))
    Scheduler(space, folder, search, engine, command, display).run()


def run_expid_command(folder: Folder, model_zoo: Path | None) -> Command:
    """Run ``run_expid.py`` on the experiment id of a trial. A run that was killed goes on."""
    zoo = ["--model-zoo", str(model_zoo.resolve())] if model_zoo else []

    def command(trial: Trial, gpu: int) -> list[str]:
        run_expid = [sys.executable, "-u", *RUN_EXPID, "--config", str(folder.path), *zoo]
        seed = str(trial.params["seed"])
        return [*run_expid, "--expid", trial.expid, "--seed", seed, "--gpu", str(gpu), "--resume"]

    return command


def require_devices(gpus: Sequence[int]) -> None:
    """Reject a CUDA device that is not there."""
    from ..run.devices import require_device  # imports torch

    for gpu in gpus:
        require_device(gpu)
