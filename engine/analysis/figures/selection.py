"""What figures take from the results: metrics, means over seeds, and the probes to show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model_zoo.registry import OURS, mixture_of

from ..lineup import ordered_models
from ..results import METRICS, Cell, DatasetResults
from ..tables.significance import mean_std

Probe = dict[str, Any]


def metrics_of(cells: Iterable[Cell]) -> list[str]:
    """The paper's metrics that every run has."""
    runs = [run for cell in cells for run in cell.runs.values()]
    return [m for m in METRICS if all(m in run["metrics"]["test"] for run in runs)]


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation of one value is 0."""
    mean, std = mean_std(values)
    return mean, std or 0.0


def in_points(cell: Cell, metric: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds of a test metric, x100 as in the tables."""
    mean, std = spread(cell.values(metric).values())
    return 100 * mean, 100 * std


def probes_of(results: DatasetResults) -> dict[str, list[Probe]]:
    """The probes of each model, by seed; models in the paper's order."""
    found: dict[str, list[Probe]] = {}
    for probe in sorted(results.probes.values(), key=lambda probe: probe["about"]["seed"]):
        found.setdefault(probe["about"]["model"], []).append(probe)
    return {model: found[model] for model in ordered_models(found)}


def typical_probe(results: DatasetResults) -> Probe | None:
    """The probe that stands for a data set: of MoS if there is one, the first backbone, lowest seed."""
    probes = probes_of(results)
    names = [name for name in probes if mixture_of(name) == OURS] or list(probes)
    return probes[names[0]][0] if names else None


def whose(probe: Probe) -> str:
    """Names the run of a probe, for a caption."""
    about = probe["about"]
    return (
        f"{about['model']} on {about['dataset_id']}, {about['split']} split, seed {about['seed']}"
    )
