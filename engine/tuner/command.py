"""The command line of the tuner: ``run_param_tuner.py`` in a checkout, ``mos-tune`` when installed."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..common.errors import UserError, run_command
from ..config.command_line import CommandLine, positive
from ..config.options import RunOptions
from .engines import CPU, Engine, LocalEngine, run_expid_command
from .folder import Folder
from .leaderboard import exit_code, write_report
from .scheduler import Scheduler
from .search import Grid, Search
from .space import Space, read_space


def main() -> None:
    """Run this process's command line and end the process with its exit code."""
    run_command(_tune, "the same command goes on")


def _tune() -> int:
    args = _parser().parse_args()
    if (args.search == "optuna") != (args.trials is not None):
        raise UserError("--search optuna and --trials N go together: write both or neither")
    if args.trials and args.tag:
        raise UserError("--tag: does not go with --search optuna; leave one of them out")
    for wanted, module in ((args.trials, ".optuna_search"), (args.engine == "ray", ".ray_engine")):
        if wanted:  # says what is missing before anything slow starts
            import_module(module, __package__)
    options = RunOptions(model_zoo=args.model_zoo, data_root=args.data_root)
    space = read_space(args.config, options, args.expid)
    from ..run.devices import require_devices  # imports torch, after what can be said without it
    from .checks import check_space, data_hash

    space = check_space(space, options)
    if args.engine == "local":
        require_devices(*args.gpu)
    output = options.home / "checkpoints" / "tuner" / (args.expid or args.config.stem)
    folder = Folder(args.output or output)
    folder.open()
    search = make_search(space, folder, args.tag, args.trials)
    folder.require_same_data(search.trials.values(), data_hash(space, options.home))
    engine = make_engine(args.gpu, args.per_gpu, ray=args.engine == "ray")
    command = run_expid_command(folder.path, options.model_zoo)
    return run_and_report(folder, search, engine, command, options)


def make_search(space: Space, folder: Folder, tag: str, trials: int | None) -> Search:
    """Make the search, and restore its trials from the output folder.

    Args:
        space: the experiment, and the values that the trials vary.
        folder: the output folder.
        tag: run only the trials with this text in their name.
        trials: how many trials Optuna draws; None runs the whole grid.
    """
    if trials is None:
        return Grid(space, folder, tag)
    from .optuna_search import OptunaSearch

    return OptunaSearch(space, folder, trials)


def make_engine(gpus: Sequence[int], per_gpu: int, ray: bool) -> Engine:
    """Make the engine that runs trials, on devices of this machine or on a Ray cluster."""
    if not ray:
        return LocalEngine(gpus, per_gpu)
    from .ray_engine import RayEngine

    return RayEngine(gpu=list(gpus) != [CPU], per_device=per_gpu)


def run_and_report(
    folder: Folder, search: Search, engine: Engine, command: list[str], options: RunOptions
) -> int:
    """Run all trials of a search, write and print the report, and return the exit code."""
    try:
        Scheduler(folder, search, engine, command).run()
    finally:  # report the results so far, even after Ctrl-C
        report = write_report(folder, search, options)
    print("\n" + report)
    return exit_code(search)


def _parser() -> CommandLine:
    parser = CommandLine(description="Run all trials of a grid; rank the results.")
    parser.add_places("configuration directory, or a tuner file in FuxiCTR's form")
    parser.add_devices("--trials-per-gpu")
    parser.add_argument("--expid", help="experiment id; its grid is in tuner/ of --config")
    parser.add_argument("--tag", default="", help="run only trials with this text in their name")
    parser.add_argument("--output", type=Path, help="folder; default: checkpoints/tuner/<expid>/")
    parser.add_argument("--search", choices=["grid", "optuna"], default="grid")
    parser.add_argument("--trials", type=positive, help="how many trials Optuna draws")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    return parser
