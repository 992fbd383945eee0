"""How all figures look, and how they are written: the same results give the same bytes.

The colour-blind can tell Okabe and Ito's colours apart. Markers, hatches and line styles say the same
again, for grey print. Colours and markers repeat when there are more models than colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from model_zoo.registry import BACKBONES, MIXTURES, VANILLA

from ..conditions import span
from ..lineup import ordered_backbones, ordered_mixtures

RC: dict[Any, Any] = rc_params_from_file(
    Path(__file__).with_name("figures.mplstyle"), use_default_template=False
)
styled = rc_context(RC)
"""Decorator of the functions that draw."""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)  # of backbones
LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MARKERS = "os^DXvP*<>"
EXPERT_COLOURS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, RED, "#999999")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "+++")
TITLE_LETTERS, FACT_LETTERS = 8.5, 14.5  # that fit into an inch
MEASURED, NULL = BLUE, "0.45"  # what was found, and what chance gives


class Look(NamedTuple):
    """How a backbone is drawn."""

    colour: str
    marker: str
    line: Literal["-", "--", ":", "-."]


def backbone_looks(models: Iterable[str]) -> dict[str, Look]:
    """The look of each backbone of some models; a registered one looks the same in all figures."""
    shown = ordered_backbones(models)
    known = dict.fromkeys([*BACKBONES, *shown])
    looks = map(Look, cycle(COLOURS), cycle(MARKERS), cycle(LINES))
    of = dict(zip(known, looks, strict=False))
    return {backbone: of[backbone] for backbone in shown}


def mixture_markers(models: Iterable[str]) -> dict[str, str]:
    """The marker of each mixture of some models; a registered one has the same in all figures."""
    shown = ordered_mixtures(models)
    known = dict.fromkeys([VANILLA, *MIXTURES, *shown])
    of = dict(zip(known, cycle(MARKERS), strict=False))
    return {mixture: of[mixture] for mixture in shown}


def expert_colour(expert: int) -> str:
    """The colour of an expert, counted from 0."""
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def outer_labels(axes: Axes, x: str, y: str) -> None:
    """Labels of a panel's axes, left out between panels."""
    axes.set(xlabel=x, ylabel=y)
    axes.label_outer()


def heading(figure: Figure, title: str, facts: str) -> None:
    """Write what is seen above a figure and on what it was measured below, in lines that fit."""
    width = figure.get_figwidth()
    figure.suptitle(_lines(title, int(TITLE_LETTERS * width)))
    figure.supxlabel(_lines(facts, int(FACT_LETTERS * width)), fontsize=7.5, color="0.35")


def _lines(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


@styled
def svg(figure: Figure) -> bytes:
    """A figure as SVG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@styled
def save(folder: Path, name: str, figure: Figure) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.png`` (150 dpi) into a folder that exists; returns their paths."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    paths[0].write_bytes(svg(figure))
    figure.savefig(paths[1])
    return paths


def seeds(numbers: Iterable[int]) -> str:
    """``5 seeds``, or ``3 to 5 seeds``, from the numbers of seeds behind each point."""
    text = span(numbers)
    return "one seed" if text == "1" else f"{text} seeds"


def over_seeds(numbers: Iterable[int]) -> str:
    """What points and error bars are."""
    text = seeds(numbers)
    return text if text == "one seed" else f"mean and standard deviation over {text}"


def legend_entry(label: str, **look: Any) -> Line2D:
    """An entry of a legend: a line or a marker."""
    return Line2D([], [], label=label, **look)


def only_ticks(
    axes: Axes, axis: Literal["x", "y"], ticks: Iterable[float], labels: Iterable[str] = ()
) -> None:
    """Ticks at these places and no others, without grid lines across them."""
    ticks, labels = list(ticks), list(labels)
    set_ticks = axes.set_xticks if axis == "x" else axes.set_yticks
    set_ticks(ticks, labels or [f"{tick:g}" for tick in ticks])
    axes.grid(False, axis=axis)
