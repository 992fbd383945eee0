"""The interface of all searches, which choose the next trial, and the search over a whole grid."""

from typing import Any

from ..common.errors import UserError
from .folder import Folder
from .space import Space
from .trial import DONE, QUEUED, Trial


class Search:
    """Decides which trials run, and in which order; the base of all searches.

    Attributes:
        space: the experiment that the trials vary.
        trials: all trials that are known so far, by name.
        size: the most trials that will have run at the end.
    """

    space: Space
    trials: dict[str, Trial]
    size: int

    def selected(self) -> list[Trial]:
        """The trials that have run or are to run."""
        return list(self.trials.values())

    def next(self) -> Trial | None:
        """The next trial to run, by default the first in the queue; None if there is none now."""
        return next((trial for trial in self.selected() if trial.status == QUEUED), None)

    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        """Look at a running trial's evaluations, and return True to stop it as hopeless."""
        return False

    def tell(self, trial: Trial) -> None:
        """Learn that a trial is done, failed or pruned."""


class Grid(Search):
    """Runs all trials of a grid in their order. Trials that are done stay done.

    Args:
        space: the experiment and its grid.
        folder: the output folder, which knows the trials of earlier calls.
        tag: run only the trials with this text in their name or their number, such as ``_001_``.

    Raises:
        UserError: no trial has the tag.
    """

    def __init__(self, space: Space, folder: Folder, tag: str = "") -> None:
        self.space = space
        self.trials = {trial.name: trial for trial in space.grid()}
        for trial in self.trials.values():
            folder.restore(trial)
        numbered = enumerate(self.trials.values(), start=1)
        self._selected = [trial for i, trial in numbered if tag in f"{trial.name}_{i:03d}_"]
        self.size = len(self._selected)
        if not self.size:
            names = ", ".join(list(self.trials)[:5])
            count = len(self.trials)
            raise UserError(f"--tag {tag}: in no trial's name; there are {names} ({count} in all)")
        for trial in self._selected:
            if trial.status != DONE:
                trial.back_to_queue()

    def selected(self) -> list[Trial]:
        return self._selected
