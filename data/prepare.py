#!/usr/bin/env python
"""Prepare data sets: ``python data/prepare.py movielens --input DIR --output data/movielens_1m``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.errors import UserError, run_command

# Fewer impressions would leave a split empty, fewer items a theme.
LEAST = {"impressions": 10, "items": 100, "seed": 0}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a data set in LongCTR's parquet layout.")
    commands = parser.add_subparsers(dest="command", required=True)
    movielens = commands.add_parser(
        "movielens", help="MovieLens 100K or 1M, from GroupLens's files"
    )
    movielens.add_argument("--input", required=True, help="folder of the downloaded files")
    synthetic = commands.add_parser("session_hopping", help="planted themes, generated")
    synthetic.add_argument("--size", default="small", help="tiny, small or micro")
    synthetic.add_argument("--impressions", type=int, help="samples per user")
    synthetic.add_argument("--items", type=int, help="rows of the item table")
    synthetic.add_argument("--seed", type=int, default=2026)
    for command in (movielens, synthetic):
        command.add_argument("--output", required=True, help="folder to write")
        command.add_argument("--overwrite", action="store_true", help="replace the folder")
    args = parser.parse_args()

    from engine.datasets import layout

    output = _output(args, layout.CARD)
    if args.command == "movielens":
        from engine.datasets.movielens import load

        dataset = load(args.input)
    else:
        dataset = _synthetic(args)
    print(layout.describe(layout.write(dataset, output, args.overwrite)))
    return 0


def _output(args: argparse.Namespace, card: str) -> Path:
    """The folder to write, checked before the work: ``--overwrite`` deletes data sets only."""
    output = Path(args.output).resolve()
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {args.output}: is a file; name a folder")
    if output.exists() and any(output.iterdir()):
        if not args.overwrite:
            raise UserError(
                f"--output {args.output}: exists already; add --overwrite, or name another folder"
            )
        if not (output / card).exists():
            raise UserError(
                f"--output {args.output}: is no data set (there is no {card}), and --overwrite "
                "would delete it; name another folder"
            )
    return output


def _synthetic(args: argparse.Namespace):
    from dataclasses import replace

    from engine.datasets.synthetic import SIZES, generate

    if args.size not in SIZES:
        raise UserError(f"--size {args.size}: write one of {', '.join(SIZES)}")
    for name, least in LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: write {least} or more")
    given = {k: getattr(args, k) for k in ("impressions", "items") if getattr(args, k) is not None}
    return generate(replace(SIZES[args.size], **given), args.seed)


if __name__ == "__main__":
    run_command(main)
