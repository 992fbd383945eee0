"""Which of several models a figure with room for one backbone shows; always by rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..results import BACKBONES, METRICS, MIXTURES, Cell, DatasetResults, split_name, variant
from . import style

Probe = dict[str, Any]


def fullest_backbone(models: Iterable[str]) -> str | None:
    """The backbone with the most mixtures among the models, of equal ones the first in the paper;
    None where none has any."""
    known = set(models)
    count = {b: sum(variant(b, m) in known for m in MIXTURES) for b in BACKBONES}
    best = max(BACKBONES, key=count.__getitem__)
    return best if count[best] else None


def metrics_of(cells: Iterable[Cell]) -> list[str]:
    """The paper's metrics that every run has."""
    runs = [run for cell in cells for run in cell.runs.values()]
    return [m for m in METRICS if all(m in run["metrics"]["test"] for run in runs)]


def in_points(cell: Cell, metric: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds of a test metric, x100 as in the tables; the deviation of
    one seed is 0."""
    mean, std = style.mean_and_std(cell.values(metric).values())
    return 100 * mean, 100 * std


def probes_of(results: DatasetResults) -> dict[str, list[Probe]]:
    """The probes of each model, by seed; models in the paper's order."""
    found: dict[str, list[Probe]] = {}
    for probe in sorted(results.probes.values(), key=lambda probe: probe["about"]["seed"]):
        found.setdefault(probe["about"]["model"], []).append(probe)
    order = [variant(b, m) for b in BACKBONES for m in ("", *MIXTURES)]
    names = [name for name in order if name in found] + sorted(found.keys() - set(order))
    return {name: found[name] for name in names}


def typical_probe(results: DatasetResults) -> Probe | None:
    """The probe that stands for a data set: of MoS if there is one, the first backbone, lowest seed."""
    probes = probes_of(results)
    with_mos = [name for name in probes if split_name(name)[1] == "MoS"]
    names = with_mos or list(probes)
    return probes[names[0]][0] if names else None


def whose(probe: Probe) -> str:
    """The run of a probe, for a caption."""
    about = probe["about"]
    return (
        f"{about['model']} on {about['dataset_id']}, {about['split']} split, seed {about['seed']}"
    )
