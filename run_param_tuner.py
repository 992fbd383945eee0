#!/usr/bin/env python
"""Tune parameters: ``python run_param_tuner.py --config config/tuner/TWIN_MoS_movielens_1m.yaml``."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.common.errors import UserError, run_command
from engine.common.places import HOME
from engine.tuner.tune import tune


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run all trials of a tuner file; rank the results."
    )
    parser.add_argument("--config", type=Path, required=True, help="tuner file, in FuxiCTR's form")
    parser.add_argument("--tag", default="", help="run only trials with this text in their name")
    parser.add_argument(
        "--gpu", nargs="+", type=int, default=[-1], help="CUDA devices, -1 (default) for the CPU"
    )
    parser.add_argument("--trials-per-gpu", type=int, default=1, help="at a time, per device")
    parser.add_argument("--output", type=Path, help="folder; default: checkpoints/tuner/<file>/")
    parser.add_argument("--search", choices=["grid", "optuna"], default="grid")
    parser.add_argument("--trials", type=int, help="how many trials Optuna draws")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument(
        "--data-root", type=Path, help="folder of the data sets, in place of data_root"
    )
    args = parser.parse_args()
    if args.trials_per_gpu < 1:
        raise UserError(f"--trials-per-gpu {args.trials_per_gpu}: write a number above 0")
    if min(args.gpu) < -1:
        raise UserError(f"--gpu {min(args.gpu)}: write numbers of CUDA devices, or -1 for the CPU")
    if (args.search == "optuna") != (args.trials is not None):
        raise UserError("--search optuna and --trials N go together: write both or neither")
    if args.trials is not None and (args.trials < 1 or args.tag):
        what = f"--trials {args.trials}: write a number above 0"
        raise UserError("--tag: does not go with --search optuna" if args.tag else what)
    return tune(
        args.config,
        HOME,
        args.output,
        args.tag,
        args.gpu,
        args.trials_per_gpu,
        args.trials,
        args.engine == "ray",
        args.data_root,
    )


if __name__ == "__main__":
    run_command(main, "the same command goes on")
