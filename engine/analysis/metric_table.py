"""Tables of metrics: models by row; data sets and metrics by column, beside what others published.

Tables 1 and 2 and the table of knobs (``tables.py``) are made here: they differ in their cells, in who
is compared with whom, and in the split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from . import published
from .comparison import Figures, Group, Values, compare
from .results import METRICS, Cell, DatasetResults, device_note, limit_note
from .table import Entry, Footnotes, Table, interval, points

RULES = (
    "A gain is paired by seed; then follow its 95 % t-interval (not corrected) and p of the paired "
    "t-test, Holm-corrected over all gains of the data set and metric in this table; with one common "
    "seed there is neither.",
    "The best is marked only where it is better than the second best, and the second best only where it is "
    "better than the third: p below 0.05 in a paired t-test, Holm-corrected over all such tests of the data "
    "set and metric in this table.",
    "Ranks are by mean; 1 is best, ties share the smaller rank. They are given where all that are compared "
    "have equally many seeds.",
    "A cell with fewer seeds than the most of its data set says its n.",
)
PUBLISHED = (
    "paper: what the MoS paper prints. LongCTR: the published test value of LongCTR's best run at the same "
    "max_len, one run."
)


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
class _Block:
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


def metric_table(plan: Plan, parts: list[tuple[DatasetResults, dict[str, Cell]]]) -> Table:
    """The table of a plan.

    Args:
        parts: the data sets, and the cells on each by their name in the plan.
    """
    blocks = [[_Block(data, cells, m, plan) for m in METRICS] for data, cells in parts]
    flat = [block for pair in blocks for block in pair]
    footnotes = Footnotes()
    rows = []
    for name, labels in plan.labels.items():
        row = [Entry(label) for label in labels]
        for block in flat:
            row += _entries(block, name, footnotes)
        if plan.mean_ranks:
            row += [_mean_rank([pair[i] for pair in blocks], name) for i in range(len(METRICS))]
        rows.append(tuple(row))
    split = {"valid": "validation"}.get(plan.split, plan.split)
    notes = [
        f"Metrics are on {split} data, in points (x100): mean ± standard deviation over seeds."
    ]
    notes += [*plan.notes, *RULES]
    if any(block.sources for block in flat):
        notes.append(PUBLISHED)
    if any(block.bayes is not None for block in flat):
        rows.append(_best_possible(flat, plan))
        notes.append("Best possible: the metric of the true click probabilities of synthetic data.")
    return Table(
        title=plan.title,
        header=_header(plan, blocks),
        labels=len(plan.headings),
        rows=tuple(rows),
        notes=tuple(notes),
        footnotes=footnotes.texts(),
        records=tuple(record for block in flat for record in _records(block)),
    )


def _header(plan: Plan, blocks: list[list[_Block]]) -> tuple[tuple[tuple[str, int], ...], ...]:
    names = {"paper": "paper", "longctr": "LongCTR"}
    upper, lower = [("", len(plan.headings))], list(plan.headings)
    for pair in blocks:
        columns = [[b.metric, *(names[source] for source in b.sources)] for b in pair]
        seeds = max(block.seeds for block in pair)
        title = f"{pair[0].data.dataset_id}, {seeds} seed{'s' * (seeds != 1)}"
        upper.append((title, sum(map(len, columns))))
        lower += (text for column in columns for text in column)
    if plan.mean_ranks:
        upper.append(("Mean rank", len(METRICS)))
        lower += METRICS
    return tuple(upper), tuple((text, 1) for text in lower)


def _entries(block: _Block, name: str, footnotes: Footnotes) -> Iterator[Entry]:
    yield _own(block, name, footnotes)
    values, note = block.published(name), block.note(name)
    for source in block.sources:
        marked = footnotes.numbers(note) if source == "paper" else ()
        yield Entry(points(values[source]), values[source], footnotes=marked)


def _own(block: _Block, name: str, footnotes: Footnotes) -> Entry:
    figures = block.figures.get(name)
    if figures is None:
        return Entry()
    text = points(figures.mean)
    if figures.std is not None:
        text += f" ± {points(figures.std)}"
    lines = []
    if figures.n < block.seeds:
        lines.append(f"n = {figures.n}")
    if figures.gain is not None:
        gain = figures.gain
        line = points(gain.difference, "+")
        if gain.low is not None:
            line += f" {interval(gain.low, gain.high, figures.p)}"
        lines.append(line)
    if figures.rank is not None:
        lines.append(f"rank {figures.rank}")
    reference = block.cells.get(figures.reference)
    devices = device_note(block.cells[name], reference) if reference else ""
    marked = footnotes.numbers(block.batch_note(name), devices, limit_note(block.cells[name]))
    return Entry(text, figures.mean, figures.mark, tuple(lines), marked)


def _mean_rank(blocks: list[_Block], name: str) -> Entry:
    """Over the data sets that rank the model."""
    ranks = [block.figures[name].rank for block in blocks if name in block.figures]
    found = [rank for rank in ranks if rank is not None]
    if not found:
        return Entry()
    few = (f"{len(found)} of {len(blocks)} data sets",) if len(found) < len(blocks) else ()
    return Entry(f"{fmean(found):.2f}", fmean(found), secondary=few)


def _best_possible(blocks: list[_Block], plan: Plan) -> tuple[Entry, ...]:
    row = [Entry("Best possible")] + [Entry("")] * (len(plan.headings) - 1)
    for block in blocks:
        row += [Entry(points(block.bayes), block.bayes)] + [Entry("")] * len(block.sources)
    return tuple(row + [Entry("")] * (len(METRICS) * plan.mean_ranks))


def _records(block: _Block) -> Iterator[dict[str, Any]]:
    """One line of the CSV file for each model that has runs or a published number."""
    for name in block.plan.labels:
        figures = block.figures.get(name)
        values = block.published(name)
        if figures is None and all(value is None for value in values.values()):
            continue
        gain = figures and figures.gain
        cell = block.cells.get(name)
        yield {
            "dataset_id": block.data.dataset_id,
            "split": block.plan.split,
            "model": cell.model if cell else name,
            "varied": json.dumps(cell.varied) if cell and cell.varied else "",
            "max_len": block.max_len(name),
            "metric": block.metric,
            "mean": figures and figures.mean,
            "std": figures and figures.std,
            "n": figures.n if figures else 0,
            "reference": figures.reference if figures else "",
            "gain": gain and gain.difference,
            "low": gain and gain.low,
            "high": gain and gain.high,
            "p": figures and figures.p,
            "rank": figures and figures.rank,
            "mark": figures.mark if figures else "",
            "bayes": block.bayes,
            **values,
            "note": block.note(name),
        }
