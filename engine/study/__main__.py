"""The paper's experiments: ``python -m engine.study table1 --dataset movielens_100k --seeds 5``."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_zoo.registry import BACKBONES, MIXTURES

from ..common.errors import UserError, run_command
from ..common.places import CONFIG, HOME
from ..config.changes import parse_changes
from ..config.options import RunOptions
from .call import BUDGET, Call, default_budget
from .experiments import ALONE, EXPERIMENTS, UNTUNED
from .study import study

DECIDED = ("seed", "model", "dataset_id", "model_root", "model_id")  # by the study


def main() -> int:
    summaries = {name: str(f.__doc__).splitlines()[0] for name, f in EXPERIMENTS.items()}
    parser = argparse.ArgumentParser(
        prog="python -m engine.study",
        description="Run what an experiment lacks: tuning, then every seed of every configuration; "
        "and write tables and figures. The same command goes on after a kill.",
        epilog="\n".join(f"{name:8} {text}" for name, text in summaries.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--dataset", required=True, help="data set id, as in <model>_<dataset>")
    parser.add_argument("--seeds", type=int, default=5, help="how many: 1, 2, ... (default: 5)")
    parser.add_argument(
        "--budget", type=int,
        help=f"tuning trials of each model (default: {BUDGET}); 1 takes the configuration as it is, as knobs do",
    )  # fmt: skip
    parser.add_argument(
        "--backbones", nargs="+", default=[],
        help=f"only these of {', '.join(BACKBONES)}, or of --model-zoo",
    )  # fmt: skip
    parser.add_argument(
        "--variants", nargs="+", default=[],
        help=f"only these of the backbones: {', '.join((ALONE, *MIXTURES))}",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of every configuration"
    )
    parser.add_argument(
        "--gpu", nargs="+", type=int, default=[-1], help="CUDA devices, -1: the CPU"
    )
    parser.add_argument("--runs-per-gpu", type=int, default=1, help="at a time, per device")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="default: results/")
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: config/")
    parser.add_argument("--model-zoo", type=Path, help="folder of your own models, or of LongCTR's")
    parser.add_argument(
        "--data-root", type=Path, help="folder of the data sets, in place of data_root"
    )
    parser.add_argument(
        "--queue", type=Path,
        help="folder of checkpoints and logs (default: checkpoints/study/<name of output>)",
    )  # fmt: skip
    args = parser.parse_args()
    if args.experiment in UNTUNED and args.budget not in (None, 1):
        raise UserError(
            f"--budget {args.budget}: {args.experiment} runs at the configuration's own values, since tuning "
            "would set the keys that are compared; leave --budget out"
        )
    if args.budget is None:
        args.budget = default_budget(args.experiment)
    for flag in ("seeds", "budget", "runs_per_gpu"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise UserError(f"--{name} {getattr(args, flag)}: write a number above 0")
    if min(args.gpu) < -1:
        raise UserError(f"--gpu {min(args.gpu)}: write numbers of CUDA devices, or -1 for the CPU")
    changes = parse_changes(args.set)
    for key in changes:
        if key in DECIDED:
            raise UserError(f"--set {key}={changes[key]}: the study decides {key}")
    call = Call(
        args.experiment,
        args.dataset,
        args.seeds,
        args.budget,
        args.backbones,
        args.variants,
        changes,
    )
    options = RunOptions(
        config=args.config, model_zoo=args.model_zoo, data_root=args.data_root, changes=changes
    )
    return study(call, options, args.output, args.gpu, args.runs_per_gpu, args.queue)


if __name__ == "__main__":
    run_command(main, "the same command goes on")
