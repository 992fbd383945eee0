"""The weights of item and window experts (paper, figure 7): AUC and gAUC over alpha_item and alpha_window."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..results import Cell, DatasetResults
from . import style
from .selection import in_points, metrics_of


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A triangle for each model and metric, the highest mean framed; None without the experiment."""
    cells = results.experiment("alphas")
    metrics = metrics_of(cells)
    if not cells or "AUC" not in metrics:
        return None
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure = style.new(9.2, 0.8 + 3.4 * len(models))
    panels = figure.subplots(len(models), len(metrics), squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _triangle(figure, axes, _means(cells, model, metric), metric)
            axes.set_title(f"{model}, test {metric}")
    number = style.seeds(len(cell.runs) for cell in cells)
    style.heading(
        figure,
        "; ".join(_highest(model, _means(cells, model, "AUC")) for model in models),
        f"{results.dataset_id}, test split, means over {number}; the global block has the rest of the "
        "weight; frame: the highest, not tested against the others",
    )
    return figure


def _means(cells: list[Cell], model: str, metric: str) -> dict[tuple[float, float], float]:
    """A model's mean metric in points by alpha_item and alpha_window."""
    return {
        (cell.varied["alpha_item"], cell.varied["alpha_window"]): in_points(cell, metric)[0]
        for cell in cells
        if cell.model == model
    }


def _triangle(
    figure: Figure, axes: Axes, means: dict[tuple[float, float], float], metric: str
) -> None:
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
    bar = figure.colorbar(image, ax=axes, format="%.2f", label=f"test {metric}, points")
    bar.outline.set_visible(False)


def _highest(model: str, means: dict[tuple[float, float], float]) -> str:
    """Where a model's mean is highest, and the highest of those that fuse all three parts."""
    item, window = best = max(means, key=means.__getitem__)
    text = f"{model}: highest mean AUC {means[best]:.2f} at alpha_item {item:g}, alpha_window {window:g}"
    fused = [mean for (i, w), mean in means.items() if min(i, w) > 0 and i + w < 1]
    return f"{text}; with all three parts at most {max(fused):.2f}" if fused else text
