"""Search by Optuna: TPE draws from the values of the grid, and the median rule stops hopeless trials.

Nothing is stored but the status files of the trials. Each call of the tuner builds Optuna's study again
from all trials that have run, whether Optuna or a grid had chosen them.
"""

from typing import Any

from ..common.errors import UserError
from .folder import Folder
from .leaderboard import Monitor
from .search import Search
from .space import Space
from .trial import DONE, PRUNED, Trial

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import RandomSampler, TPESampler
    from optuna.trial import TrialState
except ImportError:
    raise UserError("--search optuna: Optuna is missing; pip install optuna==5.0.0") from None


SEED = 2024
REDRAWS = 10  # after so many draws of known combinations, the search takes any new one


class OptunaSearch(Search):
    """Draws trials one by one, each combination once.

    Args:
        space: the values to draw from. Optuna sees each value as a category.
        folder: holds the status files of the trials.
        size: how many different trials there are at the end. Trials that have run before count.
    """

    def __init__(self, space: Space, folder: Folder, size: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.folder, self.size = space, folder, min(size, space.size)
        self.trials: dict[str, Trial] = {}
        self.study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner())
        self._monitor = Monitor(space.model)
        self._draws: dict[str, optuna.trial.Trial] = {}
        self._categories: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(range(len(values)))
            for key, values in space.choices.items()
        }
        for trial in folder.started(space):
            places = {key: space.choices[key].index(value) for key, value in trial.tuned.items()}
            self.study.enqueue_trial(places)
            self._draw()
        # The seed depends on the known trials, so that a later call does not repeat the first draws.
        seed = SEED + len(self.trials)
        self._tpe, self._random = TPESampler(seed=seed), RandomSampler(seed=seed)

    def next(self) -> Trial | None:
        draws = 0
        while (queued := super().next()) is None and len(self.trials) < self.size:
            self.study.sampler = self._tpe if draws < REDRAWS else self._random
            self._draw()
            draws += 1
        return queued

    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        draw = self._draws[trial.name]
        joint = [entry for entry in stage_log if entry["stage"] == "joint"]
        known = len(self.study.trials[draw.number].intermediate_values)
        for step in range(known, len(joint)):
            draw.report(self._monitor(joint[step]), step)
        return bool(joint) and draw.should_prune()

    def tell(self, trial: Trial) -> None:
        """Tell Optuna how a trial ended. A failed trial stays open, since the next call repeats it."""
        draw = self._draws[trial.name]
        if trial.status == DONE:
            self.study.tell(draw, self._monitor(trial.metrics["valid"]))
        elif trial.status == PRUNED:
            self.study.tell(draw, state=TrialState.PRUNED)

    def _draw(self) -> None:
        """Draw a combination. A known one is dropped, and Optuna is told its result if it has run."""
        draw = self.study.ask(self._categories)
        tuned = {key: values[draw.params[key]] for key, values in self.space.choices.items()}
        trial = self.space.trial(tuned)
        if trial.name in self.trials:
            self.study.tell(draw, state=TrialState.FAIL)
            return
        self.folder.restore(trial)
        self.trials[trial.name], self._draws[trial.name] = trial, draw
        if trial.status in (DONE, PRUNED):
            self.observe(trial, self.folder.evaluations(trial))
            self.tell(trial)
        else:
            trial.back_to_queue()
