"""Tables of metrics: models by row; data sets and metrics by column, beside what others published.

Tables 1 and 2 and the table of knobs (``quality_tables.py``) are made here. They differ in their
cells, in who is compared with whom, and in the split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from ..conditions import batch_note, conditions, device_note, limit_note
from ..results import METRICS, Cell, DatasetResults
from .comparison import Group, Standing, compare
from .grid import Entry, Footnotes, Header, Table, grouped_header, points, tested
from .published import Published, published

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
SOURCES = {"longctr": "LongCTR"}  # headings of what others published, if not their own names
SPLITS = {"test": "test", "valid": "validation"}


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


def metric_table(plan: Plan, parts: list[tuple[DatasetResults, dict[str, Cell]]]) -> Table:
    """The table of a plan.

    Args:
        plan: what is shown.
        parts: the data sets, and the cells on each by their name in the plan.
    """
    blocks = [[Block(data, cells, m, plan) for m in METRICS] for data, cells in parts]
    flat = [block for pair in blocks for block in pair]
    footnotes = Footnotes()
    rows = []
    for name, labels in plan.labels.items():
        row = [Entry(label) for label in labels]
        for block in flat:
            row += _entries(block, name, footnotes)
        if plan.mean_ranks:
            row += [_mean_rank(list(column), name) for column in zip(*blocks, strict=True)]
        rows.append(tuple(row))
    notes = [
        f"Metrics are on {SPLITS[plan.split]} data, in points (x100): mean ± standard deviation over seeds."
    ]
    notes += [*plan.notes, *RULES]
    if any(block.sources for block in flat):
        notes.append(PUBLISHED)
    if any(block.bayes is not None for block in flat):
        rows.append(_best_possible(flat, plan))
        notes.append("Best possible: the metric of the true click probabilities of synthetic data.")
    records = [record for block in flat for record in _records(block)]
    return Table(
        plan.title, _header(plan, blocks), len(plan.headings), rows, notes, footnotes.texts, records
    )


def _header(plan: Plan, blocks: list[list[Block]]) -> Header:
    groups: list[tuple[str, list[str]]] = []
    for pair in blocks:
        seeds = max(block.seeds for block in pair)
        title = [pair[0].data.dataset_id, f"{seeds} seed{'s' * (seeds != 1)}"]
        title += conditions(pair[0].cells.values())
        headings = [SOURCES.get(s, s) for block in pair for s in (block.metric, *block.sources)]
        groups.append((", ".join(title), headings))
    if plan.mean_ranks:
        groups.append(("Mean rank", list(METRICS)))
    return grouped_header(plan.headings, groups)


def _entries(block: Block, name: str, footnotes: Footnotes) -> Iterator[Entry]:
    """The own number of one metric, and the published ones."""
    yield _own(block, name, footnotes)
    found = block.published(name)
    for source in block.sources:
        value = getattr(found, source)
        marked = footnotes.numbers(found.note) if source == "paper" else ()
        yield Entry(points(value), value, footnotes=marked)


def _own(block: Block, name: str, footnotes: Footnotes) -> Entry:
    standing = block.standings.get(name)
    if standing is None:
        return Entry()
    text = points(standing.mean)
    if standing.std is not None:
        text += f" ± {points(standing.std)}"
    lines = [f"n = {standing.n}"] if standing.n < block.seeds else []
    if standing.gain is not None:
        test = tested(standing.low, standing.high, standing.p)
        lines.append(f"{points(standing.gain, '+')} {test}".rstrip())
    if standing.rank is not None:
        lines.append(f"rank {standing.rank}")
    cell, reference = block.cells[name], block.cells.get(standing.reference)
    devices = device_note(cell, reference) if reference else ""
    marked = footnotes.numbers(batch_note(cell, name), devices, limit_note(cell))
    return Entry(text, standing.mean, standing.mark, tuple(lines), marked)


def _mean_rank(blocks: list[Block], name: str) -> Entry:
    """The mean over the data sets that rank the model."""
    ranks = [block.standings[name].rank for block in blocks if name in block.standings]
    found = [rank for rank in ranks if rank is not None]
    if not found:
        return Entry()
    few = (f"{len(found)} of {len(blocks)} data sets",) if len(found) < len(blocks) else ()
    return Entry(f"{fmean(found):.2f}", fmean(found), secondary=few)


def _best_possible(blocks: list[Block], plan: Plan) -> tuple[Entry, ...]:
    empty = Entry("")
    row = [Entry("Best possible")] + [empty] * (len(plan.headings) - 1)
    for block in blocks:
        row += [Entry(points(block.bayes), block.bayes)] + [empty] * len(block.sources)
    return tuple(row + [empty] * (len(METRICS) * plan.mean_ranks))


def _records(block: Block) -> Iterator[dict[str, Any]]:
    """One line of the CSV file for each model that has runs or a published number."""
    for name in block.plan.labels:
        standing, found = block.standings.get(name, Standing()), block.published(name)
        if standing.mean is None and found.paper is None and found.longctr is None:
            continue
        cell = block.cells.get(name)
        yield {
            "dataset_id": block.data.dataset_id,
            "split": block.plan.split,
            "model": cell.model if cell else name,
            "varied": json.dumps(cell.varied) if cell and cell.varied else "",
            "max_len": block.max_len(name),
            "metric": block.metric,
            **standing._asdict(),
            "bayes": block.bayes,
            **found._asdict(),
        }
