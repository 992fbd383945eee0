"""Command line of the benchmarks: ``python -m engine.bench loader|metrics|dispatch|scan|step|epoch|growth|table|prepare``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from ..common.errors import UserError, run_command
from ..run.cpu import set_up_cpu


def main() -> None:
    args = _parser().parse_args()
    for option in ("batch", "length", "repeats", "rows", "users", "threads"):
        value = getattr(args, option, None)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < 1:
                raise UserError(f"--{option} {number}: write 1 or more")
    for option in ("json", "plot"):  # before hours of work
        file = getattr(args, option, None)
        if file and not Path(file).parent.is_dir():
            raise UserError(
                f"--{option} {file}: there is no folder {Path(file).parent}; make it first"
            )
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)
    set_up_cpu()  # as run_expid.py does; rivals in this process gain from it too
    args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.bench",
        description="Time ours and a rival in turns, and print medians and their ratios.",
    )
    commands = parser.add_subparsers(
        required=True, metavar="loader|metrics|dispatch|scan|step|epoch|growth|table|prepare"
    )

    loader = commands.add_parser("loader", help="batches per second, against LongCTR's loader")
    _sizes(loader, batch=8192, repeats=7)
    _rival(loader)
    loader.add_argument("--data", help="data set's folder, generated there if missing (temporary)")
    loader.add_argument("--users", type=int, default=10_986, help="of generated data (%(default)s)")
    loader.set_defaults(run=_loader)

    metrics = commands.add_parser("metrics", help="AUC, gAUC and logloss, against FuxiCTR's")
    metrics.add_argument("--rows", type=int, default=1_000_000, help="predictions (%(default)s)")
    metrics.add_argument("--users", type=int, default=11_000, help="groups of gAUC (%(default)s)")
    _output(metrics, repeats=5)
    metrics.set_defaults(run=_metrics)

    dispatch = commands.add_parser("dispatch", help="sparse experts, against running all of them")
    _sizes(dispatch, batch=1024, repeats=5)
    dispatch.set_defaults(run=_dispatch)

    scan = commands.add_parser("scan", help="Mamba's selective scan, against loops in plain torch")
    scan.add_argument(
        "--length", type=int, nargs="+", default=[200, 1000], help="of histories (%(default)s)"
    )
    scan.add_argument("--batch", type=int, default=256, help="samples (%(default)s)")
    _machine(scan)
    _output(scan, repeats=5)
    scan.set_defaults(run=_scan)

    step = commands.add_parser("step", help="train step of each model, against LongCTR's")
    step.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help="of TWIN, SDIM, TransAct, TransAct-max-pool, TransAct-2-layers, MIRRN, Mamba4Rec; default: all",
    )
    step.add_argument("--amp", choices=("bf16",), help="precision of our models")
    step.add_argument(
        "--compile", action="store_true", help="blocks and head of ours by torch.compile"
    )
    _sizes(step, batch=1024, repeats=5)
    _rival(step)
    step.set_defaults(run=_step)

    epoch = commands.add_parser("epoch", help="a whole run of run_expid.py, against LongCTR's")
    epoch.add_argument("--size", choices=("small", "micro"), default="small", help="(%(default)s)")
    epoch.add_argument("--models", nargs="+", metavar="NAME", help="default: TWIN SDIM TransAct")
    epoch.add_argument("--users", type=int, help="of generated data; default: the size's")
    epoch.add_argument("--rows", type=int, help="the most training samples; default: by model")
    epoch.add_argument("--length", type=int, help="history length; default: the experiment's")
    epoch.add_argument("--batch", type=int, help="samples; default: the experiment's")
    epoch.add_argument("--threads", type=int, help="of torch in each process")
    epoch.add_argument("--data", help="data set's folder, generated there if missing (temporary)")
    _rival(epoch)
    _output(epoch, repeats=2)
    epoch.set_defaults(run=_epoch)

    growth = commands.add_parser("growth", help="cost against history length and experts")
    growth.add_argument("--model", default="TWIN", help="backbone (%(default)s)")
    growth.add_argument("--lengths", nargs="+", type=int, help="default: 100 to 2000")
    growth.add_argument("--experts", nargs="+", type=int, help="per branch; default: 1 to 16")
    growth.add_argument("--plot", metavar="FILE", help="draw it there, as .svg, .png or .pdf")
    growth.add_argument("--batch", type=int, default=1024, help="samples (%(default)s)")
    _machine(growth)
    _output(growth, repeats=5)
    growth.set_defaults(run=_growth)

    table = commands.add_parser("table", help="train step by size of the item table, sparse, dense")
    table.add_argument(
        "--rows",
        type=int,
        nargs=2,
        metavar=("SMALL", "LARGE"),
        default=[10_000, 10_000_000],
        help="of two tables (%(default)s)",
    )
    _sizes(table, batch=1024, repeats=5)
    table.set_defaults(run=_table)

    prepare = commands.add_parser("prepare", help="a data set from a log larger than memory")
    prepare.add_argument("--rows", type=int, default=50_000_000, help="of the log (%(default)s)")
    prepare.add_argument("--users", type=int, default=400_000, help="in the log (%(default)s)")
    prepare.add_argument("--form", choices=("csv", "parquet"), default="csv", help="(%(default)s)")
    prepare.add_argument("--json", metavar="FILE", help="write the result there too")
    prepare.set_defaults(run=_prepare)
    return parser


def _sizes(parser: argparse.ArgumentParser, batch: int, repeats: int) -> None:
    parser.add_argument("--length", type=int, default=200, help="history length (%(default)s)")
    parser.add_argument("--batch", type=int, default=batch, help="samples (%(default)s)")
    _machine(parser)
    _output(parser, repeats)


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, help="of torch; 1 gives steady ratios where other jobs run too"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")


def _rival(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--longctr", metavar="DIR", help="checkout of LongCTR, the rival")


def _output(parser: argparse.ArgumentParser, repeats: int) -> None:
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the result there too")


def _loader(args: argparse.Namespace) -> None:
    from .loader import measure
    from .timing import find_device

    device = find_device(args.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.data or Path(temporary) / "microvideo")
        sizes = (args.users, args.length, args.batch, args.repeats)
        measure(args.longctr, folder, *sizes, device).publish(args.json)


def _metrics(args: argparse.Namespace) -> None:
    from .metrics import measure

    measure(args.rows, args.users, args.repeats).publish(args.json)


def _dispatch(args: argparse.Namespace) -> None:
    from .dispatch import measure
    from .timing import find_device

    measure(args.length, args.batch, args.repeats, find_device(args.device)).publish(args.json)


def _scan(args: argparse.Namespace) -> None:
    from .scan import measure
    from .timing import find_device

    measure(args.length, args.batch, args.repeats, find_device(args.device)).publish(args.json)


def _step(args: argparse.Namespace) -> None:
    from .step import CASES, measure
    from .timing import find_device

    names = args.models or list(CASES)
    for name in names:
        if name not in CASES:
            raise UserError(f"--models {name}: write some of {', '.join(CASES)}")
    own = {"amp": args.amp} if args.amp else {}
    if args.compile:
        own["compile"] = True
    sizes = (args.length, args.batch, args.repeats)
    measure(args.longctr, names, *sizes, find_device(args.device), own).publish(args.json)


def _epoch(args: argparse.Namespace) -> None:
    from . import epoch_setup as setup
    from .epoch import measure

    models = args.models or setup.MODELS
    for name in models:
        if name not in setup.MODELS:
            raise UserError(f"--models {name}: write some of {', '.join(setup.MODELS)}")
    if args.longctr:
        setup.require_rival(args.longctr, models, args.length)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = Path(args.data or folder / args.size)
        setup.ensure_data(data, args.size, args.users)
        options = {"rows": args.rows, "batch": args.batch, "length": args.length}
        options |= {"rival": bool(args.longctr)}
        setups = [
            setup.prepare(data, folder / name, args.size, name, args.repeats, **options)
            for name in models
        ]
        measure(args.longctr, setups, args.repeats, args.threads).publish(args.json)


def _growth(args: argparse.Namespace) -> None:
    from .growth import EXPERTS, LENGTHS, measure, plot
    from .timing import find_device

    lengths = sorted(args.lengths or LENGTHS)
    experts = sorted(args.experts or EXPERTS)
    for option, values in (("lengths", lengths), ("experts", experts)):
        if values[0] < 1:
            raise UserError(f"--{option} {values[0]}: write 1 or more")
    device = find_device(args.device)
    report = measure(args.model, lengths, experts, args.batch, args.repeats, device)
    report.publish(args.json)
    if args.plot:
        plot(report, lengths, experts, Path(args.plot))


def _table(args: argparse.Namespace) -> None:
    from .table import measure
    from .timing import find_device

    device = find_device(args.device)
    measure(*args.rows, args.length, args.batch, args.repeats, device).publish(args.json)


def _prepare(args: argparse.Namespace) -> None:
    from .prepare import measure

    with tempfile.TemporaryDirectory() as temporary:
        measure(args.rows, args.users, args.form, Path(temporary)).publish(args.json)


if __name__ == "__main__":
    run_command(main)
