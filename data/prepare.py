#!/usr/bin/env python
"""Prepare data sets: ``python data/prepare.py movielens --input DIR --output data/movielens_1m``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.common.errors import UserError, run_command
from engine.common.places import HOME
from engine.datasets import layout, ready_config
from engine.datasets.paper import NAMES

# Fewer impressions would leave a split empty, fewer items a theme.
LEAST = {"impressions": 10, "items": 100, "seed": 0}


def main() -> int:
    args = _parser().parse_args()
    if args.command == "check":
        return _check(Path(args.folder).resolve())
    output = _output(args)
    config, kept = output / "config", output / "config_before"
    before = {file.name: file.read_bytes() for file in config.glob("*.yaml")}
    print(layout.describe(args.prepare(args, output)))
    command = ready_config.write(output, HOME)
    if before and before != {file.name: file.read_bytes() for file in config.glob("*.yaml")}:
        kept.mkdir()
        for name, content in before.items():
            (kept / name).write_bytes(content)
        print(f"the configuration that was there is in {kept}")
    print(f"train on it: {command}")
    return 0


# ---------------------------------------------------------------- what each command does


def _movielens(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from engine.datasets import interactions, movielens

    return interactions.write(movielens.load(args.input), output, args.overwrite)


def _ebnerd(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from engine.datasets import ebnerd, interactions

    log = ebnerd.load(args.input, args.sample_features, args.item_features, args.embeddings)
    return interactions.write(log, output, args.overwrite)


def _kuairand(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from engine.datasets import interactions, kuairand

    log = kuairand.load(args.input, args.label, args.min_count)
    return interactions.write(log, output, args.overwrite)


def _generic(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from engine.datasets import generic, interactions
    from engine.datasets.mapping import KEYS, read_mapping

    flags = {name: value for name, value in vars(args).items() if name in KEYS}
    log = generic.load(read_mapping(args.mapping, flags))
    return interactions.write(log, output, args.overwrite)


def _session_hopping(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from dataclasses import replace

    from engine.datasets.synthetic import SIZES, generate

    if args.size not in SIZES:
        raise UserError(f"--size {args.size}: write one of {', '.join(SIZES)}")
    for name, least in LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: write {least} or more")
    given = {k: getattr(args, k) for k in ("impressions", "items") if getattr(args, k) is not None}
    dataset = generate(replace(SIZES[args.size], **given), args.seed)
    return layout.write(dataset, output, args.overwrite)


def _published(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    """One of LongCTR's data sets, or a stand-in."""
    if args.synthetic:
        from engine.datasets.paper_synthetic import generate

        dataset = generate(args.command, args.fraction, args.seed)
        return layout.write(dataset, output, args.overwrite)
    from engine.datasets.hub import download

    return download(args.command, output, offline=args.offline, overwrite=args.overwrite)


def _check(folder: Path) -> int:
    from engine.datasets.check import check

    report = check(folder, HOME)
    print(report)
    return 2 if report.errors else 0


def _output(args: argparse.Namespace) -> Path:
    """The folder to write, checked before the work: ``--overwrite`` deletes data sets only."""
    if args.output is None:
        parts = (
            ("synthetic", args.command) if getattr(args, "synthetic", False) else (args.command,)
        )
        args.output = HOME.joinpath("data", *parts)
    output = Path(args.output).resolve()
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {args.output}: is a file; name a folder")
    if output.exists() and any(output.iterdir()):
        if not args.overwrite:
            raise UserError(
                f"--output {args.output}: exists already; add --overwrite, or name another folder"
            )
        if not (output / layout.CARD).exists():
            raise UserError(
                f"--output {args.output}: is no data set (there is no {layout.CARD}), and --overwrite "
                "would delete it; name another folder"
            )
        for path in output.iterdir():
            if path.name not in layout.WRITTEN:
                raise UserError(
                    f"--output {args.output}: holds {path.name}, which is no part of a data set, and "
                    "--overwrite would delete it; move it away"
                )
    return output


# ---------------------------------------------------------------- the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write a data set in LongCTR's parquet layout.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, prepare: Callable, what: str, output: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        added.set_defaults(prepare=prepare)
        where = f"folder to write{output and f', default {output}'}"
        added.add_argument("--output", required=not output, help=where)
        added.add_argument("--overwrite", action="store_true", help="replace the folder")
        return added

    movielens = command("movielens", _movielens, "MovieLens 100K, 1M, 20M, latest")
    ebnerd = command("ebnerd", _ebnerd, "EB-NeRD's raw files", "data/ebnerd")
    kuairand = command("kuairand", _kuairand, "KuaiRand 1K, Pure or 27K")
    for raw in (movielens, ebnerd, kuairand):
        raw.add_argument("--input", required=True, help="folder of the downloaded files")
    ebnerd.add_argument("--sample-features", nargs="*", help="columns of behaviors.parquet")
    ebnerd.add_argument("--item-features", nargs="*", help="columns of articles.parquet")
    ebnerd.add_argument("--embeddings", help="parquet file: article_id and a column of vectors")
    kuairand.add_argument("--label", default="is_click", help="column of the log")
    kuairand.add_argument("--min-count", type=int, default=1, help="rarer ids share an embedding")

    own = command("generic", _generic, "any table of interactions: say which column is what")
    own.add_argument("--mapping", help="YAML file with the keys below, _ for -")
    own.add_argument("--input", help="CSV, TSV or Parquet: a file, a folder or a pattern")
    own.add_argument("--separator", help="of the fields of a text file; , or tab by its ending")
    own.add_argument("--no-quotes", action="store_true", default=None, help='" is a character')
    for name in ("user", "item", "time"):
        own.add_argument(f"--{name}", help=f"column of the {name}")
    own.add_argument("--time-format", help="such as '%%d.%%m.%%Y', where it is not recognised")
    own.add_argument("--label", help="column of 0 and 1")
    own.add_argument("--rating", help="column of numbers, liked from --positive on")
    own.add_argument("--positive", type=float, help="least rating that counts as liked (4)")
    own.add_argument("--exposures", help="table of what was shown: its rows are the samples")
    own.add_argument("--items", help="table with a row for each item")
    own.add_argument("--item-features", nargs="+", help="columns, as NAME or NAME:KIND")
    own.add_argument("--sample-features", nargs="+", help="columns, as NAME or NAME:KIND")
    own.add_argument("--min-count", type=int, help="rarer values share an embedding (1)")
    own.add_argument("--split", help="time (default) or user")
    own.add_argument("--train", type=float, help="share of the samples (0.8)")
    own.add_argument("--valid", type=float, help="share of the samples (0.1)")

    for name in NAMES:
        published = command(
            name,
            _published,
            "one of the paper's data sets, from the Hugging Face hub",
            f"data/{name}",
        )
        published.add_argument("--offline", action="store_true", help="use the hub's cache alone")
        published.add_argument(
            "--synthetic",
            action="store_true",
            help=f"a stand-in instead, into data/synthetic/{name}",
        )
        published.add_argument("--fraction", type=float, default=1.0, help="of a stand-in")
        published.add_argument("--seed", type=int, default=2026, help="of a stand-in")

    planted = command("session_hopping", _session_hopping, "planted themes, generated")
    planted.add_argument("--size", default="small", help="tiny, small or micro")
    planted.add_argument("--impressions", type=int, help="samples per user")
    planted.add_argument("--items", type=int, help="rows of the item table")
    planted.add_argument("--seed", type=int, default=2026)

    checked = commands.add_parser("check", help="check a prepared folder")
    checked.add_argument("folder")
    return parser


if __name__ == "__main__":
    run_command(main, "nothing was written")
