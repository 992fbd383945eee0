"""How the trained routers share the load, over all seeds: whether routing has collapsed."""

from __future__ import annotations

import json
from typing import Any

from model_zoo.registry import mixture_of

from ..lineup import row_labels
from ..remarks import sentences, span
from ..results import Cell, DatasetResults
from .comparison import mean_std
from .grid import Entry, Table, header, plus_minus, settings

EXPERIMENTS = ("table1", "knobs")
MEASURES = {
    "item_entropy": "entropy of the load",
    "switch_rate": "switch rate",
    "consistency": "consistency",
    "unserved": "unserved",
}


def routing_table(results: list[DatasetResults]) -> Table | None:
    """A row for each branch of each mixture of Table 1 and of the knobs; None without a mixture's run."""
    rows, records = [], []
    for data, cell in ((d, c) for d in results for name in EXPERIMENTS for c in d.experiment(name)):
        if not mixture_of(cell.model) or not all(run["routing"] for run in cell.runs.values()):
            continue
        changed = settings(cell.varied)
        if cell.experiment == "knobs":
            changed = changed or "knobs: nothing"
        for branch in cell.first_run["routing"]:
            record = _record(data.dataset_id, cell, branch)
            labels = [data.dataset_id, *row_labels(cell.model), changed, branch]
            dead = f"{span((record['fewest_dead'], record['most_dead']))} of {record['experts']}"
            measures = (_measure(record[name], record[f"{name}_std"]) for name in MEASURES)
            rows.append((*map(Entry, labels), Entry(dead, record["most_dead"]), *measures))
            records.append(record)
    headings = header(
        "Data set", "Backbone", "Router", "Changed", "Experts of", "dead", *MEASURES.values()
    )
    title = "Routing on test data at the end of training"
    return Table(title, headings, 5, rows, sentences("routing"), records) if rows else None


def _record(dataset_id: str, cell: Cell, branch: str) -> dict[str, Any]:
    """One line of the CSV file."""
    reports = [run["routing"][branch] for run in cell.runs.values()]
    dead = [len(report["dead"]) for report in reports]
    record = {
        "dataset_id": dataset_id,
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


def _measure(mean: float | None, std: float | None) -> Entry:
    return Entry() if mean is None else Entry(plus_minus(mean, std, "{:.2f}".format), mean)
