"""What figures take from the results: metrics, means over seeds, and the probes to show."""

from collections.abc import Iterable
from typing import Any

from model_zoo.registry import OURS, mixture_of

from ..results import METRICS, Cell, DatasetResults
from ..tables.comparison import mean_std
from ..wording import ordered_models

Probe = dict[str, Any]


def metrics_of(cells: Iterable[Cell]) -> list[str]:
    """The paper's metrics that every run has; none without a run, or where one lacks the AUC."""
    tests = [run["metrics"]["test"] for cell in cells for run in cell.runs.values()]
    found = [metric for metric in METRICS if tests and all(metric in test for test in tests)]
    return found if "AUC" in found else []


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation of one value is 0."""
    mean, std = mean_std(values)
    return mean, std or 0.0


def in_points(cell: Cell, metric: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds of a test metric, x100 as in the tables."""
    return spread(100 * value for value in cell.values(metric).values())


def probes_of(results: DatasetResults) -> dict[str, list[Probe]]:
    """The probes of each model, by seed; models in the paper's order."""
    found: dict[str, list[Probe]] = {}
    for probe in sorted(results.probes.values(), key=lambda probe: probe["about"]["seed"]):
        found.setdefault(probe["about"]["model"], []).append(probe)
    return {model: found[model] for model in ordered_models(found)}


def typical_probe(results: DatasetResults) -> Probe | None:
    """The probe that stands for a data set: of MoS if there is one, the first backbone, lowest seed."""
    probes = probes_of(results)
    first = min(probes, key=lambda model: mixture_of(model) != OURS, default=None)
    return probes[first][0] if first else None


def whose(probe: Probe) -> str:
    """The run of a probe, for a caption."""
    return "{model} on {dataset_id}, {split} split, seed {seed}".format(**probe["about"])
