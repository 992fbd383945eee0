"""The options that a command line adds to the configuration of an experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.places import CONFIG, HOME


@dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run, except its experiment id and the configuration files.

    Attributes:
        config: FuxiCTR configuration directory.
        seed: replaces the seed of the configuration; None keeps it.
        gpu: number of the CUDA device, or -1 for the CPU.
        resume: go on with a killed run. If the run has finished, its result is returned.
        model_zoo: folder of foreign models; see ``models.find_model``.
        data_root: replaces the data_root of the configuration; see ``read.redirect``.
        model_root: replaces the model_root of the configuration.
        changes: keys of the experiment that are set to other values.
        home: folder at which relative paths of the configuration start.
    """

    config: Path = CONFIG
    seed: int | None = None
    gpu: int = -1
    resume: bool = False
    model_zoo: Path | None = None
    data_root: Path | None = None
    model_root: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    home: Path = HOME
