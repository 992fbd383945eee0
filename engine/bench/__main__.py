"""Time ours and a rival in turns, and print medians and their ratios: python -m engine.bench COMMAND.

loader    batches per second, against LongCTR's loader
metrics   AUC, gAUC and logloss, against FuxiCTR's
dispatch  sparse experts, against running all of them
scan      Mamba's selective scan, against a loop in plain torch
step      train step of each model, against LongCTR's
epoch     a whole run of run_expid.py, against LongCTR's
growth    cost by history length and by number of experts
table     train step by size of the item table
prepare   a data set from a log larger than memory
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

from model_zoo.registry import BACKBONES

from ..common.errors import UserError, run_command
from ..config.command_line import CommandLine, positive
from ..run.cpu import set_up_cpu, set_up_threads
from .rivals import SHORTEST

# A command is the function ``command(report, args)`` of its module. ``DEFAULTS[command]`` there names
# those of the options below that it has.
COMMANDS = dict.fromkeys(("loader", "metrics", "prepare"), "data_cases")
COMMANDS |= dict.fromkeys(("dispatch", "scan"), "part_cases")
COMMANDS |= dict.fromkeys(("step", "growth", "table"), "model_cases")
COMMANDS |= {"epoch": "epoch_cases"}
OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"choices": [*BACKBONES], "help": "backbone to measure"},
    "models": {"metavar": "NAME", "help": "models to measure"},
    "size": {"choices": ("small", "micro"), "help": "of the generated data"},
    "data": {"metavar": "DIR", "help": "data set's folder, generated there if missing (temporary)"},
    "users": {"type": positive, "help": "users of generated data"},
    "rows": {"type": positive, "help": "predictions, lines of the log, training samples, or items"},
    "length": {"type": positive, "help": "items of a history"},
    "lengths": {"type": positive, "help": "lengths of histories to compare"},
    "experts": {"type": positive, "help": "numbers of experts per branch to compare"},
    "batch": {"type": positive, "help": "samples of a batch"},
    "repeats": {"type": positive, "help": "rounds, in each of which every case runs once"},
    "threads": {"type": positive, "help": "threads of torch; with 1, ratios are steady"},
    "amp": {"choices": ("bf16",), "help": "precision of our models"},
    "compile": {"action": "store_true", "help": "compile our models with torch.compile"},
    "device": {"choices": ("cpu", "cuda"), "help": "where the models run"},
    "longctr": {"metavar": "DIR", "help": "checkout of LongCTR, the rival"},
    "plot": {"metavar": "FILE", "help": "draw the result there, as .svg, .png or .pdf"},
    "json": {"metavar": "FILE", "help": "write the result there too"},
}


def main() -> None:
    set_up_threads()  # before torch is imported
    raw = argparse.RawDescriptionHelpFormatter
    parser = CommandLine("engine.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    module = import_module(f".{COMMANDS[command]}", __package__)
    measure = getattr(module, command)
    about = str(getdoc(measure))
    parser = CommandLine(f"engine.bench {command}", description=about, formatter_class=raw)
    for option, default in (module.DEFAULTS[command] | {"json": None}).items():
        known = OPTIONS[option] | ({"nargs": "+"} if isinstance(default, list) else {})
        known |= {"choices": default} if option == "models" else {}
        known["help"] += f" (default: {default})" if default else ""
        parser.add_argument(f"--{option}", default=default, **known)
    args = parser.parse_args(sys.argv[2:])
    _check(args)
    set_up_cpu()  # as run_expid.py does; rivals in this process gain from it too
    report = module.Report(about.partition("\n")[0].rstrip("."), args)
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        measure(report, args)
    report.publish(args.json)
    if getattr(args, "plot", None):
        module.plot(report, args)


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before hours of measuring, and tell torch the device and threads."""
    import torch

    for option in ("json", "plot"):
        if (file := getattr(args, option, None)) and not Path(file).parent.is_dir():
            raise UserError(f"--{option} {file}: there is no folder {Path(file).parent}; make it")
    if getattr(args, "longctr", None) and (args.length or SHORTEST) < SHORTEST:
        raise UserError(f"--length {args.length}: LongCTR's models need {SHORTEST} items or more")
    args.device = torch.device(getattr(args, "device", "cpu"))
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device cuda: torch {torch.__version__} sees no CUDA device; write cpu")
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)


if __name__ == "__main__":
    run_command(main)
