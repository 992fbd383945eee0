"""The paper's experiments: ``python -m engine.study table1 --dataset movielens_100k --seeds 5``."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_zoo.registry import BACKBONES, MIXTURES

from ..common.errors import UserError, run_command
from ..common.places import HOME
from ..config.command_line import CommandLine, parse_changes, positive
from ..config.options import RunOptions
from .call import BUDGET, Call, default_budget
from .experiments import ALONE, EXPERIMENTS, UNTUNED
from .study import study

DECIDED = dict.fromkeys(
    ("seed", "model", "dataset_id", "model_root", "model_id"), "the study decides it"
)


def main() -> int:
    args = _parser().parse_args()
    if args.experiment in UNTUNED and args.budget not in (None, 1):
        raise UserError(
            f"--budget {args.budget}: {args.experiment} runs at the configuration's own values, since tuning "
            "would set the keys that are compared; leave --budget out"
        )
    changes = parse_changes(args.set, DECIDED)
    call = Call(
        args.experiment,
        args.dataset,
        args.seeds,
        args.budget or default_budget(args.experiment),
        args.backbones,
        args.variants,
        changes,
    )
    options = RunOptions(
        config=args.config, model_zoo=args.model_zoo, data_root=args.data_root, changes=changes
    )
    return study(call, options, args.output, args.gpu, args.per_gpu, args.queue)


def _parser() -> CommandLine:
    summaries = {name: str(f.__doc__).splitlines()[0] for name, f in EXPERIMENTS.items()}
    parser = CommandLine(
        prog="python -m engine.study",
        description="Run what an experiment lacks: tuning, then every seed of every configuration; "
        "and write tables and figures. The same command goes on after a kill.",
        epilog="\n".join(f"{name:8} {text}" for name, text in summaries.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--dataset", required=True, help="data set id, as in <model>_<dataset>")
    parser.add_argument(
        "--seeds", type=positive, default=5, help="how many: 1, 2, ... (default: 5)"
    )
    parser.add_argument(
        "--budget", type=positive,
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
    parser.add_places()
    parser.add_changes()
    parser.add_devices("--runs-per-gpu")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="default: results/")
    parser.add_argument(
        "--queue", type=Path,
        help="folder of checkpoints and logs (default: checkpoints/study/<name of output>)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    run_command(main, "the same command goes on")
