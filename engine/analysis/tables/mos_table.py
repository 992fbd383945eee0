"""MoS against every other router on the same backbone: the comparison that Table 1 leaves to the reader."""

from __future__ import annotations

from typing import Any, NamedTuple

from model_zoo.registry import OURS, backbone_of, label, mixture_of, variant

from ..conditions import conditions, device_note
from ..lineup import ordered_models
from ..results import METRICS, Cell, DatasetResults
from .grid import Entry, Footnotes, NothingToShow, Table, grouped_header, points, tested
from .significance import Comparison, holm, paired

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
        gains: of MoS over each other router, by the other router's model.
        p: p values of the gains, Holm-corrected.
    """

    data: DatasetResults
    metric: str
    cells: dict[str, Cell]
    gains: dict[str, Comparison]
    p: dict[str, float | None]


def mos_table(results: list[DatasetResults]) -> Table:
    """The differences of MoS from each other mixture of Table 1; a column for each data set and metric.

    Raises:
        NothingToShow: no backbone has runs of both.
    """
    pairs = [[_column(data, metric) for metric in METRICS] for data in results]
    pairs = [found for pair in pairs if (found := [column for column in pair if column.gains])]
    columns = [column for pair in pairs for column in pair]
    if not columns:
        raise NothingToShow(
            "no backbone has runs of MoS and of another router; python -m engine.study table1 makes them"
        )
    footnotes = Footnotes()
    rivals = ordered_models(model for column in columns for model in column.gains)
    groups = [(_title(pair[0].data), [column.metric for column in pair]) for pair in pairs]
    return Table(
        title="MoS against the other routers",
        header=grouped_header(["Backbone", "MoS minus"], groups),
        labels=2,
        rows=[_row(rival, columns, footnotes) for rival in rivals],
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
    values = {model: cell.values(metric) for model, cell in cells.items()}
    gains: dict[str, Comparison] = {}
    for rival in ordered_models(m for m in cells if mixture_of(m) not in ("", OURS)):
        gain = paired(values.get(_mos(rival), {}), values[rival])
        if gain:
            gains[rival] = gain
    p_values = holm([gain.p for gain in gains.values()])
    return Column(data, metric, cells, gains, dict(zip(gains, p_values, strict=True)))


def _mos(rival: str) -> str:
    """The MoS model on the same backbone."""
    return variant(backbone_of(rival), OURS)


def _title(data: DatasetResults) -> str:
    return ", ".join([data.dataset_id, *conditions(data.experiment("table1"))])


def _row(rival: str, columns: list[Column], footnotes: Footnotes) -> tuple[Entry, ...]:
    labels = (Entry(label(backbone_of(rival))), Entry(label(mixture_of(rival))))
    return (*labels, *(_entry(rival, column, footnotes) for column in columns))


def _entry(rival: str, column: Column, footnotes: Footnotes) -> Entry:
    """A difference; over fewer pairs than the most of the column it says how many."""
    gain = column.gains.get(rival)
    if gain is None:
        return Entry()
    few = gain.pairs < max(other.pairs for other in column.gains.values())
    lines = (f"n = {gain.pairs}" if few else "", tested(gain, column.p[rival]))
    return Entry(
        points(gain.difference, "+"),
        gain.difference,
        secondary=tuple(line for line in lines if line),
        footnotes=footnotes.numbers(device_note(column.cells[_mos(rival)], column.cells[rival])),
    )


def _record(column: Column, rival: str) -> dict[str, Any]:
    gain = column.gains[rival]
    return {
        "dataset_id": column.data.dataset_id,
        "backbone": backbone_of(rival),
        "router": mixture_of(rival),
        "metric": column.metric,
        "gain": gain.difference,
        "low": gain.low,
        "high": gain.high,
        "p": column.p[rival],
        "pairs": gain.pairs,
    }
