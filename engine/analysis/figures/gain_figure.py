"""What mixtures gain over what a data set tells before training: one figure over all data sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from model_zoo.registry import CONTROLS, OURS, VANILLA, backbone_of, label, variant

from ...baseline.record import worth_of_theme
from ..results import Cell, DatasetResults
from ..tables.comparison import Comparison, paired
from . import style

OVER = (VANILLA, *CONTROLS)  # what MoS is compared with, by row
TOLD = {  # what is known before training, by column
    "kappa": "kappa: how far users stay with a theme",
    "worth": "worth of the running theme to counts, points of AUC",
}
TICKS = (-20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20)  # of points of AUC


@dataclass(frozen=True)
class Point:
    """The gain of MoS on one backbone and data set, in points of test AUC.

    Attributes:
        dataset_id: name of the data set.
        backbone: name of the backbone.
        over: the mixture that it is compared with.
        gain: paired by seed.
        kappa, worth: the keys of ``TOLD``.
    """

    dataset_id: str
    backbone: str
    over: str
    gain: Comparison
    kappa: float
    worth: float


@style.styled
def gains(results: list[DatasetResults]) -> Figure | None:
    """The gain of MoS in Table 1 over kappa, and over what trees gain from the running theme.

    A point is a backbone on a data set whose counting baseline knows themes. None unless two data sets
    have points.
    """
    points = [point for data in results for point in _points(data)]
    if len({point.dataset_id for point in points}) < 2:
        return None
    rows = [mixture for mixture in OVER if any(point.over == mixture for point in points)]
    figure, panels = style.panels(
        len(rows), len(TOLD), (8.6, 0.8 + 2.9 * len(rows)), sharex="col", sharey="row"
    )
    for line, mixture in zip(panels, rows, strict=True):
        for axes, told in zip(line, TOLD, strict=True):
            _draw(axes, [point for point in points if point.over == mixture], told)
            style.outer_labels(axes, TOLD[told], f"gain of {label(OURS)} over {label(mixture)}")
    looks = style.backbone_looks(point.backbone for point in points).items()
    legend = [
        style.legend_entry(label(name), color=look.colour, marker=look.marker, linestyle="")
        for name, look in looks
    ]
    title = f"What {label(OURS)} gains, and what the data tell before training"
    seeds = style.seeds(range(point.gain.pairs) for point in points)
    return style.finish(figure, title, "gains", legend=legend, seeds=seeds)


def _points(data: DatasetResults) -> Iterator[Point]:
    cells = {cell.model: cell for cell in data.experiment("table1")}
    for backbone in dict.fromkeys(map(backbone_of, cells)):
        ours = cells.get(variant(backbone, OURS))
        entry = data.counting.get(ours.settings["max_len"]) if ours else None
        worth = worth_of_theme(entry) if entry else None
        if ours is None or entry is None or worth is None:
            continue
        for mixture in OVER:
            other = cells.get(variant(backbone, mixture))
            gain = paired(_auc(ours), _auc(other)) if other else None
            if gain:
                kappa = entry["theme"]["kappa"]
                yield Point(data.dataset_id, backbone, mixture, gain, kappa, 100 * worth)


def _auc(cell: Cell) -> dict[int, float]:
    return {seed: 100 * value for seed, value in cell.values("AUC").items()}


def _draw(axes: Axes, points: list[Point], told: str) -> None:
    looks = style.backbone_looks(point.backbone for point in points)
    axes.axhline(0, color=style.NULL, linewidth=0.8, zorder=1)
    for point in points:
        x, look, (y, low, high, *_) = getattr(point, told), looks[point.backbone], point.gain
        ends = None if low is None or high is None else [(y - low,), (high - y,)]
        axes.errorbar(
            x, y, yerr=ends, color=look.colour, marker=look.marker, markersize=5, fillstyle="none", elinewidth=0.8,
            capsize=2, zorder=2,
        )  # fmt: skip
    tops: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: point.gain.gain):
        tops[point.dataset_id] = point
    by_place = sorted(tops.items(), key=lambda item: getattr(item[1], told))
    for number, (name, top) in enumerate(by_place):  # names of neighbours stand above each other
        place = getattr(top, told), top.gain.gain
        last = number == len(by_place) - 1
        axes.annotate(
            name, place, (-4 if last else 4, 4 + 8 * (number % 3)), textcoords="offset points",
            ha="right" if last else "left", fontsize=7,
        )  # fmt: skip
    _in_points("y", axes)
    if told == "worth":
        _in_points("x", axes)


def _in_points(name: Literal["x", "y"], axes: Axes) -> None:
    """Make an axis fit for points of AUC, from a hundredth to twenty."""
    scale = axes.set_yscale if name == "y" else axes.set_xscale
    scale("symlog", linthresh=1)
    axis: Axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
