"""Tables of metrics: models by row; data sets and metrics by column, beside what others published.

Tables 1 and 2 and the table of knobs (``tables.py``) are made here: they differ in their cells, in who
is compared with whom, and in the split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from ..results import METRICS, Cell, DatasetResults, conditions, device_note, limit_note
from .grid import Entry, Footnotes, Table, interval, points
from .metric_block import Block, Plan

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


def metric_table(plan: Plan, parts: list[tuple[DatasetResults, dict[str, Cell]]]) -> Table:
    """The table of a plan.

    Args:
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


def _header(plan: Plan, blocks: list[list[Block]]) -> tuple[tuple[tuple[str, int], ...], ...]:
    names = {"paper": "paper", "longctr": "LongCTR"}
    upper, lower = [("", len(plan.headings))], list(plan.headings)
    for pair in blocks:
        columns = [[b.metric, *(names[source] for source in b.sources)] for b in pair]
        seeds = max(block.seeds for block in pair)
        title = [pair[0].data.dataset_id, f"{seeds} seed{'s' * (seeds != 1)}"]
        title += conditions(pair[0].cells.values())
        upper.append((", ".join(title), sum(map(len, columns))))
        lower += (text for column in columns for text in column)
    if plan.mean_ranks:
        upper.append(("Mean rank", len(METRICS)))
        lower += METRICS
    return tuple(upper), tuple((text, 1) for text in lower)


def _entries(block: Block, name: str, footnotes: Footnotes) -> Iterator[Entry]:
    yield _own(block, name, footnotes)
    values, note = block.published(name), block.note(name)
    for source in block.sources:
        marked = footnotes.numbers(note) if source == "paper" else ()
        yield Entry(points(values[source]), values[source], footnotes=marked)


def _own(block: Block, name: str, footnotes: Footnotes) -> Entry:
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


def _mean_rank(blocks: list[Block], name: str) -> Entry:
    """Over the data sets that rank the model."""
    ranks = [block.figures[name].rank for block in blocks if name in block.figures]
    found = [rank for rank in ranks if rank is not None]
    if not found:
        return Entry()
    few = (f"{len(found)} of {len(blocks)} data sets",) if len(found) < len(blocks) else ()
    return Entry(f"{fmean(found):.2f}", fmean(found), secondary=few)


def _best_possible(blocks: list[Block], plan: Plan) -> tuple[Entry, ...]:
    row = [Entry("Best possible")] + [Entry("")] * (len(plan.headings) - 1)
    for block in blocks:
        row += [Entry(points(block.bayes), block.bayes)] + [Entry("")] * len(block.sources)
    return tuple(row + [Entry("")] * (len(METRICS) * plan.mean_ranks))


def _records(block: Block) -> Iterator[dict[str, Any]]:
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
