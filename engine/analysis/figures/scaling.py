"""Scaling with the history's length and with the number of experts (paper, figure 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..results import BACKBONES, Cell, DatasetResults, split_name
from . import style
from .backbone_choice import in_points, metrics_of

VARIED = {
    "length": ("max_len", "longest history (items)"),
    "experts": ("num_experts", "experts per branch"),
}
SPREAD = 0.012  # of an axis, between the backbones' points, so that error bars stay apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """AUC and gAUC over what is varied, a column for each experiment that was run; None without."""
    columns = {name: _cells(results, name) for name in VARIED if results.experiment(name)}
    if not columns:
        return None
    metrics = metrics_of(cell for cells in columns.values() for cell in cells)
    if "AUC" not in metrics:
        return None
    figure = style.new(max(6.5, 1.4 + 3.6 * len(columns)), 5.2)
    panels = figure.subplots(len(metrics), len(columns), squeeze=False, sharex="col", sharey="row")
    for column, (name, cells) in enumerate(columns.items()):
        for row, metric in enumerate(metrics):
            axes = panels[row, column]
            _lines(axes, cells, VARIED[name][0], metric)
            axes.set_ylabel(f"test {metric}, points")
            axes.set_xlabel(VARIED[name][1])
            axes.label_outer()
    cells = [cell for group in columns.values() for cell in group]
    shown = {split_name(cell.model)[0] for cell in cells}
    plain = any(not split_name(cell.model)[1] for cell in cells)
    figure.legend(
        handles=[
            *(
                Line2D(
                    [],
                    [],
                    color=style.BACKBONE_COLOURS[b],
                    marker=style.BACKBONE_MARKERS[b],
                    label=b,
                )
                for b in BACKBONES
                if b in shown
            ),
            *(_variant_handles() if plain else []),
        ],
        loc="outside right center",
    )
    spread = style.over_seeds(len(cell.runs) for cell in cells)
    facts = (
        f"{results.dataset_id}, test split, {spread}; the highest is not tested against the others"
    )
    if "experts" in columns:
        facts += "; 0 experts is the vanilla backbone"
    style.heading(figure, _title(columns), facts)
    return figure


def _variant_handles() -> list[Line2D]:
    styles = {"MoS": "-", "Vanilla": ":"}
    return [Line2D([], [], color="0.3", linestyle=s, label=name) for name, s in styles.items()]


def _cells(results: DatasetResults, name: str) -> list[Cell]:
    """The cells of an experiment, and those of Table 1 that belong to it: alike but for what is varied,
    over the same seeds."""
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


def _lines(axes: Axes, cells: list[Cell], key: str, metric: str) -> None:
    values = sorted({cell.varied[key] for cell in cells})
    span = values[-1] - values[0]
    shown = [b for b in BACKBONES if any(split_name(cell.model)[0] == b for cell in cells)]
    for place, backbone in enumerate(shown):
        for mixture, dashes in (("", ":"), ("MoS", "-")):
            line = _line(cells, backbone, mixture, key)
            if not line:
                continue
            summary = [in_points(cell, metric) for cell in line]
            axes.errorbar(
                [cell.varied[key] + (place - (len(shown) - 1) / 2) * SPREAD * span for cell in line],
                [mean for mean, _ in summary],
                [std for _, std in summary],
                color=style.BACKBONE_COLOURS[backbone], marker=style.BACKBONE_MARKERS[backbone],
                markerfacecolor=None if mixture else "white",
                linestyle=dashes, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    style.only_ticks(axes, "x", values)


def _line(cells: Iterable[Cell], backbone: str, mixture: str, key: str) -> list[Cell]:
    found = [cell for cell in cells if split_name(cell.model) == (backbone, mixture)]
    return sorted(found, key=lambda cell: cell.varied[key])


def _title(columns: dict[str, list[Cell]]) -> str:
    """For each experiment, where MoS has its highest mean AUC, by backbone."""
    parts = []
    for name, cells in columns.items():
        key, what = VARIED[name][0], {"length": "items", "experts": "experts"}[name]
        lines = {backbone: _line(cells, backbone, "MoS", key) for backbone in BACKBONES}
        best = {
            backbone: max(line, key=lambda cell: in_points(cell, "AUC")[0])
            for backbone, line in lines.items()
            if len(line) > 1
        }
        if best:
            places = (f"{cell.varied[key]} on {backbone}" for backbone, cell in best.items())
            parts.append(f"{', '.join(places)} ({what})")
    return f"MoS has its highest mean AUC at {'; '.join(parts)}" if parts else "Scaling"
