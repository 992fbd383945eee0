"""The configurations of a data set: the runs of one experiment id with all its seeds, and what is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..analysis.results import DatasetResults, Run
from ..common.errors import UserError
from .table import Shown, metric

OUTSIDE = "outside the study"
TABLES = {"table1", "table2"}  # the paper's comparisons, all tuned alike
NEEDED = {
    "seed", "model", "versions", "command", "params", "routing", "num_parameters", "flops_per_sample",
    "train_samples_per_s", "test_samples_per_s", "peak_memory_bytes", "seconds", "device", "bayes",
}  # fmt: skip


@dataclass
class Group:
    """One configuration.

    Attributes:
        expid: experiment id.
        model: name of the model.
        experiments: of the study that it belongs to, or ``OUTSIDE``; empty without a study.
        varied: the keys that these experiments set.
        runs: in the order of seeds.
        missing: seeds that are planned and have no run.
    """

    expid: str
    model: str
    experiments: list[str] = field(default_factory=list)
    varied: dict[str, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    @property
    def in_tables(self) -> bool:
        """Whether it is compared in the paper's tables; without a study all are."""
        return not self.experiments or not TABLES.isdisjoint(self.experiments)

    def metric(self, split: str, name: str) -> Shown:
        """A metric over the runs."""
        return metric(name, [run["metrics"][split].get(name) for run in self.runs])


def groups(results: DatasetResults) -> list[Group]:
    """All configurations, planned or run, in the study's order, then those outside the study.

    A seed that the study does not plan makes a group of its own, so that means are those of the tables.

    Raises:
        UserError: a run lacks something.
    """
    planned: dict[str, Group] = {}
    seeds: dict[str, list[int]] = {}
    for cell in results.cells:
        seeds[cell.expid] = sorted({*seeds.get(cell.expid, ()), *cell.seeds})
        group = planned.setdefault(cell.expid, Group(cell.expid, cell.model))
        group.experiments.append(cell.experiment)
        group.varied |= cell.varied
    outside: dict[str, Group] = {}
    for run in sorted(results.runs, key=lambda run: run["seed"]):
        if lacking := sorted(NEEDED - run.keys()):
            raise UserError(
                f"{run['file']}: lacks {', '.join(lacking)}; no result of this version: run it again"
            )
        expid = run["expid"]
        if expid in planned and (not results.study or run["seed"] in seeds[expid]):
            planned[expid].runs.append(run)
        else:
            labels = [OUTSIDE] if results.study else []
            outside.setdefault(expid, Group(expid, run["model"], labels)).runs.append(run)
    for group in planned.values():
        ran = {run["seed"] for run in group.runs}
        group.missing = [seed for seed in seeds[group.expid] if seed not in ran]
    return [*planned.values(), *outside.values()]


def best_first(known: list[Group]) -> list[Group]:
    """The groups with runs by mean test AUC; those without one at the end, ties in order."""

    def key(group: Group) -> float:
        mean = group.metric("test", "AUC").value
        return math.inf if mean is None else -mean

    return sorted((group for group in known if group.runs), key=key)
