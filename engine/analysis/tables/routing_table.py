"""How the trained routers share the load, over all seeds: whether routing has collapsed."""

from __future__ import annotations

import json
from typing import Any

from model_zoo.registry import backbone_of, label, mixture_of

from ..conditions import span
from ..results import Cell, DatasetResults
from .grid import Entry, NothingToShow, Table, header, settings
from .significance import mean_std

EXPERIMENTS = ("table1", "knobs")
MEASURES = {
    "item_entropy": "entropy of the load",
    "switch_rate": "switch rate",
    "consistency": "consistency",
    "unserved": "unserved",
}
NOTES = (
    "dead: experts that get under 1 % of the items (of n experts), the fewest and the most over seeds. The rest "
    "are means ± standard deviations over seeds.",
    "Entropy: 1 an even load, 0 a single expert. Switch rate: how often the best expert changes from "
    "one item to the next. Consistency: mean share of an item's appearances at its usual expert; it is 1 by "
    "construction where a router looks at the item alone (DSelect-k, MoS, and GShard's first choice). "
    "Unserved: samples with a history whose newest item no expert takes.",
)


def routing_table(results: list[DatasetResults]) -> Table:
    """A row for each branch of each mixture of Table 1 and of the knobs.

    Raises:
        NothingToShow: no mixture has runs.
    """
    records = [
        _record(data, cell, branch)
        for data in results
        for experiment in EXPERIMENTS
        for cell in data.experiment(experiment)
        if mixture_of(cell.model) and all(run["routing"] for run in cell.runs.values())
        for branch in cell.first_run["routing"]
    ]
    if not records:
        raise NothingToShow("no mixture has runs; python -m engine.study table1 makes them")
    headings = ["Data set", "Backbone", "Router", "Changed", "Experts of", "dead"]
    return Table(
        title="Routing on test data at the end of training",
        header=header(*headings, *MEASURES.values()),
        labels=5,
        rows=[_row(record) for record in records],
        notes=NOTES,
        records=records,
    )


def _record(data: DatasetResults, cell: Cell, branch: str) -> dict[str, Any]:
    reports = [run["routing"][branch] for run in cell.runs.values()]
    dead = [len(report["dead"]) for report in reports]
    record = {
        "dataset_id": data.dataset_id,
        "model": cell.model,
        "experiment": cell.experiment,
        "varied": json.dumps(cell.varied) if cell.varied else "",
        "branch": branch,
        "n": len(reports),
        "experts": len(reports[0]["item_share"]),
        "fewest_dead": min(dead),
        "most_dead": max(dead),
    }
    for name in MEASURES:
        known = [report[name] for report in reports if report[name] is not None]
        record[name], record[f"{name}_std"] = mean_std(known) if known else (None, None)
    return record


def _row(record: dict[str, Any]) -> tuple[Entry, ...]:
    model, changed = record["model"], settings(json.loads(record["varied"] or "{}"))
    if record["experiment"] == "knobs":
        changed = changed or "knobs: nothing"
    dead = f"{span((record['fewest_dead'], record['most_dead']))} of {record['experts']}"
    labels = [record["dataset_id"], label(backbone_of(model)), label(mixture_of(model))]
    measures = (_measure(record[name], record[f"{name}_std"]) for name in MEASURES)
    labels += [changed, record["branch"]]
    return (*map(Entry, labels), Entry(dead, record["most_dead"]), *measures)


def _measure(mean: float | None, std: float | None) -> Entry:
    if mean is None:
        return Entry()
    return Entry(f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}"), mean)
