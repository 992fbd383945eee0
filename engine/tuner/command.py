"""The command line of the tuner: ``run_param_tuner.py`` in a checkout, ``mos-tune`` when installed."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.errors import UserError, run_command
from ..common.places import CONFIG
from ..config.options import RunOptions
from .tune import tune


def main() -> None:
    """Run this process's command line and end the process with its exit code."""
    run_command(_tune, "the same command goes on")


def _tune() -> int:
    args = _parser().parse_args()
    if args.trials_per_gpu < 1:
        raise UserError(f"--trials-per-gpu {args.trials_per_gpu}: write a number above 0")
    if min(args.gpu) < -1:
        raise UserError(f"--gpu {min(args.gpu)}: write numbers of CUDA devices, or -1 for the CPU")
    if (args.search == "optuna") != (args.trials is not None):
        raise UserError("--search optuna and --trials N go together: write both or neither")
    if args.trials is not None and (args.trials < 1 or args.tag):
        what = f"--trials {args.trials}: write a number above 0"
        raise UserError("--tag: does not go with --search optuna" if args.tag else what)
    options = RunOptions(model_zoo=args.model_zoo, data_root=args.data_root)
    placed = {"gpus": args.gpu, "per_gpu": args.trials_per_gpu, "ray": args.engine == "ray"}
    return tune(args.config, options, args.expid, args.output, args.tag, args.trials, **placed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run all trials of a grid; rank the results.")
    parser.add_argument("--expid", help="experiment id; its grid is in tuner/ of --config")
    parser.add_argument(
        "--config", type=Path, default=CONFIG,
        help="configuration directory, or a tuner file in FuxiCTR's form",
    )  # fmt: skip
    parser.add_argument("--tag", default="", help="run only trials with this text in their name")
    parser.add_argument(
        "--gpu", nargs="+", type=int, default=[-1], help="CUDA devices, -1 (default) for the CPU"
    )
    parser.add_argument("--trials-per-gpu", type=int, default=1, help="at a time, per device")
    parser.add_argument("--output", type=Path, help="folder; default: checkpoints/tuner/<expid>/")
    parser.add_argument("--search", choices=["grid", "optuna"], default="grid")
    parser.add_argument("--trials", type=int, help="how many trials Optuna draws")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--model-zoo", type=Path, help="folder of your own models, or of LongCTR's")
    parser.add_argument(
        "--data-root", type=Path, help="folder of the data sets, in place of data_root"
    )
    return parser
