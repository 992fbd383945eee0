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
from pathlib import Path
from typing import Any

from ..common.errors import UserError, run_command
from ..run.cpu import set_up_cpu, set_up_threads
from .rivals import SHORTEST

COMMANDS = ["loader", "metrics", "dispatch", "scan", "step", "epoch", "growth", "table", "prepare"]
# A command is the module ``<command>_cases``. Its ``DEFAULTS`` name those of these options that it has.
# ``measure(args)`` returns its report, which ``plot(report, args)`` draws if there is such an option.
OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "NAME", "help": "backbone to measure"},
    "models": {"metavar": "NAME", "help": "models to measure"},
    "size": {"choices": ("small", "micro"), "help": "of the generated data"},
    "data": {"metavar": "DIR", "help": "data set's folder, generated there if missing (temporary)"},
    "users": {"type": int, "help": "users of generated data"},
    "rows": {"type": int, "help": "predictions, lines of the log, training samples, or items"},
    "length": {"type": int, "help": "items of a history"},
    "lengths": {"type": int, "help": "lengths of histories to compare"},
    "experts": {"type": int, "help": "numbers of experts per branch to compare"},
    "batch": {"type": int, "help": "samples of a batch"},
    "repeats": {"type": int, "help": "rounds, in each of which every case runs once"},
    "threads": {"type": int, "help": "threads of torch; 1 gives steady ratios on a busy machine"},
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
    parser = argparse.ArgumentParser("engine.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    # Only this module: the peak memory of this process counts as that of processes it starts.
    module = import_module(f".{command}_cases", __package__)
    parser = argparse.ArgumentParser(f"engine.bench {command}", description=module.__doc__)
    for option, default in (module.DEFAULTS | {"json": None}).items():
        known = OPTIONS[option] | ({"nargs": "+"} if isinstance(default, list) else {})
        known["help"] += f" (default: {default})" if default else ""
        parser.add_argument(f"--{option}", default=default, **known)
    args = parser.parse_args(sys.argv[2:])
    _check(args)
    set_up_cpu()  # as run_expid.py does; rivals in this process gain from it too
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        report = module.measure(args)
    report.publish(args.json)
    if getattr(args, "plot", None):
        module.plot(report, args)


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before hours of measuring, and tell torch the device and threads."""
    import torch

    for option, value in vars(args).items():
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and number < 1:
                raise UserError(f"--{option} {number}: write 1 or more")
        if option in ("json", "plot") and value and not Path(value).parent.is_dir():
            missing = Path(value).parent
            raise UserError(f"--{option} {value}: there is no folder {missing}; make it first")
    if getattr(args, "longctr", None) and (args.length or SHORTEST) < SHORTEST:
        raise UserError(
            f"--length {args.length}: LongCTR's models need {SHORTEST} items or more; write more, or "
            "leave --longctr out"
        )
    args.device = torch.device(getattr(args, "device", "cpu"))
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device cuda: torch {torch.__version__} sees no CUDA device; write cpu")
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)


if __name__ == "__main__":
    run_command(main)
