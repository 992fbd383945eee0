"""How much of a table or figure there is on one data set, and the commands that make the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model_zoo.registry import BACKBONES, MIXTURES, backbone_of, mixture_of, variant

from ..analysis.lineup import fullest_backbone
from ..analysis.results import DatasetResults
from ..analysis.tables.grid import settings
from ..datasets.card import longest_history
from ..study.call import Call, calls, default_budget
from ..study.experiments import UNTUNED, distinct, plan

Configuration = tuple[str, str]  # a model, and what is varied


@dataclass(frozen=True)
class Coverage:
    """The configurations that a table or figure needs, and the results' part of them.

    Attributes:
        planned: all that belongs to it, by the study that runs it.
        found: what the results have, and perhaps more.
        some_seeds: what they have with some of its planned seeds only.
    """

    planned: dict[str, list[Configuration]]
    found: Collection[Configuration]
    some_seeds: Collection[Configuration] = ()


def runs(*studies: str) -> Callable[[DatasetResults], Coverage]:
    """Every configuration of some experiments."""

    def coverage(results: DatasetResults) -> Coverage:
        cells = [cell for study in studies for cell in results.experiment(study)]
        parts = [cell for cell in cells if not cell.runs.keys() >= set(cell.seeds)]
        found, some_seeds = (
            {(cell.model, settings(cell.varied)) for cell in some} for some in (cells, parts)
        )
        return Coverage(_planned(results, *studies), found - some_seeds, some_seeds)

    return coverage


def mixtures(results: DatasetResults) -> Coverage:
    """Every mixture of Table 1."""
    whole = runs("table1")(results)
    routed = [c for c in whole.planned["table1"] if mixture_of(c[0])]
    return replace(whole, planned={"table1": routed})


def tuned(results: DatasetResults) -> Coverage:
    """The tuning trials of every model of Tables 1 and 2."""
    found = {(trial["model"], "") for trial in results.tuning}
    return Coverage(_planned(results, "table1", "table2"), found)


def routing_history(results: DatasetResults) -> Coverage:
    """The runs of one backbone's mixtures."""
    return _one_backbone("table1", [cell.model for cell in results.experiment("table1")])


def dispatch(results: DatasetResults) -> Coverage:
    """The probes of one backbone's mixtures."""
    probes = results.probes.values()
    return _one_backbone("routers", [p["about"]["model"] for p in probes if p["dispatch"]])


def probe(has: Callable[[dict[str, Any]], Any]) -> Callable[[DatasetResults], Coverage]:
    """Any model's probe that has something to show."""
    wanted = [("any model", "")]

    def coverage(results: DatasetResults) -> Coverage:
        found = any(has(probe) for probe in results.probes.values())
        return Coverage({"routers": wanted}, wanted if found else ())

    return coverage


def _planned(results: DatasetResults, *studies: str) -> dict[str, list[Configuration]]:
    longest = longest_history(results.card)
    return {
        study: [(p.model, settings(p.varied)) for p in distinct(plan(study), longest)]
        for study in studies
    }


def _one_backbone(study: str, models: list[str]) -> Coverage:
    """The mixtures of the one backbone that a figure has room for."""
    backbone = backbone_of(next(iter(fullest_backbone(models) or BACKBONES)))
    planned = {study: [(variant(backbone, mixture), "") for mixture in MIXTURES]}
    return Coverage(planned, {(model, "") for model in models})


# ---------------------------------------------------------------- in words


@dataclass(frozen=True)
class State:
    """How much of a table or figure there is on one data set, in words.

    Attributes:
        word: ``present``, ``partly`` or ``absent``.
        said: how much, and what is absent.
        commands: the commands that make the rest.
    """

    word: str
    said: str
    commands: list[str]


def state(coverage: Coverage, results: DatasetResults) -> State:
    """A coverage in words."""
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
    """What lacks: by backbone where all its models lack, else by model."""
    all_of, less = Counter(model for model, _ in wanted), Counter(model for model, _ in lacking)
    names = []
    for backbone in dict.fromkeys(map(backbone_of, less)):
        models = [model for model in all_of if backbone_of(model) == backbone]
        if len(models) > 1 and all(less[model] == all_of[model] for model in models):
            names.append(backbone)
        else:
            some = [(model, less[model], all_of[model]) for model in models if model in less]
            names += [model if n == of else f"{n} of {of} of {model}" for model, n, of in some]
    return names


def _command(results: DatasetResults, study: str, models: Sequence[str]) -> str:
    """The command that runs what a study lacks, like the data set's earlier ones.

    Args:
        results: the data set.
        study: what is run.
        models: only the backbones of these; empty is all.
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
