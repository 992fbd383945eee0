"""The figures: each draws what is in the results, and nothing where that is missing."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from ..results import DatasetResults
from . import (
    alphas,
    item_dispatch,
    routing_history,
    scaling,
    session_hopping,
    themes,
    utility_flops,
)

FIGURES: dict[str, Callable[[DatasetResults], Figure | None]] = {
    "session_hopping": session_hopping.draw,
    "utility_flops": utility_flops.draw,
    "dispatch": item_dispatch.draw,
    "scaling": scaling.draw,
    "alphas": alphas.draw,
    "routing_history": routing_history.draw,
    "themes": themes.draw,
}
