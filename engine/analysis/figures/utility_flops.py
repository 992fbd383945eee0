"""Utility against cost (paper, figure 4): AUC and gAUC over FLOPs per sample, of every variant of every backbone."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from ..results import BACKBONES, VARIANTS, Cell, DatasetResults, split_name
from ..tables.study_tables import table1
from . import style
from .backbone_choice import in_points, metrics_of


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """A point for each model of Table 1, with the deviation over seeds; None below two models."""
    cells = results.experiment("table1")
    metrics = metrics_of(cells)
    if len(cells) < 2 or "AUC" not in metrics:
        return None
    figure = style.new(8.6, 3.7)
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for backbone in BACKBONES:
            own = sorted((c for c in cells if split_name(c.model)[0] == backbone), key=_flops)
            axes.plot(
                [_flops(cell) for cell in own],
                [in_points(cell, metric)[0] for cell in own],
                color=style.BACKBONE_COLOURS[backbone], linestyle=style.BACKBONE_LINES[backbone],
                linewidth=0.9, zorder=1,
            )  # fmt: skip
        for cell in cells:
            backbone, mixture = split_name(cell.model)
            mean, std = in_points(cell, metric)
            axes.errorbar(
                _flops(cell), mean, std,
                color=style.BACKBONE_COLOURS[backbone], marker=style.VARIANT_MARKERS[mixture],
                markersize=9 if mixture == "MoS" else 6, fillstyle="none",  # what is behind shows
                markeredgewidth=1.3, elinewidth=0.8, capsize=2, capthick=0.8, zorder=3 if mixture == "MoS" else 2,
            )  # fmt: skip
        axes.set(xscale="log", xlabel="FLOPs per sample (forward)", ylabel=f"test {metric}, points")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 30 * low else (1, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    parts = {split_name(cell.model) for cell in cells}
    figure.legend(
        handles=[
            *style.backbone_handles([b for b in BACKBONES if b in {p[0] for p in parts}]),
            *style.variant_handles([v for v in VARIANTS if v in {p[1] for p in parts}]),
        ],
        loc="outside right center",
    )
    style.heading(
        figure,
        _title(results),
        f"{results.dataset_id}, test split, {style.over_seeds(len(cell.runs) for cell in cells)}; "
        "lines join the variants of a backbone; upper left is better; routers may differ in how many "
        "experts they read (k in the cost table)",
    )
    return figure


def _flops(cell: Cell) -> float:
    return style.mean_and_std(run["flops_per_sample"] for run in cell.runs.values())[0]


def _title(results: DatasetResults) -> str:
    """On how many of the backbones that have MoS Table 1 marks it as the best by AUC."""
    found = {r["model"]: r["mark"] for r in table1([results]).records if r["metric"] == "AUC"}
    marks = [mark for model, mark in found.items() if split_name(model)[1] == "MoS"]
    if not marks:
        return "Utility and cost of each model"
    return (
        f"MoS is significantly the best in AUC on {marks.count('best')} of {len(marks)} "
        f"backbone{'s' * (len(marks) > 1)}"
    )
