"""Scaling with the history's length and with the number of experts (paper, figure 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

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
DASHES = {VANILLA: ":", OURS: "-"}
SPREAD = 0.012  # of an axis, between the backbones' points, so that error bars stay apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """AUC and gAUC over what is varied, a column for each experiment that was run; None without."""
    columns = {name: _cells(results, name) for name in VARIED if results.experiment(name)}
    cells = [cell for group in columns.values() for cell in group]
    metrics = metrics_of(cells)
    if not columns or "AUC" not in metrics:
        return None
    looks = style.backbone_looks(cell.model for cell in cells)
    figure = style.new(max(6.5, 1.4 + 3.6 * len(columns)), 5.2)
    panels = figure.subplots(len(metrics), len(columns), squeeze=False, sharex="col", sharey="row")
    for column, (name, own) in enumerate(columns.items()):
        for axes, metric in zip(panels[:, column], metrics, strict=True):
            _lines(axes, own, VARIED[name][0], metric)
            style.outer_labels(axes, VARIED[name][1], f"test {metric}, points")
    handles = [
        style.legend_entry(label(backbone), color=look.colour, marker=look.marker)
        for backbone, look in looks.items()
    ]
    if any(not mixture_of(cell.model) for cell in cells):
        handles += [
            style.legend_entry(label(mixture), color="0.3", linestyle=DASHES[mixture])
            for mixture in (OURS, VANILLA)
        ]
    figure.legend(handles=handles, loc="outside right center")
    spread = style.over_seeds(len(cell.runs) for cell in cells)
    facts = [f"{results.dataset_id}, test split, {spread}"]
    facts += ["the highest is not tested against the others"]
    facts += ["0 experts is the vanilla backbone"] if "experts" in columns else []
    style.heading(figure, _title(columns), "; ".join(facts))
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


def _lines(axes: Axes, cells: list[Cell], key: str, metric: str) -> None:
    values = sorted({cell.varied[key] for cell in cells})
    looks = style.backbone_looks(cell.model for cell in cells)
    for place, (backbone, look) in enumerate(looks.items()):
        shift = (place - (len(looks) - 1) / 2) * SPREAD * (values[-1] - values[0])
        for mixture, dashes in DASHES.items():
            line = _line(cells, variant(backbone, mixture), key)
            if not line:
                continue
            means, stds = zip(*(in_points(cell, metric) for cell in line), strict=True)
            axes.errorbar(
                [cell.varied[key] + shift for cell in line], means, stds,
                color=look.colour, marker=look.marker, markerfacecolor=None if mixture else "white",
                linestyle=dashes, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    style.only_ticks(axes, "x", values)


def _line(cells: Iterable[Cell], model: str, key: str) -> list[Cell]:
    found = [cell for cell in cells if cell.model == model]
    return sorted(found, key=lambda cell: cell.varied[key])


def _title(columns: dict[str, list[Cell]]) -> str:
    """For each experiment, where MoS has its highest mean AUC, by backbone."""
    parts = []
    for name, cells in columns.items():
        key, _, what = VARIED[name]
        places = []
        for backbone in style.backbone_looks(cell.model for cell in cells):
            line = _line(cells, variant(backbone, OURS), key)
            if len(line) > 1:
                best = max(line, key=lambda cell: in_points(cell, "AUC")[0])
                places.append(f"{best.varied[key]} on {backbone}")
        if places:
            parts.append(f"{', '.join(places)} ({what})")
    return f"MoS has its highest mean AUC at {'; '.join(parts)}" if parts else "Scaling"
