"""What a table of metrics compares: its plan, and the numbers of one metric on one data set.

``metric_table.py`` lays them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..results import Cell, DatasetResults
from .comparison import Group, Standing, compare
from .published import Published, published


@dataclass(frozen=True)
class Plan:
    """What a table shows.

    Attributes:
        title: one line.
        split: ``test`` or ``valid``.
        groups: who is ranked among and compared with whom; names as in ``labels``.
        labels: the labels of each row, by name.
        headings: the headings of the labels.
        notes: sentences of this table alone.
        paper: ``table1`` or ``table2`` to show what is published; empty for nothing.
        mean_ranks: show mean ranks over data sets.
    """

    title: str
    split: str
    groups: list[Group]
    labels: Mapping[str, tuple[str, ...]]
    headings: tuple[str, ...]
    notes: tuple[str, ...]
    paper: str = ""
    mean_ranks: bool = False


@dataclass(frozen=True)
class Block:
    """The columns of one metric on one data set.

    Attributes:
        data: the results on the data set.
        cells: the data set's cells by their name in the plan.
        metric: name of the metric.
        plan: the table that the columns belong to.
    """

    data: DatasetResults
    cells: dict[str, Cell]
    metric: str
    plan: Plan

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """The standing of each name with a value: not all experiments compute all metrics."""
        values = {
            name: cell.values(self.metric, self.plan.split)
            for name, cell in self.cells.items()
            if self.metric in cell.first_run["metrics"][self.plan.split]
        }
        return compare(self.plan.groups, {name: found for name, found in values.items() if found})

    @property
    def seeds(self) -> int:
        """The largest number of seeds of a cell."""
        return max((standing.n for standing in self.standings.values()), default=0)

    @property
    def bayes(self) -> float | None:
        """The best possible test metric; None unless the makers of the data know it."""
        runs = (run for cell in self.cells.values() for run in cell.runs.values())
        known = (run["bayes"][self.metric] for run in runs if self.metric in run["bayes"])
        return next(known, None) if self.plan.split == "test" else None

    @cached_property
    def sources(self) -> list[str]:
        """The fields of ``Published`` that have a number on this data set."""
        found = [self.published(name) for name in self.plan.labels]
        return [s for s in ("paper", "longctr") if any(getattr(p, s) is not None for p in found)]

    def published(self, name: str) -> Published:
        """What others published on this place of the table."""
        if not self.plan.paper:
            return Published()
        place = (self.plan.paper, self.data.dataset_id, name, self.metric)
        return published(*place, self.max_len(name))

    def max_len(self, name: str) -> int | None:
        """The longest history in the runs of a cell; None without a run."""
        return self.cells[name].first_run["params"]["max_len"] if name in self.cells else None
