"""Write a trained model as a program for serving: ``python -m engine.export --result R -o model/``."""

from pathlib import Path

from .common.errors import run_command
from .config.command_line import CommandLine
from .run.cpu import set_up_threads


def main() -> None:
    parser = CommandLine(
        prog="python -m engine.export",
        description="Write a trained model as a program of torch.export, which scores the candidates of "
        "one user. `engine.predict --model` runs it, and so does torch alone.",
    )
    parser.add_trained(data="folder of the data set, if it was moved")
    parser.add_argument("--output", "-o", type=Path, required=True, help="a new folder")
    what = "compile it for this machine's processor, which needs a C++ compiler"
    parser.add_argument("--compile", action="store_true", help=what)
    args = parser.parse_args()
    from .predict.exporting import export  # imports torch

    difference = export(**vars(args))
    print(f"{args.output}: 99 % of 1,000 test samples have the run's score to {difference:.1e}")


if __name__ == "__main__":
    set_up_threads()
    run_command(main, "nothing was written")
