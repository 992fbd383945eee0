"""Routing over training: load per expert, its entropy, and how far the codes move."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_zoo.registry import backbone_of, label, mixture_of

from ..lineup import fullest_backbone
from ..results import DatasetResults, Run
from ..sentences import sentences
from . import style

Timed = list[tuple[float, dict[str, Any]]]  # epochs since the start of training, and what was found

SHORT = {"backbone": "B", "experts": "E"}  # stages of one epoch have no room for their names


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A column for each branch of each mixture of one backbone; None without a mixture's run."""
    runs = {cell.model: cell.first_run for cell in results.experiment("table1")}
    models = fullest_backbone(model for model, run in runs.items() if _branches(run))
    columns = [(model, branch) for model in models for branch in _branches(runs[model])]
    if not columns:
        return None
    figure = Figure(figsize=(max(7.5, 1.6 + 2.2 * len(columns)), 5.2))
    panels = figure.subplots(
        3, len(columns), squeeze=False, sharex="col", sharey="row", height_ratios=(2, 1, 1)
    )
    for column, (model, branch) in zip(panels.T, columns, strict=True):
        several = len(_branches(runs[model])) > 1
        name = label(mixture_of(model)) + (f", {branch} experts" if several else "")
        column[0].set_title(name, pad=14)
        _column(column, runs[model], branch)
    style.finish(
        figure,
        f"How the experts of {backbone_of(models[0])} share the load as training goes on",
        sentences("routing_history", dataset=results.dataset_id, seed=runs[models[0]]["seed"]),
        panels[0, -1].get_legend_handles_labels()[0][::-1],
    )
    return figure


def _branches(run: Run) -> list[str]:
    return list(dict.fromkeys(b for entry in run["stage_log"] for b in entry.get("routing") or {}))


def _stages(run: Run) -> list[tuple[str, Timed]]:
    """The stages, each with its evaluations; a stage counts epochs from its own start."""
    stages: list[tuple[str, Timed]] = []
    start = 0.0
    for name, entries in groupby(run["stage_log"], key=lambda entry: entry["stage"]):
        stages.append((name, [(start + entry["epoch"], entry) for entry in entries]))
        start = stages[-1][1][-1][0]
    return stages


def _column(panels: Any, run: Run, branch: str) -> None:
    """Load, entropy and movement of the codes of one branch over the epochs."""
    load, entropy, movement = panels
    stages = _stages(run)
    evaluations = [timed for _, of_stage in stages for timed in of_stage]
    reports = [
        (time, entry["routing"][branch])
        for time, entry in evaluations
        if branch in (entry.get("routing") or {})
    ]
    _load(load, reports)
    entropy.plot(*_series(reports, "item_entropy"), color=style.BLUE, marker="o", clip_on=False)
    entropy.set_ylim(0, 1.08)
    times, moved = _series(reports, "code_movement")
    if moved:
        movement.plot(times, moved, color=style.RED, marker="s", clip_on=False)
    else:
        look = {"ha": "center", "color": "0.5", "backgroundcolor": "white"}  # hides stages' lines
        movement.text(0.62, 0.5, "no codes", transform=movement.transAxes, **look)
    _name_stages(load, stages)
    for axes, name in zip(panels, ("load (share)", "entropy", "code\nmovement"), strict=True):
        for _, timed in stages[:-1]:
            axes.axvline(timed[-1][0], color="0.4", linestyle="--", linewidth=0.8)
        axes.set_xlim(0, evaluations[-1][0])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(False)
        style.outer_labels(axes, "epochs", name)


def _series(reports: Timed, key: str) -> tuple[list[float], list[Any]]:
    """Times and values where the value was recorded."""
    known = [(time, report[key]) for time, report in reports if report.get(key) is not None]
    return [time for time, _ in known], [value for _, value in known]


def _load(axes: Axes, reports: Timed) -> None:
    times, shares = _series(reports, "item_share")
    areas = axes.stackplot(times, np.transpose(shares), edgecolor="white", linewidth=0.6)
    for expert, area in enumerate(areas):
        hatch = style.HATCHES[expert % len(style.HATCHES)]
        colour = style.expert_colour(expert)
        area.set(facecolor=colour, hatch=hatch, label=f"expert {expert + 1}")
    axes.set_ylim(0, 1)


def _name_stages(axes: Axes, stages: list[tuple[str, Timed]]) -> None:
    """The names of the stages above a panel."""
    start = 0.0
    look: dict[str, Any] = {"ha": "center", "fontsize": 6.5, "color": "0.35"}
    for name, timed in stages:
        end = timed[-1][0]
        place = (start + end) / 2, 1.02
        axes.text(*place, SHORT.get(name, name), transform=axes.get_xaxis_transform(), **look)
        start = end
