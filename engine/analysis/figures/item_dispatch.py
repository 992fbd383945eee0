"""To which experts one popular and one rare item go (paper, figures 5 and 9), in training and in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..results import MIXTURES, DatasetResults, label, variant
from . import style
from .backbone_choice import fullest_backbone, probes_of

ROWS = {"most": "most popular item", "least": "least popular item"}
MODES = {"train": (style.ORANGE, "///"), "eval": (style.BLUE, "")}
WIDTH = 0.38  # of a bar; experts are 1 apart


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A row for each item, a column for each router of one backbone; None without probes of a mixture."""
    probes = {name: group[0] for name, group in probes_of(results).items()}
    with_routers = {name: branch for name, probe in probes.items() if (branch := _branch(probe))}
    backbone = fullest_backbone(with_routers)
    if backbone is None:
        return None
    routers = {
        m: with_routers[variant(backbone, m)]
        for m in MIXTURES
        if variant(backbone, m) in with_routers
    }
    figure = style.new(max(7.5, 1.8 + 2.1 * len(routers)), 4.4)
    panels = figure.subplots(2, len(routers), squeeze=False, sharex=True, sharey=True)
    for column, (mixture, branch) in enumerate(routers.items()):
        consistency = branch["eval"]["consistency"]
        dropped = [branch[mode]["unrouted"] for mode in ("eval", "train")]
        shares = " / ".join(f"{share:.0%}" for share in dropped)
        panels[0, column].set_title(
            f"{label(mixture)}\nconsistency {consistency:.2f}"
            + (f"\ndropped {shares}" if any(dropped) else "")
        )
        for row, end in enumerate(ROWS):
            axes = panels[row, column]
            _bars(axes, branch, end)
            axes.set_xlabel("expert")
            axes.set_ylabel(f"{ROWS[end]}\nshare of routed")
            axes.label_outer()
    figure.legend(
        handles=[
            *(
                Patch(
                    facecolor=c,
                    hatch=h,
                    edgecolor="white",
                    label={"train": "training mode", "eval": "evaluation"}[m],
                )
                for m, (c, h) in MODES.items()
            ),
            Line2D(
                [],
                [],
                color="black",
                marker="_",
                markersize=9,
                linestyle="",
                label="all experts chosen",
            ),
        ],
        loc="outside right center",
    )
    probe = probes[variant(backbone, next(iter(routers)))]
    style.heading(figure, _title(routers), _facts(backbone, probe, next(iter(routers.values()))))
    return figure


def _branch(probe: dict[str, Any]) -> dict[str, Any] | None:
    """How the experts that get items dispatch them; None if no item appears often enough."""
    for branch in probe["dispatch"].values():
        if branch["most"] is not None:
            return branch
    return None


def _bars(axes: Axes, branch: dict[str, Any], end: str) -> None:
    for side, (mode, (colour, hatch)) in zip((-0.5, 0.5), MODES.items(), strict=True):
        best_E, sent_E = branch[mode][end], branch[mode][f"{end}_sent"]
        place_E = np.arange(1, len(best_E) + 1) + side * WIDTH
        axes.bar(
            place_E, best_E, WIDTH, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5
        )
        sent = np.flatnonzero(sent_E)
        axes.plot(
            place_E[sent],
            np.array(sent_E)[sent],
            color="black",
            marker="_",
            markersize=7,
            linestyle="",
            zorder=3,
        )
    style.only_ticks(axes, "x", range(1, len(best_E) + 1))
    axes.set_ylim(0, 1.05)


def _title(routers: dict[str, dict[str, Any]]) -> str:
    """Which routers send the popular item to one best expert throughout, in evaluation."""
    fixed = [label(m) for m, branch in routers.items() if max(branch["eval"]["most"]) >= 0.995]
    if not fixed:
        return "No router sends the most popular item to one expert throughout"
    if len(fixed) == len(routers) > 1:
        return "In evaluation every router has one best expert for the most popular item"
    verb = "sends" if len(fixed) == 1 else "send"
    return f"{', '.join(fixed)} {verb} the most popular item to one best expert throughout"


def _facts(backbone: str, probe: dict[str, Any], branch: dict[str, Any]) -> str:
    about = probe["about"]
    seen = {end: branch[end]["appearances"] for end in ROWS}
    return (
        f"{backbone} on {about['dataset_id']}, {about['split']} split, {about['users']:,} users, seed "
        f"{about['seed']}; the items appear {seen['most']:,} and {seen['least']:,} times.\n"
        "Bars: the best expert of each appearance; dashes: all experts that get it, as shares of these. "
        "Consistency: mean share of an item's usual expert in evaluation; 1 by construction where a router looks "
        "at the item alone (DSelect-k, MoS, GShard's first choice). Dropped: appearances that no expert takes, "
        "in evaluation and in training; the bars leave them out."
    )
