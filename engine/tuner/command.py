"""The command line of the tuner: ``run_param_tuner.py`` in a checkout, ``mos-tune`` when installed."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError, run_command
from ..config.command_line import CommandLine, positive
from ..config.options import RunOptions
from .folder import Folder
from .space import read_space
from .tune import make_engine, make_search, require_devices, run_and_report, run_expid_command


def main() -> None:
    """Run this process's command line and end the process with its exit code."""
    run_command(_tune, "the same command goes on")


def _tune() -> int:
    args = _parser().parse_args()
    if (args.search == "optuna") != (args.trials is not None):
        raise UserError("--search optuna and --trials N go together: write both or neither")
    if args.trials and args.tag:
        raise UserError("--tag: does not go with --search optuna; leave one of them out")
    options = RunOptions(model_zoo=args.model_zoo, data_root=args.data_root)
    space = read_space(args.config, options, args.expid)
    from .checks import check_space, data_hash  # imports torch, after what can be said without it

    space = check_space(space, options)
    if args.engine == "local":
        require_devices(args.gpu)
    output = options.home / "checkpoints" / "tuner" / (args.expid or args.config.stem)
    folder = Folder(args.output or output)
    folder.open()
    search = make_search(space, folder, args.tag, args.trials)
    folder.require_same_data(search.trials.values(), data_hash(space, options.home))
    engine = make_engine(args.gpu, args.per_gpu, ray=args.engine == "ray")
    command = run_expid_command(folder, options.model_zoo)
    return run_and_report(folder, search, engine, command, options.home)


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
