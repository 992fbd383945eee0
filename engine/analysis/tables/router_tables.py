"""The tables of routers: MoS against the others on each backbone, and how all share the load."""

import json
from functools import partial
from typing import Any, NamedTuple

from model_zoo.registry import OURS, VANILLA, backbone_of, label, mixture_of, variant

from ..results import METRICS, Cell, DatasetResults
from ..wording import conditions, device_note, ordered_models, row_labels, sentences, span
from .comparison import Comparison, mean_std, paired_gains
from .grid import Column, Entry, Table, grouped, header, plus_minus, points, settings, tested

EXPERIMENTS = ("table1", "knobs")
MEASURES = {
    "item_entropy": "entropy of the load",
    "switch_rate": "switch rate",
    "consistency": "consistency",
    "unserved": "unserved",
}


class Rivals(NamedTuple):
    """The other routers on one data set, by one metric.

    Attributes:
        dataset_id: name of the data set.
        title: says under which conditions its runs were made.
        metric: name of the metric.
        cells: Table 1's cells that have the metric, by model.
        gains: of MoS over each other router, by the other router's model; p is corrected.
    """

    dataset_id: str
    title: str
    metric: str
    cells: dict[str, Cell]
    gains: dict[str, Comparison]


def mos_table(results: list[DatasetResults]) -> Table | None:
    """The differences of MoS from each other mixture of Table 1; a column for each data set and metric.

    It is None if no backbone has runs of both.
    """
    parts = [part for data in results for m in METRICS if (part := _rivals(data, m)).gains]
    models = ordered_models(model for part in parts for model in part.gains)
    if not models:
        return None
    title, minus = f"{label(OURS)} against the other routers", f"{label(OURS)} minus"
    rows = {model: row_labels(model) for model in models}
    columns = [Column(part.title, part.metric, partial(_entry, part)) for part in parts]
    records = [
        {"dataset_id": part.dataset_id, "backbone": backbone_of(model)}
        | {"router": mixture_of(model), "metric": part.metric, **gain._asdict()}
        for part in parts
        for model, gain in part.gains.items()
    ]
    return grouped(title, ["Backbone", minus], rows, columns, sentences("mos"), records)


def _rivals(data: DatasetResults, metric: str) -> Rivals:
    table = data.experiment("table1")
    title = ", ".join([data.title, *conditions(table)]) if table else ""
    cells = {
        cell.model: cell
        for cell in table
        if all(metric in run["metrics"]["test"] for run in cell.runs.values())
    }
    rivals = [m for m in ordered_models(cells) if mixture_of(m) not in (VANILLA, OURS)]
    pairs = {rival: (_ours(rival), rival) for rival in rivals}
    values = {model: cell.values(metric) for model, cell in cells.items()}
    return Rivals(data.dataset_id, title, metric, cells, paired_gains(pairs, values))


def _ours(rival: str) -> str:
    """The MoS model on the same backbone."""
    return variant(backbone_of(rival), OURS)


def _entry(part: Rivals, rival: str) -> Entry:
    """A difference; over fewer pairs than the most of the column it says how many."""
    found = part.gains.get(rival)
    if found is None:
        return Entry()
    few = found.pairs < max(other.pairs for other in part.gains.values())
    lines = (f"n = {found.pairs}" if few else "", tested(found.low, found.high, found.p))
    device = device_note(part.cells[_ours(rival)], part.cells[rival])
    text = points(found.gain, "+")
    return Entry(text, found.gain, "", tuple(filter(None, lines)), tuple(filter(None, [device])))


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
    own = "Data set", "Backbone", "Router", "Changed", "Experts of", "dead"
    headings = header(*own, *MEASURES.values())
    title = "Routing on test data at the end of training"
    return Table(title, headings, 5, rows, sentences("routing"), records) if rows else None


def _record(dataset_id: str, cell: Cell, branch: str) -> dict[str, Any]:
    """One line of the CSV file."""
    reports = [run["routing"][branch] for run in cell.runs.values() if branch in run["routing"]]
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
