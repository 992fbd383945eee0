"""To which experts one popular and one rare item go (paper, figures 5 and 9), in training and in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    # Of a branch where no item appears often enough there is nothing to show.
    branches = {
        name: branch
        for name, probe in probes.items()
        for branch in probe["dispatch"].values()
        if branch["most"]
    }
    models = fullest_backbone(branches)
    if not models:
        return None
    size = (max(7.5, 1.8 + 2.1 * len(models)), 4.4)
    figure, panels = style.panels(2, len(models), size, sharex=True, sharey=True)
    fixed = []  # routers with one best expert for the popular item
    for column, model in zip(panels.T, models, strict=True):
        router, branch = label(mixture_of(model)), branches[model]
        column[0].set_title(f"{router}\n{_in_numbers(branch)}")
        for axes, end in zip(column, ROWS, strict=True):
            _bars(axes, branch, end)
            style.outer_labels(axes, "expert", f"{ROWS[end]}\nshare of routed")
        fixed += [router] if max(branch["eval"]["most"]) >= 0.995 else []
    seen = {end: branches[models[0]][end]["appearances"] for end in ROWS}
    about = probes[models[0]]["about"] | {"backbone": backbone_of(models[0])} | seen
    one = "One best expert throughout for the most popular item"
    legend = panels[0, 0].get_legend_handles_labels()[0]
    title = f"{one}: {', '.join(fixed) or 'no router'}"
    return style.finish(figure, title, "dispatch", legend=legend, **about)


def _in_numbers(branch: dict[str, Any]) -> str:
    """The consistency, and the shares of appearances that are dropped if there are any."""
    text = f"consistency {branch['eval']['consistency']:.2f}"
    dropped = [branch[mode]["unrouted"] for mode in ("eval", "train")]
    shares = " / ".join(f"{share:.0%}" for share in dropped)
    return f"{text}\ndropped {shares}" if any(dropped) else text


def _bars(axes: Axes, branch: dict[str, Any], end: str) -> None:
    for side, (mode, (name, colour, hatch)) in zip((-0.5, 0.5), MODES.items(), strict=True):
        best_E, sent_E = branch[mode][end], np.array(branch[mode][f"{end}_sent"])
        place_E = np.arange(1, len(best_E) + 1) + side * WIDTH
        axes.bar(
            place_E, best_E, WIDTH, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
            label=name,
        )  # fmt: skip
        sent = np.flatnonzero(sent_E)
        (dashes,) = axes.plot(place_E[sent], sent_E[sent], markersize=7, zorder=3, **DASH)
    dashes.set_label("all experts chosen")
    style.only_ticks(axes, "x", range(1, len(best_E) + 1))
    axes.set_ylim(0, 1.05)
