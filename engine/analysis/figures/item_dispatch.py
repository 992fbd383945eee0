"""To which experts one popular and one rare item go (paper, figures 5 and 9), in training and in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from model_zoo.registry import backbone_of, label, mixture_of

from ..lineup import fullest_backbone
from ..results import DatasetResults
from . import style
from .selection import probes_of

ROWS = {"most": "most popular item", "least": "least popular item"}
MODES = {"train": ("training mode", style.ORANGE, "///"), "eval": ("evaluation", style.BLUE, "")}
DASH: dict[str, Any] = {"color": "black", "marker": "_", "linestyle": ""}
WIDTH = 0.38  # of a bar; experts are 1 apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A row for each item, a column for each router of one backbone; None without probes of a mixture."""
    probes = {name: group[0] for name, group in probes_of(results).items()}
    found = {name: branch for name, probe in probes.items() if (branch := _branch(probe))}
    routers = {model: found[model] for model in fullest_backbone(found)}
    if not routers:
        return None
    figure = style.new(max(7.5, 1.8 + 2.1 * len(routers)), 4.4)
    panels = figure.subplots(2, len(routers), squeeze=False, sharex=True, sharey=True)
    for column, (model, branch) in enumerate(routers.items()):
        panels[0, column].set_title(_column_title(model, branch))
        for axes, end in zip(panels[:, column], ROWS, strict=True):
            _bars(axes, branch, end)
            style.outer_labels(axes, "expert", f"{ROWS[end]}\nshare of routed")
    bars = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name)
        for name, colour, hatch in MODES.values()
    ]
    dashes = style.legend_entry("all experts chosen", markersize=9, **DASH)
    figure.legend(handles=[*bars, dashes], loc="outside right center")
    style.heading(figure, _title(routers), _facts(probes[next(iter(routers))], routers))
    return figure


def _branch(probe: dict[str, Any]) -> dict[str, Any] | None:
    """How the experts that get items dispatch them; None if no item appears often enough."""
    return next((b for b in probe["dispatch"].values() if b["most"] is not None), None)


def _column_title(model: str, branch: dict[str, Any]) -> str:
    title = f"{label(mixture_of(model))}\nconsistency {branch['eval']['consistency']:.2f}"
    dropped = [branch[mode]["unrouted"] for mode in ("eval", "train")]
    shares = " / ".join(f"{share:.0%}" for share in dropped)
    return f"{title}\ndropped {shares}" if any(dropped) else title


def _bars(axes: Axes, branch: dict[str, Any], end: str) -> None:
    for side, (mode, (_, colour, hatch)) in zip((-0.5, 0.5), MODES.items(), strict=True):
        best_E, sent_E = branch[mode][end], np.array(branch[mode][f"{end}_sent"])
        place_E = np.arange(1, len(best_E) + 1) + side * WIDTH
        axes.bar(
            place_E, best_E, WIDTH, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5
        )
        sent = np.flatnonzero(sent_E)
        axes.plot(place_E[sent], sent_E[sent], markersize=7, zorder=3, **DASH)
    style.only_ticks(axes, "x", range(1, len(best_E) + 1))
    axes.set_ylim(0, 1.05)


def _title(routers: dict[str, dict[str, Any]]) -> str:
    """Which routers send the popular item to one best expert throughout, in evaluation."""
    fixed = [
        label(mixture_of(model))
        for model, branch in routers.items()
        if max(branch["eval"]["most"]) >= 0.995
    ]
    if not fixed:
        return "No router sends the most popular item to one expert throughout"
    if len(fixed) == len(routers) > 1:
        return "In evaluation every router has one best expert for the most popular item"
    verb = "sends" if len(fixed) == 1 else "send"
    return f"{', '.join(fixed)} {verb} the most popular item to one best expert throughout"


def _facts(probe: dict[str, Any], routers: dict[str, dict[str, Any]]) -> str:
    about = probe["about"]
    model, branch = next(iter(routers.items()))
    seen = {end: branch[end]["appearances"] for end in ROWS}
    return (
        f"{backbone_of(model)} on {about['dataset_id']}, {about['split']} split, {about['users']:,} users, "
        f"seed {about['seed']}; the items appear {seen['most']:,} and {seen['least']:,} times.\n"
        "Bars: the best expert of each appearance; dashes: all experts that get it, as shares of these. "
        "Consistency: mean share of an item's usual expert in evaluation; 1 by construction where a router looks "
        "at the item alone (DSelect-k, MoS, GShard's first choice). Dropped: appearances that no expert takes, "
        "in evaluation and in training; the bars leave them out."
    )
