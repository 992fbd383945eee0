"""Which configurations each experiment of the paper compares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from model_zoo.registry import BACKBONES, BASELINES, MIXTURES, OURS, VANILLA, mixture_of, variant

from ..common.errors import UserError, did_you_mean

LENGTHS = (100, 200, 300, 400)  # paper, figure 6
EXPERTS = (0, 2, 4, 6, 8)  # paper, figure 6; 0 is the vanilla backbone
FIFTHS = range(6)  # paper, figure 7: weights in steps of 0.2
# Decisions that the papers leave open. The first entry is the literal configuration, and each other
# one is a change of it.
KNOBS: dict[str, tuple[dict[str, Any], ...]] = {
    "DSelectK": (
        {},
        {"router_topk": 1},
        {"num_experts": 4},  # with 4 or 8 every code has an expert
        {"num_experts": 8},
        {"dselect_mode": "static"},
    ),
    "GShard": ({}, {"router_topk": 1}),
    "ExpertChoice": ({}, {"router_topk": 1}),
    OURS: (
        {},
        {"codebook_restarts": 50},
        {"router_weight": "softmax_topk"},
        {"router_topk": 2},
        {"router_topk": 2, "router_weight": "softmax_topk"},
        {"router_temperature": 0.2, "router_topk": 2},
        {"codebook_init": "random"},
        {"codebook_decay": 0.9},
        {"window_anchor": "end"},
        {"alpha_window": 0.0, "alpha_item": 0.5},
        {"alpha_item": 0.0, "alpha_window": 0.5},
        {"backbone_warmup_epochs": 0.0, "expert_warmup_epochs": 0.0},
        {"expert_warmup_epochs": 0.0},
    ),
}


Configuration = tuple[str, dict[str, Any]]
"""A model, and the keys that are set in it."""


class Planned(NamedTuple):
    """A cell of an experiment: a model, and the keys that are set in it."""

    experiment: str
    model: str
    varied: dict[str, Any]

    @property
    def key(self) -> str:
        """A text that is the same for equal cells."""
        return json.dumps(self, sort_keys=True)


def table1(backbones: Sequence[str]) -> list[Configuration]:
    """Every backbone alone and with every router."""
    return [(variant(b, m), {}) for b in backbones for m in (VANILLA, *MIXTURES)]


def table2(backbones: Sequence[str]) -> list[Configuration]:
    """The baselines that fuse several scales, and MoS on every backbone."""
    models = [*BASELINES, *(variant(b, OURS) for b in backbones)]
    return [(model, {}) for model in models]


def length(backbones: Sequence[str]) -> list[Configuration]:
    """Vanilla and MoS on longer and longer histories."""
    return [
        (variant(b, m), {"max_len": n}) for b in backbones for m in (VANILLA, OURS) for n in LENGTHS
    ]


def experts(backbones: Sequence[str]) -> list[Configuration]:
    """MoS with more and more experts."""
    return [(variant(b, OURS), {"num_experts": n}) for b in backbones for n in EXPERTS]


def alphas(backbones: Sequence[str]) -> list[Configuration]:
    """MoS over the triangle of fusion weights."""
    return [
        (variant(b, OURS), {"alpha_item": i / 5, "alpha_window": w / 5})
        for b in backbones
        for i in FIFTHS
        for w in FIFTHS
        if i + w <= 5
    ]


def routers(backbones: Sequence[str]) -> list[Configuration]:
    """Every router, to look into."""
    return [(variant(b, m), {}) for b in backbones for m in MIXTURES]


def knobs(backbones: Sequence[str]) -> list[Configuration]:
    """Each router with one decision changed at a time, at the configuration's own values."""
    return [
        (variant(b, m), dict(changes))
        for b in backbones
        for m in MIXTURES
        for changes in KNOBS.get(m, ({},))
    ]


ALONE = "vanilla"  # the name of a backbone without a mixture in --variants
UNTUNED = ("knobs",)  # tuning would set the keys that these compare

EXPERIMENTS = {
    function.__name__: function
    for function in (table1, table2, length, experts, alphas, routers, knobs)
}


def plan(
    experiment: str,
    backbones: Sequence[str] = (),
    variants: Sequence[str] = (),
    own: Sequence[str] = (),
) -> list[Planned]:
    """The configurations of an experiment.

    Args:
        experiment: a key of ``EXPERIMENTS``.
        backbones: the backbones to take; empty takes all that are registered. Baselines stay in.
        variants: the variants of the backbones, ``vanilla`` or a mixture; empty takes all.
        own: the backbones of the user, which ``backbones`` may name.

    Raises:
        UserError: an unknown backbone or variant, or one that the experiment does not have.
    """
    _require_known(experiment, "backbones", backbones, [*BACKBONES, *own])
    found = EXPERIMENTS[experiment](backbones or list(BACKBONES))
    cells = [Planned(experiment, model, varied) for model, varied in found]
    has = list(dict.fromkeys(_variant(c) for c in cells if c.model not in BASELINES))
    _require_known(experiment, "variants", variants, has)
    return [c for c in cells if c.model in BASELINES or _variant(c) in (variants or has)]


def _variant(cell: Planned) -> str:
    """The name of a planned model's variant in ``--variants``."""
    return mixture_of(cell.model) or ALONE


def distinct(cells: list[Planned], longest: int | None) -> list[Planned]:
    """The configurations that give different runs on histories of at most ``longest`` items.

    Once ``max_len`` holds the longest history, larger values change nothing. If the smallest value does,
    there is nothing to compare. None stands for an unknown length.
    """
    if longest is None:
        return cells
    apart = LENGTHS[: 1 + sum(n < longest for n in LENGTHS)]
    kept = apart if len(apart) > 1 else ()
    return [c for c in cells if "max_len" not in c.varied or c.varied["max_len"] in kept]


def _require_known(experiment: str, flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"--{flag} {name}: {experiment} has {', '.join(known)}{did_you_mean(name, known)}"
            )
