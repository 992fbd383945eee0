"""The rows of the leaderboard: each is a configuration with the runs of all its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..analysis.remarks import on_device, usual_device
from ..analysis.results import DatasetResults, Run
from ..analysis.tables.comparison import mean_std
from ..analysis.tables.cost_table import Quantity
from ..analysis.tables.grid import Entry, plus_minus, points
from ..common.errors import UserError

TABLES = {"table1", "table2"}  # the paper's comparisons, all tuned alike
PLAIN = ("logloss", "binary_crossentropy", "calibration", "ECE")  # all others are in points
NEEDED = {
    "seed", "model", "versions", "command", "params", "routing", "num_parameters", "flops_per_sample",
    "train_samples_per_s", "test_samples_per_s", "peak_memory_bytes", "seconds", "device", "bayes",
}  # fmt: skip


@dataclass(eq=False)
class Group:
    """One configuration of a data set. Two groups are equal only if they are the same object.

    Attributes:
        expid: experiment id.
        model: name of the model.
        experiments: names of the study's experiments that include it; empty without a study.
        varied: the keys that these experiments, or ``--set`` of the runs, set.
        seeds: the planned seeds.
        runs: in the order of seeds.
    """

    expid: str
    model: str
    experiments: list[str] = field(default_factory=list)
    varied: dict[str, Any] = field(default_factory=dict)
    seeds: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        """The planned seeds that have no run."""
        return sorted(self.seeds - {run["seed"] for run in self.runs})

    @property
    def in_tables(self) -> bool:
        """Whether the paper's tables compare it; without a study they compare all."""
        return not self.experiments or not TABLES.isdisjoint(self.experiments)

    def metric(self, split: str, name: str) -> Entry:
        """The mean of a metric over the runs, and its spread."""
        return metric(name, [run["metrics"][split].get(name) for run in self.runs])

    @property
    def device(self) -> str:
        """The device whose costs are shown. If other runs were elsewhere, their number shows."""
        device = usual_device(self.runs)
        measured, runs = len(on_device(self.runs, device)), len(self.runs)
        return device + (f" ({measured} of {runs} runs)" if measured < runs else "")

    def cost(self, quantity: Quantity) -> Entry:
        """The median of a cost over the runs that measured it, as in the cost table."""
        known = quantity.values(self.runs, usual_device(self.runs))
        return Entry(quantity.show(median(known)), median(known)) if known else Entry()


def groups(results: DatasetResults) -> list[Group]:
    """Collect all configurations in the study's order, then those that are outside the study.

    Runs of seeds that the study does not plan form a group of their own. So the means are those of the
    tables.

    Raises:
        UserError: a run lacks something, because an older version wrote it.
    """
    planned: dict[str, Group] = {}
    for cell in results.cells:
        group = planned.setdefault(cell.expid, Group(cell.expid, cell.model))
        group.experiments.append(cell.experiment)
        group.varied |= cell.varied
        group.seeds.update(cell.seeds)
    outside: dict[str, Group] = {}
    for run in sorted(results.runs, key=lambda run: run["seed"]):
        if lacking := sorted(NEEDED - run.keys()):
            raise UserError(
                f"{run['file']}: lacks {', '.join(lacking)}; no result of this version: run it again"
            )
        where = "outside the study" if results.study else "other settings"
        alone = Group(run["expid"], run["model"], [where])
        group = planned.get(alone.expid, alone)
        if group is alone or (results.study and run["seed"] not in group.seeds):
            group = outside.setdefault(alone.expid, alone)
        group.varied |= run["changes"]
        group.runs.append(run)
    return [*planned.values(), *outside.values()]


def best_first(known: list[Group]) -> list[Group]:
    """Sort the groups that ran by mean test AUC; those without a mean come last."""
    ran = (group for group in known if group.runs)
    return sorted(ran, key=lambda group: -(group.metric("test", "AUC").number or -math.inf))


def metric(name: str, values: Iterable[float | None]) -> Entry:
    """Show the mean over seeds, with the standard deviation if there are several.

    If one value is missing there is no mean, since a mean of fewer seeds would look like one of all. A
    metric of ``PLAIN`` is shown as it is, and any other in points.
    """
    found = list(values)
    known = [value for value in found if value is not None and math.isfinite(value)]
    if not known or len(known) < len(found):
        return Entry()
    mean, std = mean_std(known)
    show = "{:.4f}".format if name in PLAIN else points
    return Entry(plus_minus(mean, std, show), mean)
