"""Routing over training: load per expert, its entropy, and how far the codes move."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..results import MIXTURES, DatasetResults, Run, label, variant
from . import style
from .backbone_choice import fullest_backbone

Point = tuple[float, dict[str, Any]]


SHORT = {"backbone": "B", "experts": "E"}  # stages of one epoch have no room for their names


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A column for each branch of each mixture of one backbone; None without a mixture's run."""
    cells = {cell.model: cell for cell in results.experiment("table1")}
    backbone = fullest_backbone(
        model for model, cell in cells.items() if _branches(_first(cell.runs))
    )
    if backbone is None:
        return None
    runs = {
        m: _first(cells[variant(backbone, m)].runs)
        for m in MIXTURES
        if variant(backbone, m) in cells
    }
    columns = [(mixture, run, branch) for mixture, run in runs.items() for branch in _branches(run)]
    figure = style.new(max(7.5, 1.6 + 2.2 * len(columns)), 5.2)
    panels = figure.subplots(
        3, len(columns), squeeze=False, sharex="col", sharey="row", height_ratios=(2, 1, 1)
    )
    for column, (mixture, run, branch) in enumerate(columns):
        points = _points(run, branch)
        load, entropy, movement = panels[:, column]
        name = label(mixture) + (f", {branch} experts" if mixture == "MoS" else "")
        load.set_title(name, pad=14)
        _load(load, points)
        entropy.plot(*_series(points, "item_entropy"), color=style.BLUE, marker="o", clip_on=False)
        entropy.set_ylim(0, 1.08)
        x, moved = _series(points, "code_movement")
        if x:
            movement.plot(x, moved, color=style.RED, marker="s", clip_on=False)
        else:
            why = "no codes" if "code_movement" in points[-1][1] else "not recorded"
            movement.text(0.62, 0.5, why, transform=movement.transAxes, ha="center", color="0.5")
        for axes in panels[:, column]:
            _stages(axes, run, named=axes is load)
            axes.set_xlim(0, _times(run)[-1])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(False)
            axes.set_xlabel("epochs")
            axes.set_ylabel({load: "load (share)", entropy: "entropy"}.get(axes, "code\nmovement"))
            axes.label_outer()
    handles, names = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside right center")
    style.heading(
        figure,
        f"How the experts of {backbone} share the load as training goes on",
        f"{results.dataset_id}, validation split after each evaluation, one run each "
        f"(seed {next(iter(runs.values()))['seed']}); entropy 1: an even load, 0: a single expert; "
        "code movement: mean cosine distance since the evaluation before; B, E: warm-up of backbone and experts",
    )
    return figure


def _first(runs: dict[int, Run]) -> Run:
    """The run of the lowest seed."""
    return runs[min(runs)]


def _branches(run: Run) -> list[str]:
    return list(dict.fromkeys(b for entry in run["stage_log"] for b in entry.get("routing") or {}))


def _times(run: Run) -> list[float]:
    """Epochs from the start of training at each evaluation; a stage counts its own."""
    times, start = [], 0.0
    for before, entry in pairwise([None, *run["stage_log"]]):
        if before is not None and before["stage"] != entry["stage"]:
            start = times[-1]
        times.append(start + entry["epoch"])
    return times


def _points(run: Run, branch: str) -> list[Point]:
    log = zip(_times(run), run["stage_log"], strict=True)
    return [
        (t, entry["routing"][branch]) for t, entry in log if branch in (entry.get("routing") or {})
    ]


def _series(points: list[Point], key: str) -> tuple[list[float], list[float]]:
    """Times and values where the value was recorded."""
    known = [(t, report[key]) for t, report in points if report.get(key) is not None]
    return [t for t, _ in known], [value for _, value in known]


def _load(axes: Axes, points: list[Point]) -> None:
    share_ET = np.array([report["item_share"] for _, report in points]).T
    areas = axes.stackplot(
        [t for t, _ in points],
        share_ET,
        colors=[style.EXPERT_COLOURS[e % len(style.EXPERT_COLOURS)] for e in range(len(share_ET))],
        labels=[f"expert {e + 1}" for e in range(len(share_ET))],
        edgecolor="white",
        linewidth=0.6,
    )
    for expert, area in enumerate(areas):
        area.set_hatch(style.HATCHES[expert % len(style.HATCHES)])
    axes.set_ylim(0, 1)


def _stages(axes: Axes, run: Run, named: bool) -> None:
    """A line where a stage ends, and the names of the stages above."""
    times, start = _times(run), 0.0
    for i, entry in enumerate(run["stage_log"]):
        last = i + 1 == len(times)
        if last or run["stage_log"][i + 1]["stage"] != entry["stage"]:
            if not last:
                axes.axvline(times[i], color="0.4", linestyle="--", linewidth=0.8)
            if named:
                axes.annotate(
                    SHORT.get(entry["stage"], entry["stage"]), ((start + times[i]) / 2, 1), xycoords=("data", "axes fraction"),
                    xytext=(0, 2), textcoords="offset points", ha="center", fontsize=6.5, color="0.35",
                )  # fmt: skip
            start = times[i]
