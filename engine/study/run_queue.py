"""The order of a study's runs: the tuning of a model, then all seeds with the values that won."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

from ..common.errors import UserError
from ..config.convert import WRONG, convert
from ..config.options import RunOptions
from ..config.read import Params
from ..tuner.checks import check_space
from ..tuner.folder import Folder
from ..tuner.leaderboard import Monitor
from ..tuner.search import Search
from ..tuner.space import Space, grid_file, read_experiment, read_tuner_file, with_choices
from ..tuner.trial import DONE, ENDED, Trial, digest
from .experiments import Planned
from .store import Store


class StudySearch(Search):
    """The queue of a study. A run whose result is known does not run again.

    Every model has its tuning trials first. Once these have ended, the cells of the model run with
    the values of the best trial, each cell with every seed.

    Args:
        spaces: the experiment of each model, and the choices to tune.
        planned: the cells of all models.
        folder: the folder of the queue, which knows runs that were killed.
        store: the results, and the call that this queue answers.

    Raises:
        UserError: the queue's folder has a run on other data.
    """

    def __init__(
        self, spaces: Mapping[str, Space], planned: Sequence[Planned], folder: Folder, store: Store
    ) -> None:
        self.spaces, self.planned, self.folder, self.store = spaces, planned, folder, store
        self.space = next(iter(spaces.values()))
        self.seeds = list(range(1, store.call.seeds + 1))
        self.trials: dict[str, Trial] = {}
        self.runs: dict[str, list[Trial]] = {}  # by cell, for models whose tuning has ended
        self.tuning = {model: self._tuning(space) for model, space in spaces.items()}
        self._plan_runs()

    @property
    def size(self) -> int:  # type: ignore[override]
        """The number of planned runs, and of runs that wait for the end of a tuning."""
        waiting = sum(not self._has_ended(cell.model) for cell in self.planned)
        return len(self.trials) + waiting * len(self.seeds)

    def selected(self) -> list[Trial]:
        """All trials.

        The seeds of tuned models come first, so that an interrupted study has complete rows.
        """
        seeded = {trial.name: trial for trials in self.runs.values() for trial in trials}
        return list((seeded | self.trials).values())

    def tell(self, trial: Trial) -> None:
        """Keep the result of a run, and plan the seeds of a model whose tuning has ended."""
        self._keep(trial)
        self._plan_runs()
        self.save()

    def chosen(self, model: str) -> Trial | None:
        """The tuning trial that is best on validation data; None if no trial is done."""
        score = Monitor(self.spaces[model].model)
        done = [trial for trial in self.tuning[model] if trial.status == DONE]
        return max(done, key=lambda trial: score(trial.metrics["valid"]), default=None)

    def save(self) -> None:
        """Write all known results to the store's index."""
        call = self.store.call
        shared = {"seeds": self.seeds, "budget": call.budget, "changes": call.changes}
        known = [cell for cell in self.planned if cell.key in self.runs]
        cells = [{**c._asdict(), "expid": self.runs[c.key][0].label, **shared} for c in known]
        tuning = [
            {"model": model, "expid": trial.label, "seed": trial.params["seed"]}
            | {"tuned": _without_seed(trial.tuned), "valid": trial.metrics["valid"]}
            | {"chosen": self._has_ended(model) and trial is self.chosen(model)}
            for model, trials in self.tuning.items()
            for trial in trials
            if trial.status == DONE
        ]
        self.store.save(cells, tuning)

    def _tuning(self, space: Space) -> list[Trial]:
        """The tuning trials of a model, which have the configuration's own seed."""
        budget = self.store.call.budget
        if budget == 1:
            return []
        own = {**space.model, **space.dataset}
        combinations = balanced(space.choices, own, budget)
        trials = [seeded_trial(space, values, own["seed"]) for values in combinations]
        return [t if self.store.restore_tuning(t) else self._known(t) for t in trials]

    def _has_ended(self, model: str) -> bool:
        """Whether the tuning of a model has ended."""
        return all(trial.status in ENDED for trial in self.tuning[model])

    def _plan_runs(self) -> None:
        """Plan the runs of every cell whose model is tuned, one for each seed.

        They have the tuned values, and the cell's own in place of them. A model whose tuning trials
        all failed has no run.
        """
        for cell in self.planned:
            best = self.chosen(cell.model)
            hopeless = self.tuning[cell.model] and not best
            if cell.key in self.runs or hopeless or not self._has_ended(cell.model):
                continue
            values = _without_seed(best.tuned if best else {}) | cell.varied
            trials = [seeded_trial(self.spaces[cell.model], values, seed) for seed in self.seeds]
            self.runs[cell.key] = list(map(self._known, trials))

    def _known(self, trial: Trial) -> Trial:
        """The only trial with this name, restored from the store or from the folder of the queue."""
        if trial.name in self.trials:
            return self.trials[trial.name]
        if not self.store.restore(trial):
            self.folder.restore(trial)
            self.folder.require_same_data([trial], self.store.study["dataset_hash"])
            if not self._keep(trial):
                trial.back_to_queue()
        self.trials[trial.name] = trial
        return trial

    def _keep(self, trial: Trial) -> bool:
        """Store the result of a seed that is done, and return whether there is one.

        A tuning trial needs no result file, since the index has everything about it.
        """
        result = self.folder.result(trial) if trial.status == DONE else None
        if result is not None and trial.params["seed"] in self.seeds:
            self.store.add(trial, result)
        return result is not None


def seeded_trial(space: Space, values: dict[str, Any], seed: int) -> Trial:
    """The run of a configuration with a seed.

    Its experiment id is ``<model>_<dataset_id>_<digest>``. The digest is of all parameters but the
    seed, so a configuration that was edited gets another one.

    Args:
        space: the experiment.
        values: the keys that are set in it, which displays show.
        seed: the seed of the run.
    """
    params = {**space.model, **space.dataset, **values}
    label = f"{space.expid}_{digest(_without_seed(params))}"
    own = {"seed": seed}
    return Trial(f"{label}_seed{seed}", params | own, values | own, label=label)


def _without_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "seed"}


def model_space(expid: str, options: RunOptions, budget: int) -> Space:
    """The checked configuration of an experiment, with the study's changes.

    With a budget above 1, it has the choices of the experiment's grid (see ``grid_file``), except for
    keys that ``options.changes`` sets. With a budget of 1, it has no choices.

    Raises:
        UserError: a run would be rejected, or the grid is smaller than the budget.
    """
    space = read_experiment(options.config, expid)
    for key in options.changes.keys() & space.dataset.keys():
        raise UserError(f"--set {key}: is a key of the data set; write it in dataset_config.yaml")
    space = replace(space, model={**space.model, **options.changes})
    if budget > 1:
        space = replace(space, file=grid_file(options.config, space))
        grid = read_tuner_file(space.file)["tuner_space"]
        space = with_choices(space, {k: v for k, v in grid.items() if k not in options.changes})
        if space.size < budget:
            few = f"{space.file} has {space.size} combinations"
            raise UserError(f"--budget {budget}: {few}; add values there, or write {space.size}")
    return check_space(space, options)


def balanced(choices: dict[str, list[Any]], own: Params, count: int) -> list[Params]:
    """Choose ``count`` combinations that use the values of each key as evenly as possible.

    Args:
        choices: the values of each key.
        own: the configuration's own values. The first combination is the nearest to them.
        count: how many combinations to choose. If there are fewer, all are chosen.
    """
    ordered = {key: _from(values, own.get(key)) for key, values in choices.items()}
    left = list(product(*(range(len(values)) for values in ordered.values())))
    uses: Counter[tuple[int, int]] = Counter()  # by the indices of key and value
    drawn = []
    for _ in range(min(count, len(left))):
        # The least used values win. Among equals, those nearest to the configuration's own win.
        best = min(left, key=lambda c: (sum(uses[place] for place in enumerate(c)), c))
        left.remove(best)
        uses.update(enumerate(best))
        drawn.append({k: ordered[k][i] for k, i in zip(ordered, best, strict=True)})
    return drawn


def _from(values: list[Any], own: Any) -> list[Any]:
    """Sort the values of a key by their distance in the list from the configuration's own value."""
    with suppress(*WRONG):  # YAML reads 1e-3 as a text, but the values have been checked
        own = convert(own, type(values[0]))
    start = values.index(own) if own in values else 0
    return sorted(values, key=lambda value: abs(values.index(value) - start))
