"""The figures: each draws what is in the results, and nothing where that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from ..results import DatasetResults
from . import (
    alphas,
    dispatch,
    routing_history,
    scaling,
    session_hopping,
    style,
    themes,
    utility_flops,
)

FIGURES: dict[str, Callable[[DatasetResults], Figure | None]] = {
    "session_hopping": session_hopping.draw,
    "utility_flops": utility_flops.draw,
    "dispatch": dispatch.draw,
    "scaling": scaling.draw,
    "alphas": alphas.draw,
    "routing_history": routing_history.draw,
    "themes": themes.draw,
}


def draw_all(results: DatasetResults, folder: Path) -> list[Path]:
    """Write every figure that the results have the numbers for, as SVG and PNG; returns the files."""
    written = []
    for name, draw in FIGURES.items():
        figure = draw(results)
        if figure is not None:
            written += style.save(figure, folder, name)
    return written
