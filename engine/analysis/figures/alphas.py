"""The weights of item and window experts (paper, figure 7): AUC and gAUC over alpha_item and alpha_window."""

from __future__ import annotations

from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from ..results import DatasetResults
from . import style
from .selection import in_points, metrics_of

Means = dict[tuple[float, float], float]  # a mean metric in points by alpha_item and alpha_window


@style.styled
def draw(results: DatasetResults) -> Figure | None:
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
        highest.setdefault(model, _highest(model, means))  # by the AUC, which comes first
        axes.set_title(f"{model}, test {metric}")
        label = f"test {metric}, points"
        bar = figure.colorbar(_triangle(axes, means), ax=axes, format="%.2f", label=label)
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


def _highest(model: str, means: Means) -> str:
    """Where a model's mean is highest, and the highest of those that fuse all three parts."""
    item, window = best = max(means, key=means.__getitem__)
    text = f"{model}: highest mean AUC {means[best]:.2f} at alpha_item {item:g}, alpha_window {window:g}"
    fused = [mean for (i, w), mean in means.items() if min(i, w) > 0 and i + w < 1]
    return f"{text}; with all three parts at most {max(fused):.2f}" if fused else text
