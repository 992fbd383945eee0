"""Tables and figures from results: ``python -m engine.analysis RESULTS_DIR``."""

import argparse
from pathlib import Path

from ..common.errors import run_command
from .catalogue import FIGURES, OVERVIEWS, TABLES, write_artefacts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m engine.analysis",
        description="Write tables (Markdown, CSV, LaTeX, HTML) and figures (SVG, PNG) from results.",
    )
    parser.add_argument("results", type=Path, help="folder of engine.study or run_expid.py")
    default = "default: all there is data for"
    parser.add_argument("--only", nargs="+", choices=[*TABLES, *OVERVIEWS, *FIGURES], help=default)
    args = parser.parse_args()
    for path in write_artefacts(args.results, args.only):
        print(path)


if __name__ == "__main__":
    run_command(main)
