"""The command line of experiments: the flags that runs, the tuner and studies share."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..common.errors import UserError
from ..common.places import CONFIG
from .read import parse_yaml


class CommandLine(argparse.ArgumentParser):
    """A parser for ``run_command``: every mistake is a ``UserError``, which is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))

    def add_places(self, config: str = "configuration directory (default: config/)") -> None:
        """Add the folders of configurations, of models and of data; ``config`` describes the first."""
        self.add_argument("--config", type=Path, default=CONFIG, help=config)
        models = "folder of your own FuxiCTR models, or of LongCTR's"
        data = "folder of the data sets, in place of data_root"
        self.add_argument("--model-zoo", type=Path, help=models)
        self.add_argument("--data-root", type=Path, help=data)

    def add_changes(self) -> None:
        """Add ``--set``, which ``parse_changes`` reads."""
        what = "keys of the model or the data set, with values in YAML"
        self.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help=what)

    def add_trained(self, data: str, exported: bool = False) -> None:
        """Add the result of a trained model, and its data set, which ``data`` describes.

        With ``exported``, ``--model`` may stand in place of ``--result``.
        """
        model = self.add_mutually_exclusive_group(required=True)
        model.add_argument("--result", type=Path, help="JSON that run_expid.py wrote")
        if exported:
            what = "folder that engine.export wrote"
            model.add_argument("--model", type=Path, dest="result", help=what)
        self.add_argument("--data", type=Path, help=data)

    def add_gpu(self) -> None:
        """Add ``--gpu`` for one device."""
        what = "CUDA device, -1 (default) for the CPU"
        self.add_argument("--gpu", type=int, default=-1, help=what)

    def add_devices(self, per_gpu: str) -> None:
        """Add ``--gpu`` for several devices, and the flag ``per_gpu`` for how many jobs each takes."""
        devices, jobs = "CUDA devices; -1 (default) is the CPU", "at a time, per device"
        self.add_argument("--gpu", nargs="+", type=_device, default=[-1], help=devices)
        self.add_argument(per_gpu, dest="per_gpu", type=positive, default=1, help=jobs)


def positive(text: str) -> int:
    """A whole number above 0, as the type of an argument."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"is {number}; write a number above 0")
    return number


def _device(text: str) -> int:
    if (number := int(text)) < -1:
        raise argparse.ArgumentTypeError(f"is {number}; write a CUDA device, or -1 for the CPU")
    return number


def parse_changes(words: Sequence[str], decided: Mapping[str, str]) -> dict[str, Any]:
    """The keys that ``--set KEY=VALUE ...`` sets, with their values read as YAML.

    Args:
        words: the values of ``--set``.
        decided: keys that cannot be set, each with advice what to write instead.

    Raises:
        UserError: a word is not ``KEY=VALUE``, or a key is given twice or cannot be set.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"--set {word}: write KEY=VALUE, such as max_len=100")
        if key in changes:
            raise UserError(f"--set {word}: {key} is set twice; write it once")
        if key in decided:
            raise UserError(f"--set {key}: cannot be set; {decided[key]}")
        changes[key] = parse_yaml(value, f"--set {word}")
    return changes
