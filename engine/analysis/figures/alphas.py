"""The weights of item and window experts (paper, figure 7): AUC and gAUC over alpha_item and alpha_window."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..results import Cell, DatasetResults
from . import style
from .backbone_choice import in_points, metrics_of

KEYS = ("alpha_item", "alpha_window")


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
            _triangle(figure, axes, [c for c in cells if c.model == model], metric)
            axes.set_title(f"{model}, test {metric}")
    number = style.seeds(len(cell.runs) for cell in cells)
    style.heading(
        figure,
        _title(cells),
        f"{results.dataset_id}, test split, means over {number}; the global block has the rest of the "
        "weight; frame: the highest, not tested against the others",
    )
    return figure


def _triangle(figure: Figure, axes: Axes, cells: list[Cell], metric: str) -> None:
    steps = [sorted({cell.varied[key] for cell in cells}) for key in KEYS]
    mean = np.full((len(steps[1]), len(steps[0])), np.nan)
    for cell in cells:
        mean[_place(cell, steps)] = _mean(cell, metric)
    image = axes.imshow(mean, origin="lower", cmap="cividis", aspect="auto")
    middle = (np.nanmin(mean) + np.nanmax(mean)) / 2
    for (row, column), value in np.ndenumerate(mean):
        if not np.isnan(value):
            colour = "black" if value > middle else "white"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7.5
            )
    row, column = _place(max(cells, key=lambda cell: _mean(cell, metric)), steps)
    axes.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            1,
            1,
            fill=False,
            edgecolor=style.RED,
            linewidth=2,
            clip_on=False,
        )
    )
    axes.set(xlabel="weight of the item experts, alpha_item")
    axes.set_ylabel("weight of the window experts, alpha_window")
    for axis, values in zip("xy", steps, strict=True):
        style.only_ticks(axes, axis, range(len(values)), [f"{value:g}" for value in values])
    bar = figure.colorbar(image, ax=axes, format="%.2f", label=f"test {metric}, points")
    bar.outline.set_visible(False)


def _place(cell: Cell, steps: list[list[float]]) -> tuple[int, int]:
    item, window = (values.index(cell.varied[key]) for key, values in zip(KEYS, steps, strict=True))
    return window, item


def _mean(cell: Cell, metric: str) -> float:
    return in_points(cell, metric)[0]


def _title(cells: list[Cell]) -> str:
    """Where each model's mean is highest, and the highest of those that fuse all three parts."""
    parts = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = {_weights(cell): _mean(cell, "AUC") for cell in cells if cell.model == model}
        item, window = best = max(own, key=own.__getitem__)
        text = f"{model}: highest mean AUC {own[best]:.2f} at alpha_item {item:g}, alpha_window {window:g}"
        fused = [mean for (i, w), mean in own.items() if min(i, w) > 0 and i + w < 1]
        parts.append(f"{text}; with all three parts at most {max(fused):.2f}" if fused else text)
    return "; ".join(parts)


def _weights(cell: Cell) -> tuple[float, float]:
    item, window = (cell.varied[key] for key in KEYS)
    return item, window
