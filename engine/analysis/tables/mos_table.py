"""MoS against every other router on the same backbone: the comparison that Table 1 leaves to the reader."""

from __future__ import annotations

from typing import Any, NamedTuple

from model_zoo.registry import OURS, VANILLA, backbone_of, label, mixture_of, variant

from ..conditions import conditions, device_note
from ..lineup import ordered_models
from ..results import METRICS, Cell, DatasetResults
from .comparison import paired_gains
from .grid import Entry, Footnotes, NothingToShow, Table, grouped_header, points, tested
from .significance import Comparison

NOTES = (
    "Differences of test metrics in points (x100), paired by seed; then the 95 % t-interval (not "
    "corrected) and p of the paired t-test, Holm-corrected over the rows of a column.",
    "A large p does not say that two routers are alike: the interval says how far apart they may be.",
)


class Column(NamedTuple):
    """One metric on one data set.

    Attributes:
        data: the results on the data set.
        metric: name of the metric.
        cells: Table 1's cells that have the metric, by model.
        gains: of MoS over each other router, by the other router's model; p is corrected.
    """

    data: DatasetResults
    metric: str
    cells: dict[str, Cell]
    gains: dict[str, Comparison]


def mos_table(results: list[DatasetResults]) -> Table:
    """The differences of MoS from each other mixture of Table 1; a column for each data set and metric.

    Raises:
        NothingToShow: no backbone has runs of both.
    """
    pairs = [[c for metric in METRICS if (c := _column(data, metric)).gains] for data in results]
    columns = [column for pair in pairs for column in pair]
    if not columns:
        raise NothingToShow(
            "no backbone has runs of MoS and of another router; python -m engine.study table1 makes them"
        )
    footnotes = Footnotes()
    rows = []
    for rival in ordered_models(model for column in columns for model in column.gains):
        labels = (Entry(label(backbone_of(rival))), Entry(label(mixture_of(rival))))
        rows.append((*labels, *(_entry(rival, column, footnotes) for column in columns)))
    groups = [(_title(pair[0].data), [c.metric for c in pair]) for pair in pairs if pair]
    return Table(
        title="MoS against the other routers",
        header=grouped_header(["Backbone", "MoS minus"], groups),
        labels=2,
        rows=rows,
        notes=NOTES,
        footnotes=footnotes.texts,
        records=[_record(column, rival) for column in columns for rival in column.gains],
    )


def _column(data: DatasetResults, metric: str) -> Column:
    cells = {
        cell.model: cell
        for cell in data.experiment("table1")
        if all(metric in run["metrics"]["test"] for run in cell.runs.values())
    }
    rivals = [m for m in ordered_models(cells) if mixture_of(m) not in (VANILLA, OURS)]
    pairs = {rival: (_mos(rival), rival) for rival in rivals}
    values = {model: cell.values(metric) for model, cell in cells.items()}
    return Column(data, metric, cells, paired_gains(pairs, values))


def _mos(rival: str) -> str:
    """The MoS model on the same backbone."""
    return variant(backbone_of(rival), OURS)


def _title(data: DatasetResults) -> str:
    return ", ".join([data.dataset_id, *conditions(data.experiment("table1"))])


def _entry(rival: str, column: Column, footnotes: Footnotes) -> Entry:
    """A difference; over fewer pairs than the most of the column it says how many."""
    gain = column.gains.get(rival)
    if gain is None:
        return Entry()
    few = gain.pairs < max(other.pairs for other in column.gains.values())
    lines = (f"n = {gain.pairs}" if few else "", tested(gain.low, gain.high, gain.p))
    return Entry(
        points(gain.difference, "+"),
        gain.difference,
        secondary=tuple(filter(None, lines)),
        footnotes=footnotes.numbers(device_note(column.cells[_mos(rival)], column.cells[rival])),
    )


def _record(column: Column, rival: str) -> dict[str, Any]:
    gain = column.gains[rival]._asdict()
    return {
        "dataset_id": column.data.dataset_id,
        "backbone": backbone_of(rival),
        "router": mixture_of(rival),
        "metric": column.metric,
        "gain": gain.pop("difference"),
        **gain,
    }
