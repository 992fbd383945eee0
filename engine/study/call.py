"""A call of a study, as ``study.json`` stores it: everything that decides which cells are run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..analysis.results import DatasetResults
from ..common.errors import UserError
from .experiments import UNTUNED

BUDGET = 3


def default_budget(experiment: str) -> int:
    """The number of tuning trials of each model; 1 for experiments that compare single keys."""
    return 1 if experiment in UNTUNED else BUDGET


@dataclass(frozen=True)
class Call:
    """One call of ``python -m engine.study``, without settings of one machine.

    Attributes:
        experiment: a key of ``EXPERIMENTS``.
        dataset: the data set id; the experiments are ``<model>_<dataset>``.
        seeds: how many seeds each configuration has. They are 1, 2, ..., so that runs pair up.
        budget: the number of tuning trials of each model; 1 takes the configuration as it is.
        backbones: the backbones to run; empty takes all.
        variants: the variants of the backbones, ``vanilla`` or a mixture; empty takes all.
        changes: keys that are set in every configuration.
        config: the configuration directory; empty is the repository's.
        output: the folder of results.
        model_zoo: the folder of the user's own models; empty is none.
    """

    experiment: str
    dataset: str
    seeds: int = 5
    budget: int = BUDGET
    backbones: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    output: str = "results"
    model_zoo: str = ""

    @property
    def command(self) -> str:
        """The command line of the call."""
        words = ["python", "-m", "engine.study", self.experiment, "--dataset", self.dataset]
        words += ["--seeds", str(self.seeds)]
        words += [] if self.experiment in UNTUNED else ["--budget", str(self.budget)]
        words += ["--backbones", *self.backbones] if self.backbones else []
        words += ["--variants", *self.variants] if self.variants else []
        words += ["--set", *set_words(self.changes)] if self.changes else []
        words += ["--config", self.config] if self.config else []
        words += ["--model-zoo", self.model_zoo] if self.model_zoo else []
        return shlex.join([*words, "--output", self.output])

    def covers(self, other: Call) -> bool:
        """Say whether this call runs everything that the other one does."""
        same = replace(other, seeds=self.seeds, backbones=self.backbones, variants=self.variants)
        pairs = (self.backbones, other.backbones), (self.variants, other.variants)
        return self == same and self.seeds >= other.seeds and all(_has(*pair) for pair in pairs)

    def to_json(self) -> dict[str, Any]:
        """The attributes that are set, for ``study.json``."""
        return {key: value for key, value in asdict(self).items() if value not in ("", [], {})}


def calls(results: DatasetResults) -> list[Call]:
    """The calls of the studies that were run on a data set.

    Raises:
        UserError: ``study.json`` has an entry that is not a call.
    """
    try:
        return [Call(**entry) for entry in results.study.get("studies", [])]
    except TypeError as error:
        where = f"{results.folder / 'study.json'}, studies"
        raise UserError(f"{where}: an entry is not a call ({error}); delete it") from None


def widest(studies: Iterable[Call]) -> list[Call]:
    """The calls that no other call covers."""
    kept: list[Call] = []
    for call in studies:
        if not any(other.covers(call) for other in kept):
            kept = [other for other in kept if not call.covers(other)] + [call]
    return kept


def _has(names: list[str], others: list[str]) -> bool:
    """Say whether the names include all of the others; an empty list stands for all names."""
    return not names or (bool(others) and set(others) <= set(names))


def set_words(changes: dict[str, Any]) -> list[str]:
    """The words after ``--set`` that make these changes."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]
