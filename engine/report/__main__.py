"""Command line of the report: ``python -m engine.report RESULTS [-o report.html]``."""

import argparse
from pathlib import Path

from ..common.errors import UserError, run_command
from ..common.files import write_text
from .page import build


def main() -> None:
    """Write the page of a folder of results."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.report",
        description="Write one HTML page with all results below a folder; it needs no network.",
    )
    results = "folder that engine.study or run_expid.py wrote to"
    parser.add_argument("results", type=Path, help=results)
    parser.add_argument("-o", "--output", type=Path, help="the page (RESULTS/report.html)")
    args = parser.parse_args()
    output = args.output or args.results / "report.html"
    if args.output and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"-o {output}: name a file in a folder that is there")
    write_text(output, build(args.results))
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, open it in a browser")


if __name__ == "__main__":
    run_command(main, interrupted="nothing was written")
