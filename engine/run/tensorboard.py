"""Write the numbers of a run's evaluations for TensorBoard, if ``tensorboard: True`` is set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.errors import UserError


class ScalarWriter:
    """Writes each evaluation of a run's stage log once; the step is the evaluation's number from 1.

    Args:
        folder: the folder of the event file. The files of an earlier run there are removed.

    Raises:
        UserError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional
        except ImportError:
            what = "needs the package tensorboard, which is not installed"
            advice = "run pip install -r requirements-extras.txt, or write False"
            raise UserError(f"tensorboard: True {what}; {advice}") from None
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._written = 0

    def write(self, stage_log: list[dict[str, Any]]) -> None:
        """Add the new evaluations, which are all evaluations so far after a resume."""
        for step, entry in enumerate(stage_log[self._written :], start=self._written + 1):
            for tag, value in scalars(entry):
                self._writer.add_scalar(tag, value, step)
        self._written = len(stage_log)
        self._writer.flush()


def scalars(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The tag and the value of each number of an evaluation that TensorBoard can draw."""
    known = ("train_loss", "learning_rate", "samples_per_s", "valid_seconds")
    for key, value in entry.items():
        if isinstance(value, float | int) and not isinstance(value, bool) and key != "epoch":
            yield (f"train/{key}" if key in known else f"valid/{key}"), value
    for branch, routing in entry["routing"].items():
        for key, value in routing.items():
            if isinstance(value, float):
                yield f"routing/{branch}/{key}", value
        for expert, share in enumerate(routing["item_share"]):
            yield f"routing/{branch}/load/{expert}", share
