"""The tables and figures of the paper and ours, and what each is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..analysis.results import DatasetResults
from . import coverage


class Piece(NamedTuple):
    """A table or a figure.

    Attributes:
        name: its name in ``TABLES`` or ``FIGURES`` of the analysis.
        paper: its number in the paper; empty where the paper has none.
        title: what it is about.
        coverage: how much of it the results have.
        alt: what a figure shows, in one sentence; empty for a table.
    """

    name: str
    paper: str
    title: str
    coverage: Callable[[DatasetResults], coverage.Coverage]
    alt: str = ""


PIECES = (
    Piece("table1", "Table 1", "backbones and mixtures", coverage.runs("table1")),
    Piece("table2", "Table 2", "MoS and models of long histories", coverage.runs("table2")),
    Piece(
        "session_hopping", "Figures 2 and 8", "session hopping",
        coverage.probe(lambda probe: probe["session_hopping"]["users"]),
        "similarity of the items in three users' histories, and how alike items within a session, in "
        "adjacent and in distant sessions are, against shuffled histories",
    ),
    Piece(
        "utility_flops", "Figure 4", "utility and FLOPs", coverage.runs("table1"),
        "test AUC and gAUC of every variant of every backbone over its FLOPs per sample",
    ),
    Piece(
        "dispatch", "Figures 5 and 9", "dispatch of popular and rare items", coverage.dispatch,
        "shares of the experts that a popular and a rare item go to, by router, in training and in evaluation",
    ),
    Piece(
        "scaling", "Figure 6", "history length and number of experts", coverage.runs("length", "experts"),
        "test AUC and gAUC over the longest history and over the number of experts, by backbone",
    ),
    Piece(
        "alphas", "Figure 7", "fusion weights", coverage.runs("alphas"),
        "test AUC and gAUC over the weights of item experts and window experts",
    ),
    Piece(
        "routing_history", "", "routing over training", coverage.routing_history,
        "load of each expert, its entropy and the movement of the codes over the epochs, by mixture",
    ),
    Piece(
        "themes", "", "themes of the experts",
        coverage.probe(lambda probe: probe["themes"] and probe["themes"]["codes"]),
        "agreement of experts with known categories, and the items nearest to each code of MoS",
    ),
    Piece("mos", "", "MoS against the other routers", coverage.mixtures),
    Piece("routing", "", "load of the experts over all seeds", coverage.mixtures),
    Piece("knobs", "", "knobs, one key changed at a time", coverage.runs("knobs")),
    Piece("cost", "", "cost of the models of Tables 1 and 2", coverage.runs("table1", "table2")),
    Piece("tuning", "", "tuning of the models of Tables 1 and 2", coverage.tuned),
)  # fmt: skip
"""All of them in the order of the page: the paper's, then ours."""
