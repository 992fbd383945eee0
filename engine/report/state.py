"""In words: how much of a table or figure there is on one data set, and the commands that make the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..analysis.results import BACKBONES, DatasetResults, split_name
from ..study.call import Call, calls, default_budget
from ..study.experiments import UNTUNED, plan
from .coverage import Configuration
from .pieces import Piece


@dataclass(frozen=True)
class State:
    """How much of a piece there is on one data set.

    Attributes:
        word: ``present``, ``partly`` or ``absent``.
        said: how much, and what is absent.
        commands: that make the rest.
        anchor: where it is on the page; empty if it is not.
    """

    word: str
    said: str = ""
    commands: list[str] = field(default_factory=list)
    anchor: str = ""


def state(piece: Piece, results: DatasetResults, anchor: str) -> State:
    """How much of a piece there is.

    Args:
        anchor: of the piece on the page; empty if it is not there.
    """
    coverage = piece.coverage(results)
    wanted, lacking = coverage.wanted, coverage.lacking
    absent = [c for c in lacking if c not in coverage.some_seeds]
    parts = [c for c in lacking if c in coverage.some_seeds]
    started = len(absent) < len(wanted)
    commands = [
        _command(results, study, rest if started else [])
        for study, planned in coverage.planned.items()
        if (rest := [model for model, varied in planned if (model, varied) in lacking])
    ]
    if not started:
        return State("absent", commands=commands)
    noun = "configurations" if any(varied for _, varied in wanted) else "models"
    said = f"{len(wanted) - len(lacking)} of {len(wanted)} {noun}"
    for configurations, what in ((absent, "not run"), (parts, "seeds missing")):
        if configurations:
            said += f"; {', '.join(_named(wanted, configurations))}: {what}"
    if not anchor:
        return State(
            "absent", f"{said}; not drawn", [*commands, "python -m engine.analysis RESULTS"]
        )
    return State("partly", said, commands, anchor) if lacking else State("present", anchor=anchor)


def _named(wanted: list[Configuration], lacking: list[Configuration]) -> list[str]:
    """What lacks, by backbone where all of it does, else by model."""
    names = []
    for backbone in dict.fromkeys(split_name(model)[0] for model, _ in lacking):
        models = list(dict.fromkeys(m for m, _ in wanted if split_name(m)[0] == backbone))
        all_of = {m: sum(model == m for model, _ in wanted) for m in models}
        less = {m: sum(model == m for model, _ in lacking) for m in models}
        if less == all_of and len(models) > 1:
            names.append(backbone)
        else:
            names += [
                m if n == all_of[m] else f"{n} of {all_of[m]} of {m}" for m, n in less.items() if n
            ]
    return names


def _command(results: DatasetResults, study: str, models: Sequence[str]) -> str:
    """The command that runs what a study lacks, like the data set's earlier ones.

    Args:
        models: only the backbones of these; empty is all.
    """

    def likeness(call: Call) -> tuple[bool, bool, int]:
        return call.experiment == study, call.experiment == "table1", call.seeds

    like = max(calls(results), key=likeness, default=Call(study, results.dataset_id))
    varied = {key for cell in plan(study) for key in cell.varied}
    backbones = {split_name(model)[0] for model in models}
    return replace(
        like,
        experiment=study,
        budget=default_budget(study) if like.experiment in UNTUNED else like.budget,
        backbones=[b for b in BACKBONES if b in backbones],
        variants=[],
        changes={key: value for key, value in like.changes.items() if key not in varied},
    ).command
