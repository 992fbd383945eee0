"""The configurations of a data set, each with the runs of all its seeds: the rows of the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..analysis.conditions import on_device, usual_device
from ..analysis.results import DatasetResults, Run
from ..analysis.tables.grid import Entry, points, settings
from ..analysis.tables.significance import mean_std
from ..common.errors import UserError

OUTSIDE = "outside the study"
TABLES = {"table1", "table2"}  # the paper's comparisons, all tuned alike
LOSSES = ("logloss", "binary_crossentropy")  # all other metrics are in points
NEEDED = {
    "seed", "model", "versions", "command", "params", "routing", "num_parameters", "flops_per_sample",
    "train_samples_per_s", "test_samples_per_s", "peak_memory_bytes", "seconds", "device", "bayes",
}  # fmt: skip
COLUMNS = {  # headings, and the class of their cells: n for numbers
    "Model": "", "Test AUC": "n", "Test gAUC": "n", "Test logloss": "n", "Valid AUC": "n", "Seeds": "n",
    "Varied": "", "Experiment": "", "Parameters": "n", "MFLOPs / sample": "n", "Train samples/s": "n",
    "Test samples/s": "n", "Peak memory, MB": "n", "Device": "",
}  # fmt: skip


@dataclass
class Group:
    """One configuration.

    Attributes:
        expid: experiment id.
        model: name of the model.
        experiments: the experiments of the study that it belongs to, or ``OUTSIDE``; empty without a study.
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

    def metric(self, split: str, name: str) -> Entry:
        """A metric over the runs."""
        return metric(name, [run["metrics"][split].get(name) for run in self.runs])

    @property
    def entries(self) -> list[Entry]:
        """The row below ``COLUMNS``: means of metrics, and medians of costs as in the cost table."""
        device = usual_device(self.runs)
        same = on_device(self.runs, device)
        some = "" if len(same) == len(self.runs) else f" ({len(same)} of {len(self.runs)} runs)"
        return [
            Entry(self.model),
            *(self.metric("test", name) for name in ("AUC", "gAUC", "logloss")),
            self.metric("valid", "AUC"),
            Entry(str(len(self.runs)), len(self.runs)),
            Entry(settings(self.varied)),
            Entry(", ".join(self.experiments)),
            _cost(self.runs, "num_parameters"),
            _cost(self.runs, "flops_per_sample", 1e6, 3),
            _cost(same, "train_samples_per_s"),
            _cost(same, "test_samples_per_s"),
            _cost(same, "peak_memory_bytes", 1e6),
            Entry(device + some),
        ]

    @property
    def by_seed(self) -> str:
        """Every seed's test AUC in a line, for readers without scripts."""
        values = ((r["seed"], metric("AUC", [r["metrics"]["test"].get("AUC")])) for r in self.runs)
        return "test AUC of " + ", ".join(f"seed {seed}: {entry.text}" for seed, entry in values)


def groups(results: DatasetResults) -> list[Group]:
    """All configurations, planned or run, in the study's order, then those outside the study.

    A seed that the study does not plan makes a group of its own, so that means are those of the tables.

    Raises:
        UserError: a run lacks something.
    """
    planned: dict[str, Group] = {}
    seeds: dict[str, set[int]] = {}
    for cell in results.cells:
        seeds.setdefault(cell.expid, set()).update(cell.seeds)
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
        group.missing = sorted(seeds[group.expid] - {run["seed"] for run in group.runs})
    return [*planned.values(), *outside.values()]


def best_first(known: list[Group]) -> list[Group]:
    """The groups with runs by mean test AUC; groups without one come last, ties stay in order."""
    ran = (group for group in known if group.runs)
    return sorted(ran, key=lambda group: -(group.metric("test", "AUC").number or -math.inf))


def metric(name: str, values: Iterable[float | None]) -> Entry:
    """Mean over seeds, and standard deviation where there are several; sorted by the mean.

    One missing value leaves no mean: a mean of fewer seeds would look like one of all. A loss is shown
    as it is, anything else in points.
    """
    found = list(values)
    known = [value for value in found if value is not None and math.isfinite(value)]
    if not known or len(known) < len(found):
        return Entry()
    mean, std = mean_std(known)
    show = "{:.4f}".format if name in LOSSES else points
    return Entry(show(mean) + ("" if std is None else f" ± {show(std)}"), mean)


def _cost(runs: list[Run], key: str, unit: float = 1, decimals: int = 0) -> Entry:
    """The median of what some runs cost; not all runs have measured it."""
    known = [run[key] / unit for run in runs if run[key] is not None]
    return Entry(f"{median(known):,.{decimals}f}", median(known)) if known else Entry()
