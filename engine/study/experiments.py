"""Which configurations each experiment of the paper compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from model_zoo.registry import BACKBONES, BASELINES, MIXTURES, backbone_of, mixture_of, variant

from ..common.errors import UserError, did_you_mean

LENGTHS = (100, 200, 300, 400)  # paper, figure 6
EXPERTS = (0, 2, 4, 6, 8)  # paper, figure 6; 0 is the vanilla backbone
FIFTHS = range(6)  # paper, figure 7: weights in steps of 0.2
# What the papers leave open, changed from the literal configuration, which is the first.
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
    "MoS": (
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


class Planned(NamedTuple):
    """A configuration that an experiment needs: a model, and the keys that are set in it."""

    experiment: str
    model: str
    varied: dict[str, Any]


def table1() -> list[Planned]:
    """Every backbone alone and with every router."""
    return [Planned("table1", variant(b, m), {}) for b in BACKBONES for m in ("", *MIXTURES)]


def table2() -> list[Planned]:
    """The baselines that fuse several scales, and MoS on every backbone."""
    models = [*BASELINES, *(variant(b, "MoS") for b in BACKBONES)]
    return [Planned("table2", model, {}) for model in models]


def length() -> list[Planned]:
    """Vanilla and MoS on longer and longer histories."""
    return [
        Planned("length", variant(b, m), {"max_len": n})
        for b in BACKBONES
        for m in ("", "MoS")
        for n in LENGTHS
    ]


def experts() -> list[Planned]:
    """MoS with more and more experts."""
    return [
        Planned("experts", variant(b, "MoS"), {"num_experts": n})
        for b in BACKBONES
        for n in EXPERTS
    ]


def alphas() -> list[Planned]:
    """MoS over the triangle of fusion weights."""
    return [
        Planned("alphas", variant(b, "MoS"), {"alpha_item": i / 5, "alpha_window": w / 5})
        for b in BACKBONES
        for i in FIFTHS
        for w in FIFTHS
        if i + w <= 5
    ]


def routers() -> list[Planned]:
    """Every router, to look into."""
    return [Planned("routers", variant(b, m), {}) for b in BACKBONES for m in MIXTURES]


def knobs() -> list[Planned]:
    """Each router with one decision changed at a time, at the configuration's own values."""
    return [
        Planned("knobs", variant(b, m), dict(changes))
        for b in BACKBONES
        for m, knobs_of_m in KNOBS.items()
        for changes in knobs_of_m
    ]


VANILLA = "vanilla"  # what --variants calls a backbone alone
UNTUNED = ("knobs",)  # tuning would set the very keys that are compared

EXPERIMENTS = {
    function.__name__: function
    for function in (table1, table2, length, experts, alphas, routers, knobs)
}


def plan(
    experiment: str, backbones: Sequence[str] = (), variants: Sequence[str] = ()
) -> list[Planned]:
    """The configurations of an experiment.

    Args:
        backbones: only these; empty is all. Baselines are always in it.
        variants: only these of the backbones, ``vanilla`` or a mixture; empty is all.

    Raises:
        UserError: an unknown backbone or variant, or one that the experiment does not have.
    """
    cells = EXPERIMENTS[experiment]()
    names = (mixture_of(cell.model) or VANILLA for cell in cells if cell.model not in BASELINES)
    has = list(dict.fromkeys(names))
    _require_known(experiment, "backbones", backbones, BACKBONES)
    _require_known(experiment, "variants", variants, has)

    def wanted(model: str) -> bool:
        chosen = backbone_of(model) in (backbones or BACKBONES)
        return chosen and (mixture_of(model) or VANILLA) in (variants or has)

    return [cell for cell in cells if cell.model in BASELINES or wanted(cell.model)]


def distinct(cells: list[Planned], longest: int | None) -> list[Planned]:
    """Without those that others repeat where ``longest`` items are the longest history (None: unknown).

    The first ``max_len`` that holds it gives what longer ones do; if it is the shortest, there is
    nothing to compare.
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
