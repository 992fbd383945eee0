"""The figures of metrics over what they cost: over FLOPs (paper, figure 4), and over FLOPs and time."""

from collections.abc import Iterable
from statistics import median, mode
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from model_zoo.registry import OURS, backbone_of, label, mixture_of

from ..results import Cell, DatasetResults, Run
from ..wording import machine
from . import style
from .selection import in_points, metrics_of


class Cost(NamedTuple):
    """What a run costs, as an axis of a figure; ``key`` is that of its result, or of its seconds."""

    key: str
    words: str
    by_machine: bool = True  # only comparable on the same device, with as many threads

    def of(self, run: Run) -> float | None:
        """The cost of a run; None if it was not measured."""
        return run.get(self.key, run["seconds"].get(self.key))


FLOPS = Cost("flops_per_sample", "FLOPs per sample (forward)", by_machine=False)
COSTS = (
    FLOPS,
    Cost("fit", "seconds of training"),
    Cost("serving_ms", "ms for 100 candidates, uncompiled"),
)
Point = tuple[float, float, float]  # cost, mean metric in points, its deviation over seeds


@style.styled
def utility_flops(results: DatasetResults) -> Figure | None:
    """A point for each model of Table 1, with the deviation over seeds; None below two models."""
    cells = results.experiment("table1")
    metrics = metrics_of(cells)
    points = {metric: _points(cells, FLOPS, metric) for metric in metrics}
    if not metrics or min(map(len, points.values())) < 2:
        return None
    figure, panels = style.panels(1, len(metrics), (8.6, 3.7))
    for axes, metric in zip(panels[0], metrics, strict=True):
        _draw(axes, points[metric], FLOPS, metric)
    return _finish(figure, cells, results, "Utility and cost of each model", "utility_flops")


@style.styled
def pareto(results: DatasetResults) -> Figure | None:
    """The AUC of each model of Table 1 over what it costs, and the models that no other one beats.

    Each cost has a panel if two models have it. Times are of the runs on the machine that most ran on. None
    without a time.
    """
    cells = results.experiment("table1")
    if not metrics_of(cells):
        return None
    usual = mode(sorted(machine(run) for cell in cells for run in cell.runs.values()))
    points = {cost: _points(cells, cost, "AUC", usual) for cost in COSTS}
    shown = [cost for cost in COSTS if len(points[cost]) > 1]
    if not any(cost.by_machine for cost in shown):
        return None
    figure, panels = style.panels(1, len(shown), (2.2 + 3.2 * len(shown), 3.7), sharey="row")
    for axes, cost in zip(panels[0], shown, strict=True):
        _draw(axes, points[cost], cost, "AUC")
        front = _front(points[cost].values())
        axes.step(
            *zip(*front, strict=True), where="post", color=style.NULL, linewidth=0.9, zorder=0
        )
        axes.label_outer()
    timed = min(len(points[cost]) for cost in shown if cost.by_machine)
    facts = {"machine": usual, "timed": timed, "models": len(cells)}
    return _finish(figure, cells, results, "Quality and what it costs", "pareto", **facts)


def _points(cells: list[Cell], cost: Cost, metric: str, usual: str = "") -> dict[str, Point]:
    """The cost (median) and metric of each model for which both are known; see ``pareto`` for ``usual``."""
    found = {}
    for cell in cells:
        runs = cell.runs.values()
        known = [cost.of(run) for run in runs if not cost.by_machine or machine(run) == usual]
        values = [value for value in known if value is not None]
        if values and cell.values(metric):
            found[cell.model] = (median(values), *in_points(cell, metric))
    return found


def _front(points: Iterable[Point]) -> list[tuple[float, float]]:
    """The points that are better than all cheaper ones."""
    front: list[tuple[float, float]] = []
    for cost, mean, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or mean > front[-1][1]:
            front.append((cost, mean))
    return front


def _finish(
    figure: Figure, cells: list[Cell], results: DatasetResults, title: str, name: str, **facts: Any
) -> Figure:
    """Add the legend, the title and what was measured."""
    models = [cell.model for cell in cells]
    hollow = {"color": "0.3", "linestyle": "", "fillstyle": "none", "markeredgewidth": 1.3}
    looks = style.mixture_looks(models).items()
    mixtures = [style.legend_entry(label(m), marker=look.marker, **hollow) for m, look in looks]
    lines: list[Line2D] = [
        style.legend_entry(label(b), color=look.colour, linestyle=look.line)
        for b, look in style.backbone_looks(models).items()
    ]
    seeds = style.over_seeds(cell.runs for cell in cells)
    legend = [*lines, *mixtures]
    return style.finish(
        figure, title, name, legend=legend, dataset=results.title, seeds=seeds, **facts
    )


def _draw(axes: Axes, points: dict[str, Point], cost: Cost, metric: str) -> None:
    """A line for each backbone below a point for each model."""
    markers = style.mixture_looks(points)
    for backbone, look in style.backbone_looks(points).items():
        own = sorted((m for m in points if backbone_of(m) == backbone), key=points.__getitem__)
        costs, means, _ = zip(*(points[model] for model in own), strict=True)
        axes.plot(
            costs, means, color=look.colour, linestyle=look.line, linewidth=0.9, zorder=1,
        )  # fmt: skip
        for model in own:
            mixture = mixture_of(model)
            axes.errorbar(
                *points[model], color=look.colour, marker=markers[mixture].marker,
                markersize=9 if mixture == OURS else 6, fillstyle="none",  # what is behind shows
                markeredgewidth=1.3, elinewidth=0.8, capsize=2, capthick=0.8,
                zorder=3 if mixture == OURS else 2,
            )  # fmt: skip
    axes.set(xscale="log", xlabel=cost.words, ylabel=f"test {metric}, points")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 30 * low else (1, 3)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
