"""MoS against every other router on the same backbone: the comparison that Table 1 leaves to the reader."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from model_zoo.registry import OURS, VANILLA, backbone_of, label, mixture_of, variant

from ..lineup import ordered_models, row_labels
from ..remarks import conditions, device_note, sentences
from ..results import METRICS, Cell, DatasetResults
from .comparison import Comparison, paired_gains
from .grid import Column, Entry, Table, grouped, points, tested


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
    return grouped(
        f"{label(OURS)} against the other routers",
        ["Backbone", f"{label(OURS)} minus"],
        {model: row_labels(model) for model in models},
        [Column(part.title, part.metric, partial(_entry, part)) for part in parts],
        sentences("mos"),
        [
            {"dataset_id": part.dataset_id, "backbone": backbone_of(model)}
            | {"router": mixture_of(model), "metric": part.metric, **gain._asdict()}
            for part in parts
            for model, gain in part.gains.items()
        ],
    )


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
