"""What a study runs, and in which order: a model's tuning, then the seeds of what won it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..tuner.folder import Folder
from ..tuner.leaderboard import Monitor
from ..tuner.scheduler import Command
from ..tuner.search import Search
from ..tuner.space import Space
from ..tuner.trial import DONE, FAILED, PRUNED, QUEUED, Trial, digest
from ..tuner.tune import run_expid_command
from .call import Call
from .experiments import Planned
from .store import Store
from .tuning import balanced


class ModelStudy:
    """One model: its tuning trials, and once these have ended the runs of its cells.

    Args:
        plain: its experiment as the configuration directory has it.
        tuned: the same with the study's changes, and the choices to tune.
        cells: what is planned with this model.
        call: has the number of tuning trials and of seeds.
    """

    def __init__(self, plain: Space, tuned: Space, cells: list[Planned], call: Call) -> None:
        self.plain, self.tuned, self.cells = plain, tuned, cells
        self.seeds = range(1, call.seeds + 1)
        own_seed = int(plain.model["seed"])
        own = {**plain.model, **plain.dataset}
        combinations = balanced(tuned.choices, own, call.budget) if call.budget > 1 else []
        self.tuning = [
            seeded_trial(plain, values, tuned.model, own_seed) for values in combinations
        ]
        self.monitor = Monitor(tuned.model)
        self.runs: dict[str, list[Trial]] = {}

    def ready(self) -> bool:
        """Whether tuning has ended."""
        return all(trial.status in (DONE, FAILED, PRUNED) for trial in self.tuning)

    def chosen(self) -> Trial | None:
        """The tuning trial that is best on validation data; None without tuning, or if all failed."""
        done = [trial for trial in self.tuning if trial.status == DONE]
        return max(done, key=lambda trial: self.monitor(trial.metrics["valid"]), default=None)

    def plan_runs(self) -> list[Trial]:
        """The runs of every cell: the tuned values, the cell's own on top, each seed."""
        best = self.chosen()
        if self.tuning and best is None:
            return []
        tuned = {k: v for k, v in best.tuned.items() if k != "seed"} if best else {}
        for cell in self.cells:
            self.runs[cell_key(cell)] = [
                seeded_trial(self.plain, tuned | cell.varied, self.tuned.model, seed)
                for seed in self.seeds
            ]
        return [trial for trials in self.runs.values() for trial in trials]


class StudySearch(Search):
    """The queue of a study (see ``tuner.search.Search``); what is known is not run again.

    Args:
        models: one study for each model.
        folder: of the queue, which knows runs that were killed.
        store: of the results.
        call: that this answers.
        dataset_hash: of the data there is.

    Raises:
        UserError: the queue's folder has a run on other data.
    """

    def __init__(
        self,
        models: list[ModelStudy],
        folder: Folder,
        store: Store,
        call: Call,
        dataset_hash: str,
    ) -> None:
        self.models, self.folder, self.store = models, folder, store
        self.call, self.dataset_hash = call, dataset_hash
        self.trials: dict[str, Trial] = {}
        self._queue: deque[Trial] = deque()
        self._waiting = list(models)
        for model in models:
            model.tuning = [self._known(trial, tuning=True) for trial in model.tuning]
        self._plan_ready(first=False)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Runs that are known, and those that wait for a choice."""
        waiting = sum(len(model.cells) * len(model.seeds) for model in self._waiting)
        return len(self.trials) + waiting

    @property
    def done(self) -> bool:
        """Whether there is nothing left to run."""
        return not self._queue and not self._waiting

    def next(self) -> Trial | None:
        return self._queue.popleft() if self._queue else None

    def tell(self, trial: Trial) -> None:
        """Keep the result of a run that has ended; the seeds of a model that is tuned come next."""
        self._keep(trial)
        self._plan_ready(first=True)
        self.save()

    def save(self) -> None:
        """Write what is known by now."""
        cells = [
            {
                **cell._asdict(),
                "expid": model.runs[cell_key(cell)][0].label,
                "seeds": list(model.seeds),
                "budget": self.call.budget,
                "changes": self.call.changes,
            }
            for model in self.models
            for cell in model.cells
            if cell_key(cell) in model.runs
        ]
        tuning = [
            {
                "model": model.plain.model["model"],
                "expid": trial.label,
                "seed": trial.params["seed"],
                "tuned": {k: v for k, v in trial.tuned.items() if k != "seed"},
                "valid": trial.metrics["valid"],
                "chosen": model.ready() and trial is model.chosen(),
            }
            for model in self.models
            for trial in model.tuning
            if trial.status == DONE
        ]
        self.store.save(self.call, self.dataset_hash, cells, tuning)

    def _plan_ready(self, first: bool) -> None:
        """Queue tuning, and the seeds of every model that has been tuned; these go first while running,
        so that a study that is cut short has whole rows."""
        for model in list(self._waiting):
            if not model.ready():
                continue
            self._waiting.remove(model)
            planned = model.plan_runs()
            runs = [self._known(trial, tuning=False) for trial in planned]
            names = {trial.name: trial for trial in runs if trial.status == QUEUED}
            open_runs = [trial for trial in names.values() if trial not in self._queue]
            if first:
                self._queue.extendleft(reversed(open_runs))
            else:
                self._queue.extend(open_runs)
        if not first:
            self._queue.extend(
                trial for model in self._waiting for trial in model.tuning if trial.status != DONE
            )

    def _known(self, trial: Trial, tuning: bool) -> Trial:
        """The one trial of that name, with what the store or the queue's folder knows of it."""
        known = self.trials.get(trial.name)
        if known is not None and (tuning or self.store.result(trial).exists()):
            return known
        self.store.restore(trial, tuning)
        if trial.status != DONE:
            self.folder.restore(trial)
            if trial.dataset_hash not in (None, self.dataset_hash):
                raise UserError(
                    f"{self.folder.path}: {trial.name} ran on other data (hash {trial.dataset_hash}, now "
                    f"{self.dataset_hash}); put the data back, or write another --queue"
                )
            if trial.status == DONE and self.folder.result(trial) is not None:
                self._keep(trial)
            else:
                trial.back_to_queue()
        self.trials[trial.name] = trial
        return trial

    def _keep(self, trial: Trial) -> None:
        """Store a finished run of a seed; of a tuning trial the index has all that is needed."""
        result = self.folder.result(trial) if trial.status == DONE else None
        if result is not None and trial.params["seed"] in self.models[0].seeds:
            self.store.add(trial, result)


def seeded_trial(plain: Space, tuned: dict[str, Any], model: dict[str, Any], seed: int) -> Trial:
    """The run of a configuration with a seed.

    Its experiment id is ``<model>_<dataset_id>_<digest>``. The digest is of all parameters but the
    seed, so a configuration that was edited gets another one.

    Args:
        plain: the experiment as the configuration directory has it.
        tuned: the values that displays show of the run.
        model: all keys of the model.
        seed: of the run.
    """
    params = {**model, **plain.dataset, **tuned}
    label = f"{plain.expid}_{digest({k: v for k, v in params.items() if k != 'seed'})}"
    own = {"seed": seed}
    return Trial(f"{label}_seed{seed}", params | own, tuned | own, label=label)


def cell_key(cell: Planned) -> str:
    """One text for a cell."""
    return f"{cell.experiment} {cell.model} {cell.varied}"


def seeded_command(folder: Folder, model_zoo: Path | None) -> Command:
    """The tuner's command of a trial, with its seed, which the experiment id leaves out."""
    of_trial = run_expid_command(folder, model_zoo)
    return lambda trial, gpu: [*of_trial(trial, gpu), "--seed", str(trial.params["seed"])]
