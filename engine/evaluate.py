"""Metrics of a trained model: ``python -m engine.evaluate --result RESULT.json --split valid``."""

from .common.errors import run_command
from .config.command_line import CommandLine
from .datasets.prepared.card import SPLITS
from .run.cpu import set_up_threads


def main() -> None:
    parser = CommandLine(
        prog="python -m engine.evaluate",
        description="Print the metrics of a trained model on a split of its data set, or of another one.",
    )
    parser.add_trained(data="data set that was prepared --like that of the run")
    parser.add_gpu()
    parser.add_argument("--split", choices=SPLITS, default="test")
    args = parser.parse_args()

    from .predict.scores import evaluate  # imports torch

    for name, value in evaluate(**vars(args)).items():
        print(f"{name} {value:.6f}")


if __name__ == "__main__":
    set_up_threads()
    run_command(main)
