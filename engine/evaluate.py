"""Metrics of a trained model: ``python -m engine.evaluate --result RESULT.json --split valid``."""

from pathlib import Path

from .common.errors import run_command
from .config.command_line import CommandLine
from .datasets.prepared.card import SPLITS
from .run.cpu import set_up_threads


def main() -> None:
    parser = CommandLine(
        prog="python -m engine.evaluate",
        description="Print the metrics of a trained model on a split of its data set, or of another one.",
    )
    parser.add_argument("--result", type=Path, required=True, help="JSON that run_expid.py wrote")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument(
        "--data", type=Path, help="data set that was prepared --like that of the run"
    )
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device; -1 (default) is the CPU")
    args = parser.parse_args()

    from .predict.scores import evaluate  # imports torch

    for name, value in evaluate(**vars(args)).items():
        print(f"{name} {value:.6f}")


if __name__ == "__main__":
    set_up_threads()
    run_command(main)
