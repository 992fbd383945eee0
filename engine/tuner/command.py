"""The command line of the tuner: ``run_param_tuner.py`` in a checkout, ``mos-tune`` when installed."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError, run_command
from ..config.command_line import CommandLine, positive
from ..config.options import RunOptions
from .tune import tune


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
    placed = {"gpus": args.gpu, "per_gpu": args.per_gpu, "ray": args.engine == "ray"}
    return tune(args.config, options, args.expid, args.output, args.tag, args.trials, **placed)


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
