"""The command line of experiments: the flags that runs, the tuner and studies have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from ..common.errors import UserError
from ..common.places import CONFIG


class CommandLine(argparse.ArgumentParser):
    """A parser for ``run_command``: every mistake is a ``UserError``, which is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))

    def add_places(self, config: str = "configuration directory (default: config/)") -> None:
        """Add the folders of configurations, of models and of data; ``config`` describes the first."""
        self.add_argument("--config", type=Path, default=CONFIG, help=config)
        self.add_argument(
            "--model-zoo", type=Path, help="folder of your own FuxiCTR models, or of LongCTR's"
        )
        self.add_argument(
            "--data-root", type=Path, help="folder of the data sets, in place of data_root"
        )

    def add_changes(self) -> None:
        """Add ``--set``, which ``parse_changes`` reads."""
        what = (
            "keys of the model or the data set, with YAML values, in place of the configuration's"
        )
        self.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help=what)

    def add_devices(self, per_gpu: str) -> None:
        """Add ``--gpu`` for several devices, and the flag ``per_gpu`` for how many jobs each takes."""
        self.add_argument(
            "--gpu",
            nargs="+",
            type=_device,
            default=[-1],
            help="CUDA devices, -1 (default): the CPU",
        )
        self.add_argument(
            per_gpu, dest="per_gpu", type=positive, default=1, help="at a time, per device"
        )


def positive(text: str) -> int:
    """A whole number above 0, as the type of an argument."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"is {number}; write a number above 0")
    return number


def _device(text: str) -> int:
    if (number := int(text)) < -1:
        raise argparse.ArgumentTypeError(
            f"is {number}; write numbers of CUDA devices, or -1 for the CPU"
        )
    return number
