"""Search by Optuna: TPE over the values of the tuner file, with hopeless trials stopped early.

Optuna's study is a file in the output folder. It knows an asked-for combination by a number; several
numbers may be one trial, which then runs once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .folder import Folder
from .report import Monitor
from .space import Space
from .trial import DONE, FAILED, PRUNED, QUEUED, Trial, canonical, digest

try:
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.samplers import TPESampler
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise UserError("--search optuna: Optuna is missing; pip install optuna==5.0.0") from None


SEED = 2024
REDRAWS = 10  # of combinations that ran before, until any other is taken


class OptunaSearch:
    """Draws trials one by one; those of an earlier call of the tuner count.

    Args:
        space: its values are drawn as categories, whatever they are.
        folder: holds the study and the trials' status files.
        size: how many different trials to draw; a combination that is drawn again is not run
            again: Optuna is told the result that is there.
    """

    def __init__(self, space: Space, folder: Folder, size: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.folder, self.size = space, folder, min(size, space.size)
        self.monitor = Monitor(space.model)
        self.trials: dict[str, Trial] = {}
        self._numbers: dict[str, list[int]] = {}
        self._values = {
            key: {canonical(value): value for value in values}
            for key, values in space.choices.items()
        }
        self._study = optuna.create_study(
            storage=f"sqlite:///{folder.path / 'optuna.db'}",
            study_name=digest({**space.model, **space.dataset, **space.choices}),
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        for drawn in self._drawn():
            if drawn.params.keys() == self._values.keys():
                self._remember(drawn.number, drawn.params)
            elif drawn.state == TrialState.RUNNING:  # killed in the middle of a draw
                self._study.tell(drawn.number, state=TrialState.FAIL)
        self._queue = [t for t in self.trials.values() if t.status not in (DONE, PRUNED)]
        for trial in self.trials.values():
            if trial.status in (DONE, PRUNED):
                self.tell(trial)
        for trial in self._queue:
            trial.status = QUEUED

    def selected(self) -> list[Trial]:
        return list(self.trials.values())

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
            asked = self._study.ask(
                {key: CategoricalDistribution(list(texts)) for key, texts in self._values.items()}
            )
            if (trial := self._remember(asked.number, asked.params)) is not None:
                return trial
            redraws += 1
        return None

    def observe(self, trial: Trial, stage_log: list[dict[str, Any]]) -> bool:
        joint = [entry for entry in stage_log if entry["stage"] == "joint"]
        drawn = self._drawn()[self._numbers[trial.name][0]]
        if drawn.state.is_finished():  # failed in an earlier call: it has no say any more
            return False
        asked = optuna.trial.Trial(self._study, drawn._trial_id)
        for step in range(len(drawn.intermediate_values), len(joint)):
            asked.report(self.monitor(joint[step]), step)
        return bool(joint) and asked.should_prune()

    def tell(self, trial: Trial) -> None:
        for number in self._numbers[trial.name]:
            self._tell(number, trial)

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
        """Note a draw; returns its trial if it is one to be run."""
        trial = self._trial(params)
        known = self.trials.setdefault(trial.name, trial)
        self._numbers.setdefault(trial.name, []).append(number)
        if known is trial:
            self.folder.restore(trial)
            if trial.status not in (DONE, PRUNED):
                return trial
        if known.status in (DONE, FAILED, PRUNED):
            self._tell(number, known)
        return None

    def _tell(self, number: int, trial: Trial) -> None:
        if trial.status == DONE:
            value = self.monitor(trial.metrics["valid"])
            self._study.tell(number, value, skip_if_finished=True)
        else:
            state = TrialState.PRUNED if trial.status == PRUNED else TrialState.FAIL
            self._study.tell(number, state=state, skip_if_finished=True)
