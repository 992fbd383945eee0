"""Utility against cost (paper, figure 4): AUC and gAUC over FLOPs per sample, of every variant of every backbone."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from model_zoo.registry import OURS, backbone_of, label, mixture_of

from ..results import Cell, DatasetResults
from ..tables.quality_tables import table1
from . import style
from .selection import in_points, metrics_of, spread


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A point for each model of Table 1, with the deviation over seeds; None below two models."""
    cells = results.experiment("table1")
    metrics = metrics_of(cells)
    if len(cells) < 2 or "AUC" not in metrics:
        return None
    models = [cell.model for cell in cells]
    looks, markers = style.backbone_looks(models), style.mixture_markers(models)
    figure = style.new(8.6, 3.7)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _points(axes, cells, metric, looks, markers)
        axes.set(xscale="log", xlabel="FLOPs per sample (forward)", ylabel=f"test {metric}, points")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 30 * low else (1, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    hollow = {"color": "0.3", "linestyle": "", "fillstyle": "none", "markeredgewidth": 1.3}
    lines = [
        style.legend_entry(label(b), color=k.colour, linestyle=k.line) for b, k in looks.items()
    ]
    points = [style.legend_entry(label(m), marker=k, **hollow) for m, k in markers.items()]
    figure.legend(handles=lines + points, loc="outside right center")
    style.heading(
        figure,
        _title(results),
        f"{results.dataset_id}, test split, {style.over_seeds(len(cell.runs) for cell in cells)}; "
        "lines join the variants of a backbone; upper left is better; routers may differ in how many "
        "experts they read (k in the cost table)",
    )
    return figure


def _points(
    axes: Axes,
    cells: list[Cell],
    metric: str,
    looks: dict[str, style.Look],
    markers: dict[str, str],
) -> None:
    """A line for each backbone below a point for each model."""
    for backbone, look in looks.items():
        own = sorted((c for c in cells if backbone_of(c.model) == backbone), key=_flops)
        axes.plot(
            [_flops(cell) for cell in own],
            [in_points(cell, metric)[0] for cell in own],
            color=look.colour, linestyle=look.line, linewidth=0.9, zorder=1,
        )  # fmt: skip
    for cell in cells:
        ours = mixture_of(cell.model) == OURS
        axes.errorbar(
            _flops(cell), *in_points(cell, metric),
            color=looks[backbone_of(cell.model)].colour, marker=markers[mixture_of(cell.model)],
            markersize=9 if ours else 6, fillstyle="none",  # what is behind shows
            markeredgewidth=1.3, elinewidth=0.8, capsize=2, capthick=0.8, zorder=3 if ours else 2,
        )  # fmt: skip


def _flops(cell: Cell) -> float:
    return spread(run["flops_per_sample"] for run in cell.runs.values())[0]


def _title(results: DatasetResults) -> str:
    """On how many of the backbones that have MoS Table 1 marks it as the best by AUC."""
    table = table1([results])
    records = table.records if table else []
    found = {r["model"]: r["mark"] for r in records if r["metric"] == "AUC"}
    marks = [mark for model, mark in found.items() if mixture_of(model) == OURS]
    if not marks:
        return "Utility and cost of each model"
    best = (
        f"{label(OURS)} is significantly the best in AUC on {marks.count('best')} of {len(marks)}"
    )
    return f"{best} backbone{'s' * (len(marks) > 1)}"
