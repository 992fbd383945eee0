"""The tables and figures of the paper and ours: what each is called, and how much of it the results have."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..analysis.figures import FIGURES
from ..analysis.figures.select import fullest_backbone
from ..analysis.results import BACKBONES, MIXTURES, DatasetResults, split_name, variant
from ..study.experiments import plan
from ..tuner.trial import as_text

Configuration = tuple[str, str]  # a model, and what is varied
ANY: Configuration = ("any model", "")


@dataclass(frozen=True)
class Coverage:
    """What a piece is made from.

    Attributes:
        planned: all that belongs to it, by the study that runs it.
        found: what the results have, and perhaps more.
    """

    planned: dict[str, list[Configuration]]
    found: set[Configuration]

    @property
    def wanted(self) -> list[Configuration]:
        return list(dict.fromkeys(c for planned in self.planned.values() for c in planned))

    @property
    def lacking(self) -> list[Configuration]:
        return [c for c in self.wanted if c not in self.found]


@dataclass(frozen=True)
class Piece:
    """A table or a figure.

    Attributes:
        name: in ``TABLES`` or ``FIGURES`` of the analysis.
        paper: its number in the paper; empty where the paper has none.
        title: what it is about.
        coverage: how much of it the results have.
        alt: what a figure shows, in one sentence.
    """

    name: str
    paper: str
    title: str
    coverage: Callable[[DatasetResults], Coverage]
    alt: str = ""

    @property
    def caption(self) -> str:
        number = f"{self.paper} of the paper" if self.paper else "Not in the paper"
        return f"{number}: {self.title}"

    @property
    def file(self) -> str:
        """Where the analysis writes it; in the folder of the data set if it is a figure."""
        return f"figures/{self.name}.svg" if self.name in FIGURES else f"tables/{self.name}.html"


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
    started = len(lacking) < len(wanted)
    commands = [
        _command(results, study, rest if started else [])
        for study, planned in coverage.planned.items()
        if (rest := [model for model, varied in planned if (model, varied) in lacking])
    ]
    if not started:
        return State("absent", commands=commands)
    noun = "configurations" if any(varied for _, varied in wanted) else "models"
    said = f"{len(wanted) - len(lacking)} of {len(wanted)} {noun}"
    if lacking:
        said += f"; {', '.join(_named(wanted, lacking))}: not run"
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
                m if n == all_of[m] else f"{m} ({n} of {all_of[m]})" for m, n in less.items() if n
            ]
    return names


def _command(results: DatasetResults, study: str, models: Sequence[str]) -> str:
    """The command that runs what a study lacks, with the options of the data set's earlier ones.

    Args:
        models: only the backbones of these; empty is all.
    """

    def unlike(command: str) -> tuple[bool, bool]:
        return f"engine.study {study} " not in command, "engine.study table1 " not in command

    options: dict[str, list[str]] = {"--dataset": [results.dataset_id]}
    words: list[str] = []
    for word in shlex.split(min(results.study.get("commands", []), key=unlike, default="")):
        if word.startswith("--"):
            words = options[word] = []
        else:
            words.append(word)
    options.pop("--backbones", None)
    if backbones := [b for b in BACKBONES if b in {split_name(model)[0] for model in models}]:
        options["--backbones"] = backbones
    flat = [word for option, values in options.items() for word in (option, *values)]
    return shlex.join(["python", "-m", "engine.study", study, *flat])


def _runs(*studies: str) -> Callable[[DatasetResults], Coverage]:
    """Every configuration of some experiments."""

    def coverage(results: DatasetResults) -> Coverage:
        cells = [cell for study in studies for cell in results.experiment(study)]
        return Coverage(_planned(studies), {(cell.model, as_text(cell.varied)) for cell in cells})

    return coverage


def _mixtures(results: DatasetResults) -> Coverage:
    """Every mixture of Table 1."""
    runs = _runs("table1")(results)
    mixtures = [c for c in runs.wanted if split_name(c[0])[1]]
    return Coverage({"table1": mixtures}, runs.found)


def _planned(studies: Iterable[str]) -> dict[str, list[Configuration]]:
    return {study: [(p.model, as_text(p.varied)) for p in plan(study, None)] for study in studies}


def _tuned(results: DatasetResults) -> Coverage:
    tuned = {(trial["model"], "") for trial in results.tuning}
    return Coverage(_planned(("table1", "table2")), tuned)


def _routers_of_one(study: str, models: Iterable[str]) -> Coverage:
    """The mixtures of the one backbone that a figure has room for."""
    known = set(models)
    backbone = fullest_backbone(known) or BACKBONES[0]
    planned = {study: [(variant(backbone, mixture), "") for mixture in MIXTURES]}
    return Coverage(planned, {(model, "") for model in known})


def _routing_history(results: DatasetResults) -> Coverage:
    return _routers_of_one("table1", (cell.model for cell in results.experiment("table1")))


def _dispatch(results: DatasetResults) -> Coverage:
    probes = results.probes.values()
    return _routers_of_one("routers", (p["about"]["model"] for p in probes if p["dispatch"]))


def _session_hopping(results: DatasetResults) -> Coverage:
    found = any(probe["session_hopping"]["users"] for probe in results.probes.values())
    return Coverage({"routers": [ANY]}, {ANY} if found else set())


def _themes(results: DatasetResults) -> Coverage:
    found = any(p["themes"] and p["themes"]["codes"] for p in results.probes.values())
    return Coverage({"routers": [ANY]}, {ANY} if found else set())


PIECES = (
    Piece("table1", "Table 1", "backbones and mixtures", _runs("table1")),
    Piece("table2", "Table 2", "MoS and models of long histories", _runs("table2")),
    Piece(
        "session_hopping", "Figures 2 and 8", "session hopping", _session_hopping,
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
        "themes", "", "themes of the experts", _themes,
        "agreement of experts with known categories, and the items nearest to each code of MoS",
    ),
    Piece("mos", "", "MoS against the other routers", _mixtures),
    Piece("routing", "", "load of the experts over all seeds", _mixtures),
    Piece("knobs", "", "knobs, one key changed at a time", _runs("knobs")),
    Piece("cost", "", "cost of the models of Tables 1 and 2", _runs("table1", "table2")),
    Piece("tuning", "", "tuning of the models of Tables 1 and 2", _tuned),
)  # fmt: skip
"""In the order of the page: the paper's, then ours."""
