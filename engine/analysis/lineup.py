"""The order of models in tables and figures, and their names in a table.

The registry's order comes first. Models that this checkout does not know come last: results may come
from another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from model_zoo.registry import (
    BACKBONES,
    BASELINES,
    MIXTURES,
    VANILLA,
    backbone_of,
    in_order,
    label,
    mixture_of,
    variant,
)


def ordered_backbones(models: Iterable[str]) -> list[str]:
    """The backbones and baselines that models are or are variants of."""
    return in_order(map(backbone_of, models), [*BACKBONES, *BASELINES])


def ordered_mixtures(models: Iterable[str]) -> list[str]:
    """The mixtures of models; a vanilla model or a baseline counts as ``VANILLA``."""
    return in_order(map(mixture_of, models), [VANILLA, *MIXTURES])


def ordered_models(models: Iterable[str]) -> list[str]:
    """Distinct models: each backbone with its variants."""
    known = set(models)
    return [
        model
        for backbone in ordered_backbones(known)
        for mixture in ordered_mixtures(known)
        if (model := variant(backbone, mixture)) in known
    ]


def fullest_backbone(models: Iterable[str]) -> list[str]:
    """The models with a mixture on the backbone that has the most of these; the first of equal backbones.

    It is what a figure with room for one backbone shows; empty if no model has a mixture.
    """
    routed = [model for model in ordered_models(models) if mixture_of(model)]
    count = Counter(map(backbone_of, routed))
    return [model for model in routed if backbone_of(model) == max(count, key=count.__getitem__)]


def row_labels(model: str) -> tuple[str, str]:
    """The two labels of a model's row: backbone and variant; a baseline has no variant."""
    name = label(backbone_of(model))
    return name, "" if model in BASELINES else label(mixture_of(model))
