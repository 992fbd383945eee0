"""Search by Optuna: TPE draws from the values of the tuner file, and hopeless trials are stopped.

Optuna's study is a file in the output folder. Each combination runs once. If Optuna draws a
combination again, the search gives up that draw and makes another. A trial that failed stays open in
the study, because the next call of the tuner runs it again.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from ..common.errors import UserError
from .folder import Folder
from .leaderboard import Monitor
from .search import Search
from .space import Space
from .trial import DONE, PRUNED, Trial, canonical, digest

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.exceptions import StorageInternalError
    from optuna.samplers import TPESampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ImportError:
    raise UserError("--search optuna: Optuna is missing; pip install optuna==5.0.0") from None


SEED = 2024
REDRAWS = 10  # of combinations that were drawn before; then the search takes any new one
WAIT = 60  # seconds for another process that reads the study
Result = TypeVar("Result")


def _of_the_study(method: Callable[..., Result]) -> Callable[..., Result]:
    """Wrap a method that uses the study's file, so that every error of the file is one message."""

    @wraps(method)
    def wrapped(self: OptunaSearch, *arguments: Any) -> Result:
        try:
            return method(self, *arguments)
        except (StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise UserError(
                f"{self.path}: cannot be used by Optuna ({reason}); if it is damaged, delete it: the "
                "trials that are done stay done"
            ) from None

    return wrapped


class OptunaSearch(Search):
    """Draws trials one by one. The trials of an earlier call of the tuner count.

    Args:
        space: the values to draw from; Optuna sees each value as a category.
        folder: holds the study and the status files of the trials.
        size: how many different trials to draw.
    """

    def __init__(self, space: Space, folder: Folder, size: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.folder, self.size = space, folder, min(size, space.size)
        self.path = folder.path / "optuna.db"
        self.monitor = Monitor(space.model)
        self.trials: dict[str, Trial] = {}
        self._number: dict[str, int] = {}  # the draw of each trial
        self._values = {
            key: {canonical(value): value for value in values}
            for key, values in space.choices.items()
        }
        self._categories: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(list(texts)) for key, texts in self._values.items()
        }
        self._open()

    @_of_the_study
    def _open(self) -> None:
        """Open the study and take up what it knows."""

        def connect() -> sqlite3.Connection:  # a path in a URL would have to be quoted
            return sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False)

        self._study = optuna.create_study(
            storage=RDBStorage("sqlite://", engine_kwargs={"creator": connect}),
            study_name=digest({**self.space.model, **self.space.dataset, **self.space.choices}),
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        for drawn in self._drawn():
            if drawn.params.keys() == self._values.keys():
                self._remember(drawn.number, drawn.params)
            else:  # the tuner was killed in the middle of this draw
                self._end(drawn.number, TrialState.FAIL)

    @_of_the_study
    def next(self) -> Trial | None:
        redraws = 0
        while (queued := super().next()) is None and len(self.trials) < self.size:
            # Each draw has its own seed, so that the first draws are not repeated after a kill.
            seed = SEED + len(self._drawn())
            self._study.sampler = TPESampler(seed=seed)
            if redraws >= REDRAWS:
                self._study.enqueue_trial(self._unseen(random.Random(seed)))
            asked = self._study.ask(self._categories)
            self._remember(asked.number, asked.params)
            redraws += 1
        return queued

    @_of_the_study
    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        joint = [entry for entry in stage_log if entry["stage"] == "joint"]
        drawn = self._drawn()[self._number[trial.name]]
        if drawn.state.is_finished():  # earlier versions ended the draw of a trial that failed
            return False
        asked = optuna.trial.Trial(self._study, drawn._trial_id)
        for step in range(len(drawn.intermediate_values), len(joint)):
            asked.report(self.monitor(joint[step]), step)
        return bool(joint) and asked.should_prune()

    @_of_the_study
    def tell(self, trial: Trial) -> None:
        if trial.status == DONE:
            value = self.monitor(trial.metrics["valid"])
            self._end(self._number[trial.name], TrialState.COMPLETE, value)
        elif trial.status == PRUNED:
            self._end(self._number[trial.name], TrialState.PRUNED)

    def _unseen(self, rng: random.Random) -> dict[str, str]:
        """Any combination that was not drawn yet."""
        while True:
            texts = {key: rng.choice(list(values)) for key, values in self._values.items()}
            if self._trial(texts).name not in self.trials:
                return texts

    def _trial(self, texts: Mapping[str, str]) -> Trial:
        return self.space.trial({key: self._values[key][texts[key]] for key in self._values})

    def _drawn(self) -> list[FrozenTrial]:
        """Everything that was ever drawn, by number."""
        return self._study.get_trials(deepcopy=False)

    def _remember(self, number: int, params: Mapping[str, str]) -> None:
        """Note the trial of a draw, or give up the draw if the trial is known."""
        trial = self._trial(params)
        if trial.name in self.trials:
            self._end(number, TrialState.FAIL)
            return
        self.folder.restore(trial)
        if trial.status not in (DONE, PRUNED):
            trial.back_to_queue()
        self.trials[trial.name], self._number[trial.name] = trial, number
        self.tell(trial)  # it may have run in a grid, or before the study's file was lost

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Tell Optuna how a draw ended, unless it has ended or waits to be drawn."""
        if self._drawn()[number].state == TrialState.RUNNING:
            self._study.tell(number, value, state)
