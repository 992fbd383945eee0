"""The command ``data/prepare.py``: write a data set, or check one."""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError, run_command
from ..common.places import HOME, PREPARE_COMMAND
from . import GENERATED, SEED
from .forms.mapping import Mapping
from .forms.mapping_file import READY, mapping_like, read_mapping, ready_names
from .forms.mapping_keys import GROUPS
from .paper import NAMES

if TYPE_CHECKING:
    from .prepared.layout import Dataset
    from .writing.log import Log

# Fewer impressions would leave a split empty, fewer items a theme.
LEAST = {"impressions": 20, "items": 100, "seed": 0}


def main() -> None:
    """Run the command line and end the process."""
    run_command(_run, "a folder is written whole or not at all")


def _run() -> int:
    args = _parser().parse_args()
    if args.command == "check":
        from .prepared.check import check

        report = check(Path(args.folder).resolve(), args.renew)
        print(report)
        return 2 if report.errors else 0

    from .prepared import data_profile, layout, ready_config
    from .prepared.card import describe

    output = Path(args.output or HOME / "data" / args.command)
    with layout.new_folder(output, args.overwrite) as folder:
        card = _prepare(args, folder)
        command = ready_config.write(folder, output.resolve())
    print(describe(card))
    if args.command not in NAMES:  # their raw categories are not known
        print(data_profile.describe(output))
        print(f"look for leaks: {PREPARE_COMMAND} check {quote(str(output))}")
        baseline = f"python -m engine.baseline --data {quote(str(output))}"
        print(f"see what a long history and the running theme are worth: {baseline}")
    print(f"train on it: {command}")
    return 0


def _prepare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write what the command line names into a folder; returns the card."""
    from . import hub
    from .forms import ebnerd, movielens
    from .prepared import layout
    from .writing import interactions

    match args.command:
        case "movielens":
            log = movielens.load(args.input)
        case "ebnerd":
            log = ebnerd.load(args.input, args.sample_features, args.item_features, args.embeddings)
        case table if table in ("generic", *ready_names()):
            log = _own_log(args)
        case "session_hopping":
            return layout.write(_session_hopping(args), folder)
        case published:
            return hub.download(published, folder, args.offline)
    each: Any = map
    if args.engine == "ray":
        from .writing.ray_blocks import each_on_ray as each
    return interactions.write(log, folder, args.memory, each)


def _own_log(args: argparse.Namespace) -> "Log":
    """The log of a table, encoded like another where the command line says so."""
    from .forms.generic import load
    from .writing.like import Prepared

    flags = _given(args)
    if args.like is None:
        if args.grow:
            raise UserError(
                "--grow has no meaning without --like; add the data set that is to grow"
            )
        return load(read_mapping(args.mapping, flags))
    like = Prepared(Path(args.like), args.grow)
    return load(read_mapping(args.mapping, flags, mapping_like(like)), like)


def _session_hopping(args: argparse.Namespace) -> "Dataset":
    from .synthetic import SIZES, generate

    given = {name: getattr(args, name) for name in LEAST if getattr(args, name) is not None}
    for name, value in given.items():
        if value < LEAST[name]:
            raise UserError(f"--{name} {value} is too small; write {LEAST[name]} or more")
    if not 0 <= args.hopping <= 1:
        raise UserError(f"--hopping {args.hopping:g} is no chance; write a number from 0 to 1")
    seed = given.pop("seed")
    return generate(replace(SIZES[args.size], hopping=args.hopping, **given), seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write a data set in LongCTR's parquet layout.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, what: str, log: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        added.add_argument("--output", help=f"the folder to write, data/{name} by default")
        added.add_argument("--overwrite", action="store_true", help="replace the folder")
        if log:
            added.add_argument("--memory", type=float, default=4.0, help="GiB of a process (4)")
            added.add_argument("--engine", choices=["local", "ray"], help="where users are sorted")
        return added

    movielens = command("movielens", "MovieLens 100K, 1M, 20M or latest")
    ebnerd = command("ebnerd", "EB-NeRD's raw files")
    for raw in (movielens, ebnerd):
        raw.add_argument("--input", required=True, help="folder of the downloaded files")
    ebnerd.add_argument("--sample-features", nargs="*", help="columns of behaviors.parquet")
    ebnerd.add_argument("--item-features", nargs="*", help="columns of articles.parquet")
    ebnerd.add_argument("--embeddings", help="Parquet file with article_id and a column of vectors")

    own = command("generic", "any table of interactions: say which column is what")
    own.add_argument("--mapping", help="YAML file with the keys below, written with _ for -")
    _add_keys(own)
    for name in ready_names():
        ready = command(name, f"{name}'s raw files: like generic, with a mapping that is there")
        ready.set_defaults(mapping=READY / f"{name}.yaml")
        _add_keys(ready)

    for name in NAMES:
        published = command(name, "one of the paper's data sets, from its hub", log=False)
        published.add_argument("--offline", action="store_true", help="use the hub's cache alone")

    planted = command("session_hopping", "users who hop between planted themes", log=False)
    planted.add_argument("--size", default="small", choices=sorted(GENERATED.values()))
    planted.add_argument("--impressions", type=int, help="samples per user")
    planted.add_argument("--items", type=int, help="rows of the item table")
    planted.add_argument(
        "--hopping", type=float, default=1.0, help="chance that the next session has another theme"
    )
    planted.add_argument("--seed", type=int, default=SEED)

    checked = commands.add_parser("check", help="check a prepared folder")
    checked.add_argument("folder")
    checked.add_argument("--renew", action="store_true", help="write the card of edited files anew")
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each key of a ``Mapping``, in groups, and those of another data set."""
    parser.add_argument("--like", help="prepared data set, to encode this log as that one was")
    parser.add_argument("--grow", action="store_true", help="with --like: new values get new ids")
    group: Any = parser
    for entry in fields(Mapping):
        if entry.name in GROUPS:
            group = parser.add_argument_group(GROUPS[entry.name])
        form: dict[str, Any] = {"metavar": "TEXT"}
        if entry.type is bool:
            form = {"action": "store_true", "default": None}
        elif str(entry.type).startswith("tuple"):
            form = {"nargs": "*" if "None" in str(entry.type) else "+", "metavar": "NAME"}
        help = entry.metadata["help"].replace("%", "%%")
        group.add_argument(f"--{entry.name.replace('_', '-')}", help=help, **form)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of a ``Mapping`` that are on the command line; a list is a text with commas."""
    given = {entry.name: getattr(args, entry.name) for entry in fields(Mapping)}
    return {name: ",".join(v) if isinstance(v, list) else v for name, v in given.items()}
