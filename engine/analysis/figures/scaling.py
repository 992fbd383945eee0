"""Scaling with the history's length and with the number of experts (paper, figure 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_zoo.registry import OURS, VANILLA, label, mixture_of, variant

from ..results import Cell, DatasetResults
from . import style
from .selection import in_points, metrics_of

VARIED = {
    "length": ("max_len", "longest history (items)", "items"),
    "experts": ("num_experts", "experts per branch", "experts"),
}
Lines = dict[str, list[Cell]]  # the cells of each model in the order of what is varied

DASHES = {OURS: "-", VANILLA: ":"}
SPREAD = 0.012  # of an axis, between the backbones' points, so that error bars stay apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
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
        if best := ", ".join(_highest(lines, key)):
            highest.append(f"{best} ({what})")
    legend = [
        style.legend_entry(label(backbone), color=look.colour, marker=look.marker)
        for backbone, look in style.backbone_looks(cell.model for cell in cells).items()
    ]
    if any(not mixture_of(cell.model) for cell in cells):
        legend += [
            style.legend_entry(label(mixture), color="0.3", linestyle=dashes)
            for mixture, dashes in DASHES.items()
        ]
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
        for mixture, dashes in DASHES.items():
            line = lines.get(variant(backbone, mixture), [])
            points = [(cell.varied[key] + shift, *in_points(cell, metric)) for cell in line]
            axes.errorbar(
                *np.reshape(points, (-1, 3)).T, color=look.colour, marker=look.marker,
                markerfacecolor=None if mixture else "white", linestyle=dashes, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    style.only_ticks(axes, "x", values)


def _highest(lines: Lines, key: str) -> Iterator[str]:
    """Where MoS has its highest mean AUC, for each backbone with several values."""
    for backbone in style.backbone_looks(lines):
        line = lines.get(variant(backbone, OURS), [])
        if len(line) > 1:
            best = max(line, key=lambda cell: in_points(cell, "AUC")[0])
            yield f"{best.varied[key]} on {backbone}"
