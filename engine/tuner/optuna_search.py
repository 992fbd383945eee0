"""Search by Optuna: TPE over the values of the tuner file, with hopeless trials stopped early.

Optuna's study is a file in the output folder. A combination is run once: where Optuna draws one again,
that draw is given up and another is made.
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
from .trial import DONE, FAILED, PRUNED, Trial, canonical, digest

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
REDRAWS = 10  # of combinations that were drawn before, until any other is taken
WAIT = 60  # seconds for another process that reads the study
Result = TypeVar("Result")


def _of_the_study(method: Callable[..., Result]) -> Callable[..., Result]:
    """What goes wrong with the study's file is said in one line."""

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
    """Draws trials one by one; those of an earlier call of the tuner count.

    Args:
        space: its values are drawn as categories, whatever they are.
        folder: holds the study and the trials' status files.
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
        self._queue = [t for t in self.trials.values() if t.status not in (DONE, PRUNED)]
        for trial in self._queue:
            trial.back_to_queue()

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
            elif drawn.state == TrialState.RUNNING:  # killed in the middle of a draw
                self._study.tell(drawn.number, state=TrialState.FAIL)
        for trial in self.trials.values():
            self._tell(trial)

    @_of_the_study
    def next(self) -> Trial | None:
        if self._queue:
            return self._queue.pop(0)
        redraws = 0
        while len(self.trials) < self.size:
            # A seed for each draw: after a kill, the first draws are not drawn once more.
            seed = SEED + len(self._drawn())
            self._study.sampler = TPESampler(seed=seed)
            if redraws >= REDRAWS:
                self._study.enqueue_trial(self._unseen(random.Random(seed)))
            asked = self._study.ask(self._categories)
            if (trial := self._remember(asked.number, asked.params)) is not None:
                if trial.status not in (
                    DONE,
                    PRUNED,
                ):  # they ran in a grid, or before the file was lost
                    return trial
                self._tell(trial)
            redraws += 1
        return None

    @_of_the_study
    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        joint = [entry for entry in stage_log if entry["stage"] == "joint"]
        drawn = self._drawn()[self._number[trial.name]]
        if drawn.state.is_finished():  # failed in an earlier call: it has no say any more
            return False
        asked = optuna.trial.Trial(self._study, drawn._trial_id)
        for step in range(len(drawn.intermediate_values), len(joint)):
            asked.report(self.monitor(joint[step]), step)
        return bool(joint) and asked.should_prune()

    @_of_the_study
    def tell(self, trial: Trial) -> None:
        self._tell(trial)

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

    def _remember(self, number: int, params: Mapping[str, str]) -> Trial | None:
        """Note a draw; returns its trial, or None if it was drawn before."""
        trial = self._trial(params)
        if trial.name in self.trials:
            if not self._drawn()[number].state.is_finished():
                self._study.tell(number, state=TrialState.FAIL)
            elif self._drawn()[number].state == TrialState.COMPLETE:
                self._number[trial.name] = number  # its late result, see ``_tell``
            return None
        self.folder.restore(trial)
        self.trials[trial.name], self._number[trial.name] = trial, number
        return trial

    def _tell(self, trial: Trial) -> None:
        """Tell Optuna how a trial ended, unless it knows."""
        number = self._number[trial.name]
        state = self._drawn()[number].state
        if trial.status == DONE:
            value = self.monitor(trial.metrics["valid"])
            if not state.is_finished():
                self._study.tell(number, value)
            elif state != TrialState.COMPLETE:  # it had failed, and was run again later
                texts = {key: canonical(trial.tuned[key]) for key in self._values}
                late = optuna.trial.create_trial(
                    params=texts, distributions=self._categories, value=value
                )
                self._study.add_trial(late)
                self._number[trial.name] = len(self._drawn()) - 1
        elif trial.status in (FAILED, PRUNED) and not state.is_finished():
            ended = TrialState.PRUNED if trial.status == PRUNED else TrialState.FAIL
            self._study.tell(number, state=ended)
