"""What a study runs: the configurations that each experiment of the paper compares, and calls of studies."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from model_zoo.registry import BACKBONES, BASELINES, CONTROLS, MIXTURES, OURS, VANILLA, variant

from ..analysis.results import DatasetResults
from ..common.errors import UserError, did_you_mean
from ..common.schema import check
from ..config.read import read_yaml

ALONE = "vanilla"  # the name of a backbone without a mixture in --variants
LENGTHS = (100, 200, 300, 400)  # paper, figure 6
EXPERTS = (0, 2, 4, 6, 8)  # paper, figure 6; 0 is the vanilla backbone
# Paper, figure 7: all fusion weights in steps of 0.2 whose sum is at most 1.
ALPHAS = [{"alpha_item": i / 5, "alpha_window": w / 5} for i in range(6) for w in range(6 - i)]
STARTS = [  # scales of embeddings; FuxiCTR's default comes first
    {"embedding_initializer": f"partial(nn.init.normal_, std={std})"}
    for std in ("1e-4", "0.01", "0.05", "0.25", "1")
]
# What a configuration for own data gives models to read, without one thing or with one more.
SIGNALS: list[dict[str, Any]] = [
    {},
    {"match_features": False},
    {"rare_id_rate": 0.0},
    {"time_gap": True},
]
Names = Sequence[str]
AS_IT_IS: Sequence[dict[str, Any]] = ({},)
KNOBS = read_yaml(Path(__file__).with_name("knobs.yaml"))

Rows = Mapping[str, Sequence[dict[str, Any]]]
"""The mixtures that each backbone gets, and for each mixture the keys that its configurations set."""

ROUTERS: Rows = dict.fromkeys(MIXTURES, AS_IT_IS)
NAMED: Rows = dict.fromkeys(CONTROLS, AS_IT_IS)  # they run only if --variants names them
EXPERIMENTS: dict[str, tuple[str, Rows]] = {
    "table1": (
        "Every backbone alone and with every router.",
        {VANILLA: AS_IT_IS, **ROUTERS, **NAMED},
    ),
    "table2": ("The baselines of several scales, and MoS on every backbone.", {OURS: AS_IT_IS}),
    "length": (
        "Vanilla and MoS on longer and longer histories.",
        {mixture: [{"max_len": n} for n in LENGTHS] for mixture in (VANILLA, OURS)},
    ),
    "experts": ("MoS with more and more experts.", {OURS: [{"num_experts": n} for n in EXPERTS]}),
    "alphas": ("MoS over the triangle of fusion weights.", {OURS: ALPHAS}),
    "start": (
        "Vanilla and MoS from narrow to wide embeddings, untuned.",
        {VANILLA: STARTS, OURS: STARTS},
    ),
    "signals": (
        "Vanilla and MoS without what matches, without hidden rare ids, and with the times of events.",
        {VANILLA: SIGNALS, OURS: SIGNALS},
    ),
    "routers": ("Every router, to look into.", ROUTERS),
    "knobs": (
        "Each router with one decision changed at a time, at the configuration's own values.",
        {**ROUTERS, **KNOBS},
    ),
}
WITH_BASELINES = ("table2",)
UNTUNED = ("knobs", "signals", "start")  # tuning would set the keys that these compare
BUDGET = 3


class Planned(NamedTuple):
    """A cell of an experiment: a model, and the keys that are set in it."""

    experiment: str
    model: str
    varied: dict[str, Any]

    @property
    def key(self) -> str:
        """A text that is the same for equal cells."""
        return json.dumps(self, sort_keys=True)


def plan(
    experiment: str, backbones: Names = (), variants: Names = (), own: Names = ()
) -> list[Planned]:
    """The configurations that an experiment compares.

    Args:
        experiment: a key of ``EXPERIMENTS``.
        backbones: the backbones to take; empty takes all that are registered. Baselines stay in.
        variants: the variants of the backbones, ``vanilla`` or a mixture; empty takes all but
            ``CONTROLS``.
        own: the backbones of the user, which ``backbones`` may name.

    Raises:
        UserError: an unknown backbone or variant, or one that the experiment does not have.
    """
    _, rows = EXPERIMENTS[experiment]
    by_variant = {mixture or ALONE: mixture for mixture in rows}
    _require_known(experiment, "backbones", backbones, [*BACKBONES, *own])
    _require_known(experiment, "variants", variants, list(by_variant))
    baselines = BASELINES if experiment in WITH_BASELINES else ()
    return [Planned(experiment, baseline, {}) for baseline in baselines] + [
        Planned(experiment, variant(backbone, mixture), keys)
        for backbone in backbones or BACKBONES
        for name, mixture in by_variant.items()
        if name in variants or not (variants or mixture in CONTROLS)
        for keys in rows[mixture]
    ]


def distinct(cells: list[Planned], longest: int | None) -> list[Planned]:
    """The configurations that give different runs on histories of at most ``longest`` items.

    Once ``max_len`` reaches the longest history, larger values change nothing. If even the smallest
    value reaches it, there is nothing to compare. None means that the length is unknown.
    """
    if longest is None:
        return cells
    apart = LENGTHS[: 1 + sum(n < longest for n in LENGTHS)]
    kept = apart if len(apart) > 1 else ()
    return [c for c in cells if "max_len" not in c.varied or c.varied["max_len"] in kept]


def _require_known(experiment: str, flag: str, names: Names, known: Names) -> None:
    for name in names:
        if name not in known:
            has = f"{experiment} has {', '.join(known)}{did_you_mean(name, known)}"
            raise UserError(f"--{flag} {name}: {has}")


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
        variants: the variants of the backbones, as in ``plan``.
        changes: keys that are set in every configuration.
        config: the configuration directory; empty is the repository's.
        output: the folder of results.
        model_zoo: the folder of the user's own models; empty is none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

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

    def covers(self, other: "Call") -> bool:
        """Say whether this call runs everything that the other one does."""
        same = replace(other, seeds=self.seeds, backbones=self.backbones, variants=self.variants)
        pairs = (self.backbones, other.backbones), (self.variants, other.variants)
        named = CONTROLS.keys() & other.variants <= set(self.variants)
        wide = named and all(_has(*pair) for pair in pairs)
        return self == same and self.seeds >= other.seeds and wide

    def to_json(self) -> dict[str, Any]:
        """The attributes that are set, for ``study.json``."""
        return {key: value for key, value in asdict(self).items() if value not in ("", [], {})}


def calls(results: DatasetResults) -> list[Call]:
    """The calls of the studies that were run on a data set.

    Raises:
        UserError: ``study.json`` has an entry that is not a call.
    """
    known = {"studies": results.study.get("studies", [])}
    file = results.folder / "study.json"
    return check(file, known, dict[str, list[Call]], "delete the entry")["studies"]


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
