"""MoS against every other router on the same backbone: the comparison that Table 1 leaves to the reader."""

from __future__ import annotations

from collections import Counter

from ..results import (
    BACKBONES,
    METRICS,
    MIXTURES,
    DatasetResults,
    conditions,
    device_note,
    label,
    variant,
)
from .grid import Entry, Footnotes, NothingToShow, Table, interval, points
from .significance import Comparison, holm, paired

RIVALS = [(backbone, mixture) for backbone in BACKBONES for mixture in MIXTURES if mixture != "MoS"]

Gains = dict[tuple[str, str], Comparison]  # by backbone and other router


def mos_table(results: list[DatasetResults]) -> Table:
    """What MoS is better by than each other mixture of Table 1; a column for each data set and metric.

    Raises:
        NothingToShow: no backbone has runs of both.
    """
    columns = {
        (i, metric): gains
        for i, data in enumerate(results)
        for metric in METRICS
        if (gains := _gains(data, metric))
    }
    if not columns:
        raise NothingToShow(
            "no backbone has runs of MoS and of another router; python -m engine.study table1 makes them"
        )
    p_values = {column: _corrected(gains) for column, gains in columns.items()}
    widths = Counter(i for i, _ in columns)
    footnotes = Footnotes()
    rows = [
        (
            Entry(rival[0]),
            Entry(label(rival[1])),
            *(
                _entry(
                    gains.get(rival),
                    p_values[column].get(rival),
                    max(gain.pairs for gain in gains.values()),
                    footnotes.numbers(_device_note(results[column[0]], rival))
                    if rival in gains
                    else (),
                )
                for column, gains in columns.items()
            ),
        )
        for rival in RIVALS
        if any(rival in gains for gains in columns.values())
    ]
    return Table(
        title="MoS against the other routers",
        header=(
            (("", 2), *((_title(results[i]), width) for i, width in widths.items())),
            (("Backbone", 1), ("MoS minus", 1), *((metric, 1) for _, metric in columns)),
        ),
        labels=2,
        rows=tuple(rows),
        notes=(
            "Differences of test metrics in points (x100), paired by seed; then the 95 % t-interval (not "
            "corrected) and p of the paired t-test, Holm-corrected over the rows of a column.",
            "A large p does not say that two routers are alike: the interval says how far apart they may be.",
        ),
        footnotes=footnotes.texts(),
        records=tuple(
            {
                "dataset_id": results[i].dataset_id,
                "backbone": backbone,
                "router": mixture,
                "metric": metric,
                "gain": gain.difference,
                "low": gain.low,
                "high": gain.high,
                "p": p_values[i, metric][backbone, mixture],
                "pairs": gain.pairs,
            }
            for (i, metric), gains in columns.items()
            for (backbone, mixture), gain in gains.items()
        ),
    )


def _title(data: DatasetResults) -> str:
    return ", ".join([data.dataset_id, *conditions(data.experiment("table1"))])


def _gains(data: DatasetResults, metric: str) -> Gains:
    cells = {cell.model: cell for cell in data.experiment("table1")}
    values = {
        name: cell.values(metric)
        for name, cell in cells.items()
        if all(metric in run["metrics"]["test"] for run in cell.runs.values())
    }
    gains = {
        (backbone, mixture): paired(
            values.get(variant(backbone, "MoS"), {}), values.get(variant(backbone, mixture), {})
        )
        for backbone, mixture in RIVALS
    }
    return {rival: gain for rival, gain in gains.items() if gain}


def _device_note(data: DatasetResults, rival: tuple[str, str]) -> str:
    mos, other = (data.cell("table1", variant(rival[0], m)) for m in ("MoS", rival[1]))
    return device_note(mos, other) if mos and other else ""


def _corrected(gains: Gains) -> dict[tuple[str, str], float | None]:
    return dict(zip(gains, holm([gain.p for gain in gains.values()]), strict=True))


def _entry(
    gain: Comparison | None, p: float | None, most: int, footnotes: tuple[int, ...]
) -> Entry:
    """A difference; over fewer pairs than the most of the column it says how many."""
    if gain is None:
        return Entry()
    below = [f"n = {gain.pairs}"] if gain.pairs < most else []
    if p is not None:
        below.append(interval(gain.low, gain.high, p))
    return Entry(
        points(gain.difference, "+"), gain.difference, secondary=tuple(below), footnotes=footnotes
    )
