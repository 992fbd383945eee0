"""The configurations that each experiment of the paper compares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model_zoo.registry import BACKBONES, BASELINES, MIXTURES, OURS, VANILLA, variant

from ..common.errors import UserError, did_you_mean
from ..config.read import read_yaml

ALONE = "vanilla"  # the name of a backbone without a mixture in --variants
LENGTHS = (100, 200, 300, 400)  # paper, figure 6
EXPERTS = (0, 2, 4, 6, 8)  # paper, figure 6; 0 is the vanilla backbone
# Paper, figure 7: all fusion weights in steps of 0.2 whose sum is at most 1.
ALPHAS = [{"alpha_item": i / 5, "alpha_window": w / 5} for i in range(6) for w in range(6 - i)]
AS_IT_IS: Sequence[dict[str, Any]] = ({},)
KNOBS = read_yaml(Path(__file__).with_name("knobs.yaml"))

Rows = Mapping[str, Sequence[dict[str, Any]]]
"""The mixtures that each backbone gets, and for each mixture the keys that its configurations set."""

ROUTERS: Rows = dict.fromkeys(MIXTURES, AS_IT_IS)
EXPERIMENTS: dict[str, tuple[str, Rows]] = {
    "table1": ("Every backbone alone and with every router.", {VANILLA: AS_IT_IS, **ROUTERS}),
    "table2": ("The baselines of several scales, and MoS on every backbone.", {OURS: AS_IT_IS}),
    "length": (
        "Vanilla and MoS on longer and longer histories.",
        {mixture: [{"max_len": n} for n in LENGTHS] for mixture in (VANILLA, OURS)},
    ),
    "experts": ("MoS with more and more experts.", {OURS: [{"num_experts": n} for n in EXPERTS]}),
    "alphas": ("MoS over the triangle of fusion weights.", {OURS: ALPHAS}),
    "routers": ("Every router, to look into.", ROUTERS),
    "knobs": (
        "Each router with one decision changed at a time, at the configuration's own values.",
        {**ROUTERS, **KNOBS},
    ),
}
WITH_BASELINES = ("table2",)
UNTUNED = ("knobs",)  # tuning would set the keys that these compare


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
    experiment: str,
    backbones: Sequence[str] = (),
    variants: Sequence[str] = (),
    own: Sequence[str] = (),
) -> list[Planned]:
    """The configurations that an experiment compares.

    Args:
        experiment: a key of ``EXPERIMENTS``.
        backbones: the backbones to take; empty takes all that are registered. Baselines stay in.
        variants: the variants of the backbones, ``vanilla`` or a mixture; empty takes all.
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
        if not variants or name in variants
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


def _require_known(experiment: str, flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"--{flag} {name}: {experiment} has {', '.join(known)}{did_you_mean(name, known)}"
            )
