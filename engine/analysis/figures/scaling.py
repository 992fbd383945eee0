"""Scaling with the history's length and with the number of experts (paper, figure 6)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_zoo.registry import OURS, VANILLA, label, mixture_of, variant

from ..results import Cell, DatasetResults
from ..sentences import sentences
from . import style
from .selection import in_points, metrics_of

VARIED = {
    "length": ("max_len", "longest history (items)", "items"),
    "experts": ("num_experts", "experts per branch", "experts"),
}
Lines = dict[str, list[tuple[float, Cell]]]  # what is varied and the cells of each model

DASHES = {OURS: "-", VANILLA: ":"}
SPREAD = 0.012  # of an axis, between the backbones' points, so that error bars stay apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """AUC and gAUC over what is varied, a column for each experiment that was run; None without."""
    columns = {name: _cells(results, name) for name in VARIED if results.experiment(name)}
    cells = [cell for own in columns.values() for cell in own]
    metrics = metrics_of(cells)
    if not metrics:
        return None
    looks = style.backbone_looks(cell.model for cell in cells)
    figure = Figure(figsize=(max(6.5, 1.4 + 3.6 * len(columns)), 5.2))
    panels = figure.subplots(len(metrics), len(columns), squeeze=False, sharex="col", sharey="row")
    highest = []
    for column, (name, own) in zip(panels.T, columns.items(), strict=True):
        lines = _by_model(own, VARIED[name][0])
        for axes, metric in zip(column, metrics, strict=True):
            _lines(axes, lines, metric)
            style.outer_labels(axes, VARIED[name][1], f"test {metric}, points")
        highest += _highest(lines, VARIED[name][2])
    legend = [
        style.legend_entry(label(backbone), color=look.colour, marker=look.marker)
        for backbone, look in looks.items()
    ]
    if any(not mixture_of(cell.model) for cell in cells):
        legend += [
            style.legend_entry(label(mixture), color="0.3", linestyle=dashes)
            for mixture, dashes in DASHES.items()
        ]
    zero = "; 0 experts is the vanilla backbone" if "experts" in columns else ""
    over = style.over_seeds(c.runs for c in cells)
    facts = sentences("scaling", dataset=results.dataset_id, seeds=over, zero=zero)
    title = (
        f"{label(OURS)} has its highest mean AUC at {'; '.join(highest)}" if highest else "Scaling"
    )
    style.finish(figure, title, facts, legend)
    return figure


def _cells(results: DatasetResults, name: str) -> list[Cell]:
    """The cells of an experiment, and the cells of Table 1 that belong to it.

    These are alike but for what is varied, and count with the same seeds.
    """
    cells, key = results.experiment(name), VARIED[name][0]
    known = {(cell.model, cell.varied[key]) for cell in cells}
    for own in results.experiment("table1"):
        value = own.settings.get(key)
        line = [cell for cell in cells if cell.model == own.model]
        seeds = {seed for cell in line for seed in cell.runs}
        runs = {seed: run for seed, run in own.runs.items() if seed in seeds}
        alike = all(cell.settings | {key: value} == own.settings for cell in line)
        if line and runs and alike and (own.model, value) not in known:
            cells = [*cells, replace(own, varied={key: value}, runs=runs)]
    return cells


def _by_model(cells: list[Cell], key: str) -> Lines:
    """The cells of each model in the order of what is varied."""
    lines: Lines = {}
    for cell in sorted(cells, key=lambda cell: cell.varied[key]):
        lines.setdefault(cell.model, []).append((cell.varied[key], cell))
    return lines


def _lines(axes: Axes, lines: Lines, metric: str) -> None:
    values = sorted({value for line in lines.values() for value, _ in line})
    looks = style.backbone_looks(lines)
    for place, (backbone, look) in enumerate(looks.items()):
        shift = (place - (len(looks) - 1) / 2) * SPREAD * (values[-1] - values[0])
        for mixture, dashes in DASHES.items():
            line = lines.get(variant(backbone, mixture), [])
            points = [(value + shift, *in_points(cell, metric)) for value, cell in line]
            axes.errorbar(
                *np.reshape(points, (-1, 3)).T, color=look.colour, marker=look.marker,
                markerfacecolor=None if mixture else "white", linestyle=dashes, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    style.only_ticks(axes, "x", values)


def _highest(lines: Lines, what: str) -> list[str]:
    """Where MoS has its highest mean AUC, by backbone; empty if nothing is varied."""
    places = []
    for backbone in style.backbone_looks(lines):
        line = lines.get(variant(backbone, OURS), [])
        if len(line) > 1:
            value, _ = max(line, key=lambda point: in_points(point[1], "AUC")[0])
            places.append(f"{value} on {backbone}")
    return [f"{', '.join(places)} ({what})"] if places else []
