"""The figures of metrics: over history length and experts (paper, figure 6), over fusion weights (7), over starts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from model_zoo.registry import OURS, VANILLA, backbone_of, label, mixture_of, variant

from ..results import Cell, DatasetResults
from ..wording import ordered_models
from . import style
from .selection import in_points, metrics_of

Means = dict[tuple[float, float], float]  # a mean metric in points by alpha_item and alpha_window
VARIED = {
    "length": ("max_len", "longest history (items)", "items"),
    "experts": ("num_experts", "experts per branch", "experts"),
}
Lines = dict[str, list[Cell]]  # the cells of each model in the order of what is varied
DASHES = {OURS: "-", VANILLA: ":"}
SPREAD = 0.012  # of an axis, between the backbones' points, so that error bars stay apart


@style.styled
def alphas(results: DatasetResults) -> Figure | None:
    """A triangle for each model and metric, the highest mean framed; None without the experiment."""
    cells = results.experiment("alphas")
    metrics = metrics_of(cells)
    if not metrics:
        return None
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure, panels = style.panels(len(models), len(metrics), (9.2, 0.8 + 3.4 * len(models)))
    highest: dict[str, str] = {}
    for axes, (model, metric) in zip(panels.flat, product(models, metrics), strict=True):
        own = [cell for cell in cells if cell.model == model]
        places = [(cell.varied["alpha_item"], cell.varied["alpha_window"]) for cell in own]
        means = dict(zip(places, (in_points(cell, metric)[0] for cell in own), strict=True))
        highest.setdefault(model, _highest_alphas(model, means))  # by the AUC, which comes first
        axes.set_title(f"{model}, test {metric}")
        unit = f"test {metric}, points"
        bar = figure.colorbar(_triangle(axes, means), ax=axes, format="%.2f", label=unit)
        bar.outline.set_visible(False)
    seeds = style.seeds(cell.runs for cell in cells)
    title = "; ".join(highest.values())
    return style.finish(figure, title, "alphas", dataset=results.title, seeds=seeds)


def _triangle(axes: Axes, means: Means) -> AxesImage:
    items, windows = (sorted(set(weights)) for weights in zip(*means, strict=True))
    grid = np.full((len(windows), len(items)), np.nan)
    for (item, window), mean in means.items():
        grid[windows.index(window), items.index(item)] = mean
    image = axes.imshow(grid, origin="lower", cmap="cividis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            look = {"color": "black" if value > middle else "white", "fontsize": 7.5}
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontdict=look)
    item, window = max(means, key=means.__getitem__)
    corner = (items.index(item) - 0.5, windows.index(window) - 0.5)
    frame = Rectangle(corner, 1, 1, fill=False, edgecolor=style.RED, linewidth=2, clip_on=False)
    axes.add_patch(frame)
    of = "weight of the {0} experts, alpha_{0}".format
    axes.set(xlabel=of("item"), ylabel=of("window"))
    style.only_ticks(axes, "x", range(len(items)), [f"{value:g}" for value in items])
    style.only_ticks(axes, "y", range(len(windows)), [f"{value:g}" for value in windows])
    return image


def _highest_alphas(model: str, means: Means) -> str:
    """Where a model's mean is highest, and the highest of those that fuse all three parts."""
    item, window = best = max(means, key=means.__getitem__)
    text = f"{model}: highest mean AUC {means[best]:.2f} at alpha_item {item:g}, alpha_window {window:g}"
    fused = [mean for (i, w), mean in means.items() if min(i, w) > 0 and i + w < 1]
    return f"{text}; with all three parts at most {max(fused):.2f}" if fused else text


@style.styled
def start(results: DatasetResults) -> Figure | None:
    """AUC and gAUC over the scale of new embeddings, a line for each model; None without."""
    cells = results.experiment("start")
    metrics = metrics_of(cells)
    if not metrics:
        return None
    lines = {
        model: sorted((c for c in cells if c.model == model), key=_scale)
        for model in ordered_models(cell.model for cell in cells)
    }
    figure, panels = style.panels(1, len(metrics), (8.6, 3.7))
    looks = style.backbone_looks(lines)
    for axes, metric in zip(panels[0], metrics, strict=True):
        for model, line in lines.items():
            points = [(_scale(cell), *in_points(cell, metric)) for cell in line]
            backbone, mixture = backbone_of(model), mixture_of(model)
            _line(axes, points, looks[backbone], mixture, variant(label(backbone), mixture))
        words = "standard deviation of new embeddings"
        axes.set(xscale="log", xlabel=words, ylabel=f"test {metric}, points")
    best = ", ".join(f"{model} at {_scale(_best(line)):g}" for model, line in lines.items())
    legend = panels[0, 0].get_legend_handles_labels()[0]
    facts = {"dataset": results.title, "seeds": style.over_seeds(cell.runs for cell in cells)}
    title = f"Highest mean AUC: {best}"
    return style.finish(figure, title, "start", legend=legend, **facts)


def _scale(cell: Cell) -> float:
    """The standard deviation in ``partial(nn.init.normal_, std=0.25)``."""
    return float(cell.varied["embedding_initializer"].rpartition("=")[2].rstrip(")"))


@style.styled
def scaling(results: DatasetResults) -> Figure | None:
    """AUC and gAUC over what is varied, a column for each experiment that was run; None without."""
    columns = {name: _lines(results, name) for name in VARIED if results.experiment(name)}
    cells = [cell for lines in columns.values() for line in lines.values() for cell in line]
    metrics = metrics_of(cells)
    if not metrics:
        return None
    shape, size = (len(metrics), len(columns)), (max(6.5, 1.4 + 3.6 * len(columns)), 5.2)
    figure, panels = style.panels(*shape, size, sharex="col", sharey="row")
    highest = []
    for column, (name, lines) in zip(panels.T, columns.items(), strict=True):
        key, words, what = VARIED[name]
        for axes, metric in zip(column, metrics, strict=True):
            _points(axes, lines, key, metric)
            style.outer_labels(axes, words, f"test {metric}, points")
        if best := ", ".join(_highest_values(lines, key)):
            highest.append(f"{best} ({what})")
    looks = style.backbone_looks(cell.model for cell in cells).items()
    entry = style.legend_entry
    legend = [entry(label(name), color=look.colour, marker=look.marker) for name, look in looks]
    if any(not mixture_of(cell.model) for cell in cells):
        legend += [entry(label(m), color="0.3", linestyle=dash) for m, dash in DASHES.items()]
    over = style.over_seeds(cell.runs for cell in cells)
    best = f"{label(OURS)} has its highest mean AUC at {'; '.join(highest)}"
    facts = {"dataset": results.title, "seeds": over}
    return style.finish(figure, best if highest else "Scaling", "scaling", legend=legend, **facts)


def _lines(results: DatasetResults, name: str) -> Lines:
    """The cells of an experiment, and the cells of Table 1 that belong to it.

    These are alike but for what is varied, and count with the same seeds.
    """
    key = VARIED[name][0]
    lines: Lines = {}
    for cell in results.experiment(name):
        lines.setdefault(cell.model, []).append(cell)
    for own in results.experiment("table1"):
        line, value = lines.get(own.model, []), own.settings.get(key)
        seeds = {seed for cell in line for seed in cell.runs}
        runs = {seed: run for seed, run in own.runs.items() if seed in seeds}
        alike = all(cell.settings | {key: value} == own.settings for cell in line)
        if runs and alike and all(cell.varied[key] != value for cell in line):
            line.append(replace(own, varied={key: value}, runs=runs))
    return {model: sorted(line, key=lambda cell: cell.varied[key]) for model, line in lines.items()}


def _points(axes: Axes, lines: Lines, key: str, metric: str) -> None:
    values = sorted({cell.varied[key] for line in lines.values() for cell in line})
    looks = style.backbone_looks(lines)
    for place, (backbone, look) in enumerate(looks.items()):
        shift = (place - (len(looks) - 1) / 2) * SPREAD * (values[-1] - values[0])
        for mixture in DASHES:
            line = lines.get(variant(backbone, mixture), [])
            points = [(cell.varied[key] + shift, *in_points(cell, metric)) for cell in line]
            _line(axes, points, look, mixture)
    style.only_ticks(axes, "x", values)


def _line(
    axes: Axes, points: Sequence[tuple[float, ...]], look: style.Look, mixture: str, label: str = ""
) -> None:
    """The line of a model through points ``(x, mean, deviation)``; hollow without a mixture."""
    axes.errorbar(
        *np.reshape(points, (-1, 3)).T, color=look.colour, marker=look.marker, label=label,
        markerfacecolor=None if mixture else "white", linestyle=DASHES[mixture], elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _best(line: list[Cell]) -> Cell:
    """The cell with the highest mean AUC."""
    return max(line, key=lambda cell: in_points(cell, "AUC")[0])


def _highest_values(lines: Lines, key: str) -> Iterator[str]:
    """Where MoS has its highest mean AUC, for each backbone with several values."""
    for backbone in style.backbone_looks(lines):
        line = lines.get(variant(backbone, OURS), [])
        if len(line) > 1:
            yield f"{_best(line).varied[key]} on {backbone}"
