"""How experiments are called: what a command line adds to a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.places import CONFIG, HOME


@dataclass(frozen=True)
class RunOptions:
    """What decides a run beside its experiment id and the configuration files.

    Attributes:
        config: FuxiCTR configuration directory.
        seed: replaces the configuration's; None keeps it.
        gpu: CUDA device, -1 for the CPU.
        resume: go on with a killed run; of a finished run, return the result.
        model_zoo: folder of foreign models, see ``models.find_model``.
        data_root: replaces the configuration's, see ``read.redirect``.
        model_root: replaces the configuration's.
        changes: keys of the experiment that are set to other values.
        home: where relative paths of the configuration start.
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
