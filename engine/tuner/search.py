"""What to run next: the interface, and the plain grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .trial import DONE, QUEUED, Trial


class Search:
    """Decides which trials run, and in which order; the base of all searches.

    Attributes:
        trials: all trials that are known so far, by name.
        size: how many trials will have run at the end, at most.
    """

    trials: dict[str, Trial]

    size: int

    def selected(self) -> list[Trial]:
        """The trials that have run or are to run."""
        return list(self.trials.values())

    def next(self) -> Trial | None:
        """The next trial to run, the first one that is queued; None if there is none now."""
        return next((trial for trial in self.selected() if trial.status == QUEUED), None)

    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        """Take note of a running trial's evaluations; True stops it as hopeless."""
        return False

    def tell(self, trial: Trial) -> None:
        """Take note of a trial that is done, failed or pruned."""


class Grid(Search):
    """Runs all trials in their order. Trials that are done stay done.

    Args:
        trials: the trials with their saved status.
        tag: run only the trials with this text in their name or their number, such as ``_001_``.
    """

    def __init__(self, trials: Iterable[Trial], tag: str = "") -> None:
        self.trials = {trial.name: trial for trial in trials}
        self._selected = [
            trial
            for i, trial in enumerate(self.trials.values(), start=1)
            if tag in f"{trial.name}_{i:03d}_"
        ]
        self.size = len(self._selected)
        for trial in self._selected:
            if trial.status != DONE:
                trial.back_to_queue()

    def selected(self) -> list[Trial]:
        return self._selected
