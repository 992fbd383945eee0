"""The figures of routing: where one popular and one rare item go (paper, figures 5 and 9), and routing over training."""

from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_zoo.registry import backbone_of, label, mixture_of

from ..results import DatasetResults, Run
from ..wording import fullest_backbone
from . import style
from .selection import probes_of

ROWS = {"most": "most popular item", "least": "least popular item"}
MODES = {"train": ("training mode", style.ORANGE, "///"), "eval": ("evaluation", style.BLUE, "")}
DASH: dict[str, Any] = {"color": "black", "marker": "_", "linestyle": ""}
WIDTH = 0.38  # of a bar; experts are 1 apart
Timed = list[tuple[float, dict[str, Any]]]  # epochs since the start of training, and what was found
SHORT = {"backbone": "B", "experts": "E"}  # stages of one epoch have no room for their names


@style.styled
def dispatch(results: DatasetResults) -> Figure | None:
    """A row for each item, a column for each router of one backbone; None without probes of a mixture."""
    probes = {name: group[0] for name, group in probes_of(results).items()}
    # Of a branch where no item appears often enough there is nothing to show.
    branches = {n: b for n, p in probes.items() for b in p["dispatch"].values() if b["most"]}
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


@style.styled
def routing_history(results: DatasetResults) -> Figure | None:
    """A column for each branch of each mixture of one backbone; None without a mixture's run."""
    runs = {cell.model: cell.first_run for cell in results.experiment("table1")}
    # Only the warm-up of the backbone, which comes first, is without routing.
    branches = {model: list(run["stage_log"][-1]["routing"]) for model, run in runs.items()}
    models = fullest_backbone(model for model in runs if branches[model])
    columns = [(model, branch) for model in models for branch in branches[model]]
    if not columns:
        return None
    size, rows = (max(7.5, 1.6 + 2.2 * len(columns)), 5.2), {"height_ratios": (2, 1, 1)}
    figure, panels = style.panels(3, len(columns), size, sharex="col", sharey="row", **rows)
    for column, (model, branch) in zip(panels.T, columns, strict=True):
        which = f", {branch} experts" if len(branches[model]) > 1 else ""
        column[0].set_title(label(mixture_of(model)) + which, pad=14)
        _column(column, runs[model], branch)
    facts = {"dataset": results.title, "seed": runs[models[0]]["seed"]}
    title = f"How the experts of {backbone_of(models[0])} share the load as training goes on"
    legend = panels[0, -1].get_legend_handles_labels()[0][::-1]
    return style.finish(figure, title, "routing_history", legend=legend, **facts)


def _column(panels: Any, run: Run, branch: str) -> None:
    """Load, entropy and movement of the codes of one branch over the epochs."""
    load, entropy, movement = panels
    reports: Timed = []
    end = 0.0
    look: dict[str, Any] = {"ha": "center", "fontsize": 6.5, "color": "0.35"}
    look["transform"] = load.get_xaxis_transform()
    for stage, entries in groupby(run["stage_log"], key=lambda entry: entry["stage"]):
        start = end  # each stage counts its epochs from its own start
        for entry in entries:
            end = start + entry["epoch"]
            reports += [(end, entry["routing"][branch])] if entry["routing"] else []
        load.text((start + end) / 2, 1.02, SHORT.get(stage, stage), **look)
        for axes in panels:
            axes.axvline(start, color="0.4", linestyle="--", linewidth=0.8)
    _load(load, reports)
    entropy.plot(*_series(reports, "item_entropy"), color=style.BLUE, marker="o", clip_on=False)
    entropy.set_ylim(0, 1.08)
    times, moved = _series(reports, "code_movement")
    if moved:
        movement.plot(times, moved, color=style.RED, marker="s", clip_on=False)
    else:
        place = {"ha": "center", "transform": movement.transAxes, "backgroundcolor": "white"}
        movement.text(0.62, 0.5, "no codes", color="0.5", **place)
    for axes, name in zip(panels, ("load (share)", "entropy", "code\nmovement"), strict=True):
        axes.set_xlim(0, end)
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
        area.set(facecolor=style.expert_colour(expert), hatch=hatch, label=f"expert {expert + 1}")
    axes.set_ylim(0, 1)
