"""What a table of metrics compares: its plan, and the numbers of one metric on one data set.

``metric_table.py`` lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..results import Cell, DatasetResults
from . import published
from .comparison import Figures, Group, Values, compare


@dataclass(frozen=True)
class Plan:
    """What a table shows.

    Attributes:
        title: one line.
        split: ``test`` or ``valid``.
        groups: who is ranked among and compared with whom; names as in ``labels``.
        labels: of the rows, by name.
        headings: of the labels.
        notes: sentences of this table alone.
        paper: ``table1`` or ``table2`` to show what is published; empty for nothing.
        mean_ranks: show mean ranks over data sets.
    """

    title: str
    split: str
    groups: list[Group]
    labels: dict[str, tuple[str, ...]]
    headings: tuple[str, ...]
    notes: tuple[str, ...]
    paper: str = ""
    mean_ranks: bool = False


@dataclass(frozen=True)
class Block:
    """The columns of one metric on one data set."""

    data: DatasetResults
    cells: dict[str, Cell]
    metric: str
    plan: Plan

    @cached_property
    def figures(self) -> dict[str, Figures]:
        """By name, of those that have values."""
        values = {name: self._values(cell) for name, cell in self.cells.items()}
        return compare(self.plan.groups, {name: v for name, v in values.items() if v})

    def _values(self, cell: Cell) -> Values:
        """The metric by seed; without seeds if the experiment did not compute it."""
        computed = cell.first_run["metrics"][self.plan.split]
        return cell.values(self.metric, self.plan.split) if self.metric in computed else {}

    @property
    def seeds(self) -> int:
        """The most that a cell has."""
        return max((figures.n for figures in self.figures.values()), default=0)

    @property
    def bayes(self) -> float | None:
        """The best possible test metric, where the data set's makers know it."""
        runs = (run for cell in self.cells.values() for run in cell.runs.values())
        known = (run["bayes"][self.metric] for run in runs if self.metric in run["bayes"])
        return next(known, None) if self.plan.split == "test" else None

    @cached_property
    def sources(self) -> list[str]:
        """Which of ``paper`` and ``longctr`` have something on this data set."""
        found = [self.published(name) for name in self.plan.labels]
        return [s for s in ("paper", "longctr") if any(values[s] is not None for values in found)]

    def published(self, name: str) -> dict[str, float | None]:
        """What others published on this place of the table."""
        if not self.plan.paper:
            return {"paper": None, "longctr": None}
        where = self.data.dataset_id
        length = self.max_len(name)
        return {
            "paper": published.paper_value(self.plan.paper, where, name, self.metric),
            "longctr": length and published.longctr_value(where, name, length, self.metric),
        }

    def max_len(self, name: str) -> int | None:
        """The longest history in the runs of a cell."""
        return self.cells[name].first_run["params"]["max_len"] if name in self.cells else None

    def batch_note(self, name: str) -> str:
        """Which runs of a cell had a smaller batch, since the tuner halves it where memory runs out."""
        runs = self.cells[name].runs
        sizes = {seed: run["params"]["batch_size"] for seed, run in runs.items()}
        full = max(sizes.values())
        small = [f"seed {seed} of {size}" for seed, size in sizes.items() if size < full]
        return f"{name}: batches of {full}, {', '.join(small)} (out of memory)" if small else ""

    def note(self, name: str) -> str:
        """What is odd about the paper's number."""
        if not self.plan.paper:
            return ""
        return published.notes(self.plan.paper, self.data.dataset_id).get((name, self.metric), "")
