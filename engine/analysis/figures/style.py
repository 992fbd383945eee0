"""How all figures look, and how they are written: the same results give the same bytes.

The colour-blind can tell Okabe and Ito's colours apart. Markers, hatches and line styles say the same
again, for grey print. Colours and markers repeat when there are more models than colours.
"""

import base64
import textwrap
from collections.abc import Iterable, Sequence, Sized
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from model_zoo.registry import BACKBONES, MIXTURES, VANILLA

from ..wording import ordered_backbones, ordered_mixtures, sentences, span

styled = rc_context(fname=Path(__file__).with_name("figures.mplstyle"))
"""Decorator of the functions that draw."""

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)  # of backbones
LINES = ("-", "--", ":", "-.")
MARKERS = "os^DXvP*<>"
EXPERT_COLOURS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, RED, "#999999")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo", "+++")
TITLE_LETTERS, FACT_LETTERS = 8.5, 14.5  # that fit into an inch
MEASURED, NULL = BLUE, "0.45"  # what was found, and what chance gives


class Look(NamedTuple):
    """How a backbone or a mixture is drawn."""

    colour: str
    marker: str
    line: str


def looks(shown: Iterable[str], registered: Iterable[str]) -> dict[str, Look]:
    """The look of each name that is shown; a registered one looks the same in all figures."""
    shown = list(shown)
    known = dict.fromkeys([*registered, *shown])
    endless = map(Look, cycle(COLOURS), cycle(MARKERS), cycle(LINES))
    look_of = dict(zip(known, endless, strict=False))
    return {name: look_of[name] for name in shown}


def backbone_looks(models: Iterable[str]) -> dict[str, Look]:
    """The look of each backbone of some models."""
    return looks(ordered_backbones(models), BACKBONES)


def mixture_looks(models: Iterable[str]) -> dict[str, Look]:
    """The look of each mixture of some models."""
    return looks(ordered_mixtures(models), [VANILLA, *MIXTURES])


def expert_colour(expert: int) -> str:
    """The colour of an expert, counted from 0."""
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def outer_labels(axes: Axes, x: str, y: str) -> None:
    """Labels of a panel's axes, left out between panels."""
    axes.set(xlabel=x, ylabel=y)
    axes.label_outer()


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, NDArray]:
    """A new figure of so many inches, and its axes ``(rows, columns)``."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure: Figure, title: str, *names: str, legend: Sequence = (), **facts: Any) -> Figure:
    """Write what is seen above a figure and what it was measured on below; returns the figure.

    Args:
        figure: has its panels.
        title: what is seen.
        names: of the sentences that say what it was measured on.
        legend: entries of a legend at the right.
        facts: what these sentences leave open.
    """
    width = figure.get_figwidth()
    figure.suptitle(textwrap.fill(title, int(TITLE_LETTERS * width)))
    lines = [textwrap.fill(line, int(FACT_LETTERS * width)) for line in sentences(*names, **facts)]
    figure.supxlabel("\n".join(lines), fontsize=7.5, color="0.35")
    if legend:
        figure.legend(handles=legend, loc="outside right center")
    return figure


@styled
def svg(figure: Figure) -> bytes:
    """A figure as SVG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_address(figure: Figure) -> str:
    """A figure as SVG in the form of an address, which a page shows without loading anything."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg(figure)).decode()}"


@styled
def save(folder: Path, name: str, figure: Figure) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.png`` (150 dpi) into a folder that exists; returns their paths."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    paths[0].write_bytes(svg(figure))
    figure.savefig(paths[1])
    return paths


def seeds(groups: Iterable[Sized]) -> str:
    """``5 seeds``, or ``3 to 5 seeds``, from the runs behind each point."""
    text = span(map(len, groups))
    return "one seed" if text == "1" else f"{text} seeds"


def over_seeds(groups: Iterable[Sized]) -> str:
    """What points and error bars are."""
    text = seeds(groups)
    return text if text == "one seed" else f"mean and standard deviation over {text}"


def legend_entry(label: str, **look: Any) -> Line2D:
    """An entry of a legend: a line or a marker."""
    return Line2D([], [], label=label, **look)


def only_ticks(
    axes: Axes, axis: Literal["x", "y"], ticks: Sequence[float], labels: Iterable[str] = ()
) -> None:
    """Ticks at these places and no others, without grid lines across them."""
    texts = list(labels) or [f"{tick:g}" for tick in ticks]
    axes.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": texts})
    axes.grid(False, axis=axis)
