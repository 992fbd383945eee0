"""The command ``data/prepare.py``: write a data set, or check one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError, run_command
from ..common.places import HOME
from . import GENERATED, SEED
from .paper import NAMES

if TYPE_CHECKING:
    from .interactions import Log
    from .layout import Dataset

# Fewer impressions would leave a split empty, fewer items a theme.
LEAST = {"impressions": 20, "items": 100, "seed": 0}


def main() -> None:
    """Run the command line and end the process."""
    run_command(_run, "nothing was written")


def _run() -> int:
    args = _parser().parse_args()
    if args.command == "check":
        from .check import check

        report = check(Path(args.folder).resolve())
        print(report)
        return 2 if report.errors else 0

    from . import layout, ready_config
    from .card import describe

    output = Path(args.output or HOME / "data" / args.command)
    layout.require_free(output, args.overwrite)  # a long preparation would end with this error
    output = output.resolve()
    config, kept = output / layout.CONFIG, output / layout.CONFIG_BEFORE
    before = {file.name: file.read_bytes() for file in config.glob("*.yaml")}
    print(describe(_prepare(args, output)))
    command = ready_config.write(output)
    if before and before != {file.name: file.read_bytes() for file in config.glob("*.yaml")}:
        kept.mkdir()
        for name, content in before.items():
            (kept / name).write_bytes(content)
        print(f"the configuration that was there is in {kept}")
    print(f"train on it: {command}")
    return 0


def _prepare(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Write what the command line names into a folder; returns the card."""
    if args.command in NAMES:
        from .hub import download

        return download(args.command, output, offline=args.offline, overwrite=args.overwrite)
    if args.command == "session_hopping":
        from . import layout

        return layout.write(_session_hopping(args), output, args.overwrite)
    from . import interactions

    return interactions.write(_log(args), output, args.overwrite)


def _log(args: argparse.Namespace) -> Log:
    from . import ebnerd, generic, kuairand, movielens
    from .mapping import KEYS, read_mapping

    if args.command == "movielens":
        return movielens.load(args.input)
    if args.command == "ebnerd":
        return ebnerd.load(args.input, args.sample_features, args.item_features, args.embeddings)
    if args.command == "kuairand":
        return kuairand.load(args.input, args.label, args.min_count)
    flags = {name: value for name, value in vars(args).items() if name in KEYS}
    return generic.load(read_mapping(args.mapping, flags))


def _session_hopping(args: argparse.Namespace) -> Dataset:
    from .synthetic import SIZES, generate

    given = {name: getattr(args, name) for name in LEAST if getattr(args, name) is not None}
    for name, value in given.items():
        if value < LEAST[name]:
            raise UserError(f"--{name} {value} is too small; write {LEAST[name]} or more")
    seed = given.pop("seed")
    return generate(replace(SIZES[args.size], **given), seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write a data set in LongCTR's parquet layout.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, what: str, default: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        where = "the folder to write" + (f", data/{name} by default" if default else "")
        added.add_argument("--output", required=not default, help=where)
        added.add_argument("--overwrite", action="store_true", help="replace the folder")
        return added

    movielens = command("movielens", "MovieLens 100K, 1M, 20M or latest")
    ebnerd = command("ebnerd", "EB-NeRD's raw files", default=True)
    kuairand = command("kuairand", "KuaiRand 1K, Pure or 27K")
    for raw in (movielens, ebnerd, kuairand):
        raw.add_argument("--input", required=True, help="folder of the downloaded files")
    ebnerd.add_argument("--sample-features", nargs="*", help="columns of behaviors.parquet")
    ebnerd.add_argument("--item-features", nargs="*", help="columns of articles.parquet")
    ebnerd.add_argument("--embeddings", help="Parquet file with article_id and a column of vectors")
    kuairand.add_argument("--label", default="is_click", help="column of the log")
    kuairand.add_argument("--min-count", type=int, default=1, help="rarer ids share an embedding")

    own = command("generic", "any table of interactions: say which column is what")
    own.add_argument("--mapping", help="YAML file with the keys below, written with _ for -")
    own.add_argument("--input", help="CSV, TSV or Parquet: a file, a folder or a pattern")
    own.add_argument("--separator", help="what separates the fields of a text file")
    own.add_argument(
        "--no-quotes", action="store_true", default=None, help='" is an ordinary character'
    )
    for name in ("user", "item", "time"):
        own.add_argument(f"--{name}", help=f"column of the {name}")
    own.add_argument("--time-format", help="such as '%%d.%%m.%%Y', where it is not recognised")
    own.add_argument("--label", help="column of 0 and 1")
    own.add_argument("--rating", help="column of numbers; high ones count as liked")
    own.add_argument("--positive", type=float, help="least rating that counts as liked (4)")
    own.add_argument("--exposures", help="table of what was shown; its rows are the samples")
    own.add_argument("--items", help="table with a row for each item")
    own.add_argument("--item-features", nargs="+", help="columns, as NAME or NAME:KIND")
    own.add_argument("--sample-features", nargs="+", help="columns, as NAME or NAME:KIND")
    own.add_argument("--min-count", type=int, help="rarer values share an embedding (1)")
    own.add_argument("--split", help="time (default) or user")
    own.add_argument("--train", type=float, help="share of the samples for training (0.8)")
    own.add_argument("--valid", type=float, help="share of the samples for validation (0.1)")

    for name in NAMES:
        what = "one of the paper's data sets, from the Hugging Face hub"
        published = command(name, what, default=True)
        published.add_argument("--offline", action="store_true", help="use the hub's cache alone")

    planted = command("session_hopping", "generated users who hop between planted themes")
    planted.add_argument("--size", default="small", choices=sorted(GENERATED.values()))
    planted.add_argument("--impressions", type=int, help="samples per user")
    planted.add_argument("--items", type=int, help="rows of the item table")
    planted.add_argument("--seed", type=int, default=SEED)

    checked = commands.add_parser("check", help="check a prepared folder")
    checked.add_argument("folder")
    return parser
