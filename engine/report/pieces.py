"""The tables and figures of the paper and ours: names, titles, and how much the results have of each."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from model_zoo.registry import BACKBONES, MIXTURES, backbone_of, mixture_of, variant

from ..analysis.results import DatasetResults
from ..analysis.tables.grid import settings
from ..analysis.wording import fullest_backbone
from ..config.read import read_yaml
from ..datasets.prepared.card import longest_history
from ..study.experiments import UNTUNED, Call, calls, default_budget, distinct, plan

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


# ---------------------------------------------------------------- how much of it there is


def _runs(results: DatasetResults, *studies: str) -> Coverage:
    """Every configuration of some experiments."""
    cells = [cell for study in studies for cell in results.experiment(study)]
    parts = [cell for cell in cells if not cell.runs.keys() >= set(cell.seeds)]
    found, some_seeds = ({(c.model, settings(c.varied)) for c in some} for some in (cells, parts))
    return Coverage(_planned(results, *studies), found - some_seeds, some_seeds)


def _mixtures(results: DatasetResults, *studies: str) -> Coverage:
    """Every configuration of some experiments that has a mixture."""
    runs = _runs(results, *studies)
    mixed = {s: [c for c in planned if mixture_of(c[0])] for s, planned in runs.planned.items()}
    return runs._replace(planned=mixed)


def _tuned(results: DatasetResults, *studies: str) -> Coverage:
    """Tuning trials of every model of some experiments."""
    found = {(trial["model"], "") for trial in results.tuning}
    return Coverage(_planned(results, *studies), found)


def _probe(results: DatasetResults, part: str, key: str) -> Coverage:
    """One probe, of any model, that has this part of the numbers."""
    wanted = [("any model", "")]
    there = any((probe[part] or {}).get(key) for probe in results.probes.values())
    return Coverage({"routers": wanted}, wanted if there else ())


def _one_backbone(results: DatasetResults, study: str) -> Coverage:
    """Runs, or with ``routers`` probes, of all mixtures of one backbone: a figure has room for one.

    It is the backbone that has the most.
    """
    models = [cell.model for cell in results.experiment(study)]
    if study == "routers":
        models = [p["about"]["model"] for p in results.probes.values() if p["dispatch"]]
    backbone = backbone_of(next(iter(fullest_backbone(models) or BACKBONES)))
    planned = {study: [(variant(backbone, mixture), "") for mixture in MIXTURES]}
    return Coverage(planned, {(model, "") for model in models})


def _planned(results: DatasetResults, *studies: str) -> dict[str, list[Configuration]]:
    longest = longest_history(results.card)
    cells = {study: distinct(plan(study), longest) for study in studies}
    return {study: [(c.model, settings(c.varied)) for c in own] for study, own in cells.items()}


NEEDS: dict[str, Callable[..., Coverage]] = {
    "runs": _runs, "mixtures": _mixtures, "tuned": _tuned, "probe": _probe, "one_backbone": _one_backbone,
}  # fmt: skip


class Piece(NamedTuple):
    """A table or a figure, as ``pieces.yaml`` describes it."""

    name: str
    title: str
    needs: list[str]
    paper: str = ""
    alt: str = ""

    def coverage(self, results: DatasetResults) -> Coverage:
        """How much of it the results have."""
        kind, *of = self.needs
        return NEEDS[kind](results, *of)


KNOWN = read_yaml(Path(__file__).with_name("pieces.yaml"))
PIECES = [Piece(name, **about) for name, about in KNOWN.items()]


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
    # By study, the models that lack something.
    rest = {s: [c[0] for c in planned if c in lacking] for s, planned in coverage.planned.items()}
    commands = [_command(results, s, own if started else []) for s, own in rest.items() if own]
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
