"""Time ours and a rival in turns, and print medians and their ratios: python -m engine.bench COMMAND.

loader    batches per second, against LongCTR's loader
metrics   AUC, gAUC and logloss, against FuxiCTR's
dispatch  sparse experts, against running all of them
scan      Mamba's selective scan, against a loop in plain torch
step      train step of each model, against LongCTR's
serve     the candidates of one user, by an exported program, against the model of training
epoch     a whole run of run_expid.py, against LongCTR's
growth    cost by history length and by number of experts
table     train step by size of the item table
prepare   a data set from a log larger than memory
"""

import argparse
import sys
import tempfile
from importlib import import_module
from inspect import getdoc
from pathlib import Path

from model_zoo.registry import BACKBONES

from ..common.errors import UserError, run_command
from ..config.command_line import CommandLine, positive
from ..config.read import read_yaml
from ..run.cpu import set_up_cpu, set_up_threads
from .rivals import SHORTEST

KNOWN = read_yaml(Path(__file__).with_name("commands.yaml"))
COMMANDS, OPTIONS = KNOWN["commands"], KNOWN["options"]
OPTIONS["model"] = {"choices": [*BACKBONES], "help": "backbone to measure"}


def main() -> None:
    set_up_threads()  # before torch is imported
    raw = argparse.RawDescriptionHelpFormatter
    parser = CommandLine("engine.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    module = import_module(f".{COMMANDS[command]['file']}", __package__)
    measure = getattr(module, command)
    about = str(getdoc(measure))
    parser = CommandLine(f"engine.bench {command}", description=about, formatter_class=raw)
    for option, default in (COMMANDS[command]["options"] | {"json": None}).items():
        known = OPTIONS[option] | ({"nargs": "+"} if isinstance(default, list) else {})
        known |= {"choices": default} if option == "models" else {}
        known |= {"type": positive} if not known.keys() & {"action", "choices", "metavar"} else {}
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
