"""The tables and figures of the paper and ours: names, titles, and how much the results have of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from model_zoo.registry import BACKBONES, MIXTURES, backbone_of, mixture_of, variant

from ..analysis.lineup import fullest_backbone
from ..analysis.results import DatasetResults
from ..analysis.tables.grid import settings
from ..datasets.prepared.card import longest_history
from ..study.call import Call, calls, default_budget
from ..study.experiments import UNTUNED, distinct, plan

Configuration = tuple[str, str]  # a model, and what is varied


class Coverage(NamedTuple):
    """The configurations that a table or figure needs, and those that the results have.

    Attributes:
        planned: all configurations that belong to it, by the study that runs them.
        found: configurations with all their seeds; there may be others than the planned ones.
        some_seeds: configurations that lack some of their planned seeds.
    """

    planned: dict[str, list[Configuration]]
    found: Collection[Configuration]
    some_seeds: Collection[Configuration] = ()


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
    coverage: Callable[[DatasetResults], Coverage]
    alt: str = ""


# ---------------------------------------------------------------- how much of it there is


def _runs(*studies: str, mixed: bool = False) -> Callable[[DatasetResults], Coverage]:
    """Need every configuration of some experiments; with ``mixed`` only those of mixtures."""

    def coverage(results: DatasetResults) -> Coverage:
        planned = _planned(results, *studies)
        if mixed:
            planned = {s: [c for c in all_of if mixture_of(c[0])] for s, all_of in planned.items()}
        cells = [cell for study in studies for cell in results.experiment(study)]
        parts = [cell for cell in cells if not cell.runs.keys() >= set(cell.seeds)]
        found, some_seeds = (
            {(cell.model, settings(cell.varied)) for cell in some} for some in (cells, parts)
        )
        return Coverage(planned, found - some_seeds, some_seeds)

    return coverage


def _tuned(results: DatasetResults) -> Coverage:
    """Need tuning trials of every model of Tables 1 and 2."""
    found = {(trial["model"], "") for trial in results.tuning}
    return Coverage(_planned(results, "table1", "table2"), found)


def _routing_history(results: DatasetResults) -> Coverage:
    """Need runs of all mixtures of one backbone."""
    return _one_backbone("table1", [cell.model for cell in results.experiment("table1")])


def _dispatch(results: DatasetResults) -> Coverage:
    """Need probes of all mixtures of one backbone."""
    probes = results.probes.values()
    return _one_backbone("routers", [p["about"]["model"] for p in probes if p["dispatch"]])


def _probe(has: Callable[[dict[str, Any]], Any]) -> Callable[[DatasetResults], Coverage]:
    """Need one probe, of any model, for which ``has`` is true."""
    wanted = [("any model", "")]
    return lambda results: Coverage(
        {"routers": wanted}, wanted if any(map(has, results.probes.values())) else ()
    )


def _planned(results: DatasetResults, *studies: str) -> dict[str, list[Configuration]]:
    longest = longest_history(results.card)
    return {
        study: [(p.model, settings(p.varied)) for p in distinct(plan(study), longest)]
        for study in studies
    }


def _one_backbone(study: str, models: list[str]) -> Coverage:
    """Need all mixtures of the backbone that has the most: a figure has room for one backbone."""
    backbone = backbone_of(next(iter(fullest_backbone(models) or BACKBONES)))
    planned = {study: [(variant(backbone, mixture), "") for mixture in MIXTURES]}
    return Coverage(planned, {(model, "") for model in models})


# ---------------------------------------------------------------- in words


class State(NamedTuple):
    """How much of a table or figure there is on one data set, in words.

    Attributes:
        word: ``present``, ``partly`` or ``absent``.
        said: how much there is, and what is missing.
        commands: the commands that run what is missing.
    """

    word: str
    said: str
    commands: list[str]


def state(coverage: Coverage, results: DatasetResults) -> State:
    """Say in words how much the results have, and give the commands for the rest."""
    wanted = list(dict.fromkeys(c for planned in coverage.planned.values() for c in planned))
    lacking = [c for c in wanted if c not in coverage.found]
    parts = [c for c in lacking if c in coverage.some_seeds]
    absent = [c for c in lacking if c not in coverage.some_seeds]
    if not lacking:
        return State("present", "", [])
    started = len(absent) < len(wanted)
    commands = [
        _command(results, study, rest if started else [])
        for study, planned in coverage.planned.items()
        if (rest := [configuration[0] for configuration in planned if configuration in lacking])
    ]
    if not started:
        return State("absent", "", commands)
    noun = "configurations" if any(varied for _, varied in wanted) else "models"
    said = f"{len(wanted) - len(lacking)} of {len(wanted)} {noun}"
    for configurations, what in ((absent, "not run"), (parts, "seeds missing")):
        if configurations:
            said += f"; {', '.join(_named(wanted, configurations))}: {what}"
    return State("partly", said, commands)


def _named(wanted: list[Configuration], lacking: list[Configuration]) -> list[str]:
    """Name the models that lack something; if a model lacks only some configurations, count them."""
    all_of, less = Counter(model for model, _ in wanted), Counter(model for model, _ in lacking)
    return [m if n == all_of[m] else f"{n} of {all_of[m]} of {m}" for m, n in less.items()]


def _command(results: DatasetResults, study: str, models: Sequence[str]) -> str:
    """Write the command that runs what is missing, with the options of the data set's earlier studies.

    Args:
        results: the results on the data set.
        study: the study to run.
        models: models whose backbones are run; empty runs all.
    """

    def likeness(call: Call) -> tuple[bool, bool, int]:
        return call.experiment == study, call.experiment == "table1", call.seeds

    like = max(calls(results), key=likeness, default=Call(study, results.dataset_id))
    varied = {key for cell in plan(study) for key in cell.varied}
    backbones = set(map(backbone_of, models))
    return replace(
        like,
        experiment=study,
        budget=default_budget(study) if like.experiment in UNTUNED else like.budget,
        backbones=[b for b in BACKBONES if b in backbones],
        variants=[],
        changes={key: value for key, value in like.changes.items() if key not in varied},
    ).command


# ---------------------------------------------------------------- all of them


PIECES = (
    Piece("table1", "Table 1", "backbones and mixtures", _runs("table1")),
    Piece("table2", "Table 2", "MoS and models of long histories", _runs("table2")),
    Piece(
        "session_hopping", "Figures 2 and 8", "session hopping",
        _probe(lambda probe: probe["session_hopping"]["users"]),
        "similarity of the items in three users' histories, and how alike items within a session, in "
        "adjacent and in distant sessions are, against shuffled histories",
    ),
    Piece(
        "utility_flops", "Figure 4", "utility and FLOPs", _runs("table1"),
        "test AUC and gAUC of every variant of every backbone over its FLOPs per sample",
    ),
    Piece(
        "dispatch", "Figures 5 and 9", "dispatch of popular and rare items", _dispatch,
        "shares of the experts that a popular and a rare item go to, by router, in training and in evaluation",
    ),
    Piece(
        "scaling", "Figure 6", "history length and number of experts", _runs("length", "experts"),
        "test AUC and gAUC over the longest history and over the number of experts, by backbone",
    ),
    Piece(
        "alphas", "Figure 7", "fusion weights", _runs("alphas"),
        "test AUC and gAUC over the weights of item experts and window experts",
    ),
    Piece(
        "routing_history", "", "routing over training", _routing_history,
        "load of each expert, its entropy and the movement of the codes over the epochs, by mixture",
    ),
    Piece(
        "themes", "", "themes of the experts",
        _probe(lambda probe: probe["themes"] and probe["themes"]["codes"]),
        "agreement of experts with known categories, and the items nearest to each code of MoS",
    ),
    Piece("mos", "", "MoS against the other routers", _runs("table1", mixed=True)),
    Piece("routing", "", "load of the experts over all seeds", _runs("table1", mixed=True)),
    Piece("knobs", "", "knobs, one key changed at a time", _runs("knobs")),
    Piece("cost", "", "cost of the models of Tables 1 and 2", _runs("table1", "table2")),
    Piece("tuning", "", "tuning of the models of Tables 1 and 2", _tuned),
)  # fmt: skip
"""All of them in the order of the page: the paper's, then ours."""
