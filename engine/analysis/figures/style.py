"""How all figures look, and how they are written: the same results give the same bytes.

Okabe and Ito's colours can be told apart by the colour-blind; markers, hatches and line styles say the
same again, for grey print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...common.errors import UserError
from ..results import BACKBONES, VARIANTS, label
from ..tables.significance import mean_std

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "hatch.linewidth": 0.5,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.06,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text: small files, and words that can be searched
    "svg.hashsalt": "figures",  # else the ids of elements are random
}
styled = rc_context(RC)
"""Decorator of the functions that draw."""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
BACKBONE_COLOURS = dict(zip(BACKBONES, (BLUE, ORANGE, GREEN, PURPLE), strict=True))
BACKBONE_MARKERS = dict(zip(BACKBONES, "os^D", strict=True))
BACKBONE_LINES = dict(zip(BACKBONES, ("-", "--", ":", "-."), strict=True))
VARIANT_MARKERS = dict(zip(VARIANTS, "os^DX", strict=True))
EXPERT_COLOURS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, RED, "0.6")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "+++")
TITLE_LETTERS, FACT_LETTERS = 8.5, 14.5  # that fit into an inch
MEASURED, NULL = BLUE, "0.45"  # what was found, and what chance gives


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def heading(figure: Figure, title: str, facts: str) -> None:
    """What is seen, above; on what it was measured, below; both broken into lines that fit."""
    width = figure.get_figwidth()
    figure.suptitle(_lines(title, int(TITLE_LETTERS * width)))
    figure.supxlabel(_lines(facts, int(FACT_LETTERS * width)), fontsize=7.5, color="0.35")


def _lines(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.png`` (150 dpi); returns their paths.

    Raises:
        UserError: they cannot be written.
    """
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context(RC):
            figure.savefig(paths[0], metadata={"Date": None})
            figure.savefig(paths[1])
    except OSError as error:
        raise UserError(f"{folder}: a figure cannot be written ({error.strerror})") from None
    return paths


def mean_and_std(values: Iterable[float]) -> tuple[float, float]:
    """Over seeds; the deviation of one value is 0."""
    mean, std = mean_std(values)
    return mean, std or 0.0


def seeds(numbers: Iterable[int]) -> str:
    """``5 seeds``, or ``3 to 5 seeds``, from the numbers of seeds behind each point."""
    counts = sorted(set(numbers))
    if counts == [1]:
        return "one seed"
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) + " seeds"


def over_seeds(numbers: Iterable[int]) -> str:
    """What points and error bars are."""
    text = seeds(numbers)
    return text if text == "one seed" else f"mean and standard deviation over {text}"


def variant_handles(variants: Iterable[str]) -> list[Line2D]:
    """Legend entries of hollow markers without a colour."""
    look = {"color": "0.3", "linestyle": "", "fillstyle": "none", "markeredgewidth": 1.3}
    return [Line2D([], [], marker=VARIANT_MARKERS[v], label=label(v), **look) for v in variants]


def backbone_handles(backbones: Iterable[str]) -> list[Line2D]:
    """Legend entries of lines."""
    return [
        Line2D([], [], color=BACKBONE_COLOURS[b], linestyle=BACKBONE_LINES[b], label=b)
        for b in backbones
    ]


def only_ticks(axes: Axes, axis: str, ticks: Iterable[float], labels: Iterable[str] = ()) -> None:
    """Ticks at these places and no others, without grid lines across them."""
    ticks, labels = list(ticks), list(labels)
    set_ticks = axes.set_xticks if axis == "x" else axes.set_yticks
    set_ticks(ticks, labels or [f"{tick:g}" for tick in ticks])
    axes.grid(False, axis=axis)
