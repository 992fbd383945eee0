"""Utility against cost (paper, figure 4): AUC and gAUC over FLOPs per sample, of every variant of every backbone."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from model_zoo.registry import OURS, backbone_of, label, mixture_of

from ..results import Cell, DatasetResults
from . import style
from .selection import in_points, metrics_of, spread


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A point for each model of Table 1, with the deviation over seeds; None below two models."""
    cells = results.experiment("table1")
    metrics = metrics_of(cells)
    if len(cells) < 2 or not metrics:
        return None
    figure, panels = style.panels(1, len(metrics), (8.6, 3.7))
    for axes, metric in zip(panels[0], metrics, strict=True):
        _points(axes, cells, metric)
        axes.set(xscale="log", xlabel="FLOPs per sample (forward)", ylabel=f"test {metric}, points")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 30 * low else (1, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    hollow = {"color": "0.3", "linestyle": "", "fillstyle": "none", "markeredgewidth": 1.3}
    looks = style.mixture_looks(cell.model for cell in cells).items()
    mixtures = [style.legend_entry(label(m), marker=look.marker, **hollow) for m, look in looks]
    legend = [*panels[0, 0].get_legend_handles_labels()[0], *mixtures]
    facts = {"dataset": results.title, "seeds": style.over_seeds(cell.runs for cell in cells)}
    title = "Utility and cost of each model"
    return style.finish(figure, title, "utility_flops", legend=legend, **facts)


def _points(axes: Axes, cells: list[Cell], metric: str) -> None:
    """A line for each backbone below a point for each model."""
    markers = style.mixture_looks(cell.model for cell in cells)
    for backbone, look in style.backbone_looks(cell.model for cell in cells).items():
        own = sorted((c for c in cells if backbone_of(c.model) == backbone), key=_flops)
        points = [(_flops(cell), *in_points(cell, metric)) for cell in own]
        flops, means, _ = zip(*points, strict=True)
        axes.plot(
            flops, means, color=look.colour, linestyle=look.line, linewidth=0.9, zorder=1,
            label=label(backbone),
        )  # fmt: skip
        for cell, point in zip(own, points, strict=True):
            mixture = mixture_of(cell.model)
            axes.errorbar(
                *point, color=look.colour, marker=markers[mixture].marker,
                markersize=9 if mixture == OURS else 6, fillstyle="none",  # what is behind shows
                markeredgewidth=1.3, elinewidth=0.8, capsize=2, capthick=0.8,
                zorder=3 if mixture == OURS else 2,
            )  # fmt: skip


def _flops(cell: Cell) -> float:
    return spread(run["flops_per_sample"] for run in cell.runs.values())[0]
