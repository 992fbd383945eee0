"""What to run next: the interface, and the plain grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .trial import DONE, Trial


class Search:
    """Base of what decides which trials run.

    Attributes:
        trials: all that are known so far, by name.
        size: how many will have run at the end, at most.
    """

    trials: dict[str, Trial]

    size: int

    def selected(self) -> list[Trial]:
        """The trials that have run or are to run."""
        return list(self.trials.values())

    def next(self) -> Trial | None:
        """The next trial to run; None if there is none now."""
        raise NotImplementedError

    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        """Take note of a running trial's evaluations; True stops it as hopeless."""
        return False

    def tell(self, trial: Trial) -> None:
        """Take note of a trial that has ended."""


class Grid(Search):
    """All trials, in order; those that are done stay done.

    Args:
        trials: with their saved status.
        tag: run only those with this text in their name or in their number, such as ``_001_``.
    """

    def __init__(self, trials: Iterable[Trial], tag: str = "") -> None:
        self.trials = {trial.name: trial for trial in trials}
        self._selected = [
            trial
            for i, trial in enumerate(self.trials.values(), start=1)
            if tag in f"{trial.name}_{i:03d}_"
        ]
        self.size = len(self._selected)
        self._queue = [trial for trial in self._selected if trial.status != DONE]
        for trial in self._queue:
            trial.back_to_queue()

    def selected(self) -> list[Trial]:
        return self._selected

    def next(self) -> Trial | None:
        return self._queue.pop(0) if self._queue else None
