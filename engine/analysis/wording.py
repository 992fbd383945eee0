"""The words of tables and figures: models in order and by name, conditions of runs, notes, and sentences.

The registry's order of models comes first. Models that this checkout does not know come last: results may
come from another one. The sentences are in ``sentences.yaml`` beside this file.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from statistics import mode
from typing import Any

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

from ..config.read import read_yaml
from .results import Cell, Run


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


def conditions(cells: Collection[Cell]) -> list[str]:
    """What the runs of some cells have in common, in words.

    These are the length of the histories, the column whose groups metrics are of, where it is not always
    the user, and the number of trials.
    """
    found = [f"max_len {span(cell.first_run['params']['max_len'] for cell in cells)}"]
    groups = {cell.first_run["params"].get("group_id", "user_index") for cell in cells}
    if "group_index" in groups:
        found.append(f"grouped by {' or '.join(sorted(groups))}")
    budgets = {cell.budget for cell in cells}
    if 0 not in budgets:
        found.append("untuned" if budgets == {1} else f"{span(budgets)} trials each")
    return found


def span(values: Iterable[int]) -> str:
    """``3 to 5`` from the least and the most of some numbers; ``3`` if all are alike."""
    found = set(values)
    return " to ".join(str(value) for value in sorted({min(found), max(found)}))


def machine(run: Run) -> str:
    """Name the device. On a CPU the number of threads moves the last digits, so it is named too."""
    threads = run.get("threads") if run["device"] == "cpu" else None
    return f"{run['device']}, {threads} thread{'s' * (threads != 1)}" if threads else run["device"]


def usual_device(runs: Collection[Run]) -> str:
    """The device that most runs were on; the first by name of several."""
    return mode(sorted(run["device"] for run in runs))


def on_device(runs: Collection[Run], device: str) -> list[Run]:
    """The runs on a device: their speed and memory can be compared."""
    return [run for run in runs if run["device"] == device]


def share_on(runs: Collection[Run], device: str) -> str:
    """How many of some runs were on a device, such as ``2 of 3 runs``; empty if all were."""
    count = len(on_device(runs, device))
    return f"{count} of {len(runs)} runs" if count < len(runs) else ""


def oddities(cell: Cell, name: str, reference: Cell | None) -> tuple[str, ...]:
    """The notes on the runs of a cell, which a table calls by this name, and of its reference."""
    devices = device_note(cell, reference) if reference else ""
    return tuple(filter(None, (batch_note(cell, name), devices, limit_note(cell))))


def device_note(cell: Cell, reference: Cell) -> str:
    """A note on the runs of the same seed that were on different devices; empty without such runs."""
    seeds = sorted(cell.runs.keys() & reference.runs.keys())
    devices = {seed: (cell.runs[seed]["device"], reference.runs[seed]["device"]) for seed in seeds}
    mixed = {seed: pair for seed, pair in devices.items() if pair[0] != pair[1]}
    if not mixed:
        return ""
    own, others = (" and ".join(sorted(set(names))) for names in zip(*mixed.values(), strict=True))
    which = ", ".join(map(str, mixed))
    return f"{cell.model} on {own}, {reference.model} on {others}: seed {which}"


def batch_note(cell: Cell, name: str) -> str:
    """A note on runs with a smaller batch, which the tuner halves when memory runs out; empty without any.

    Args:
        cell: has runs.
        name: what the table calls the cell.
    """
    sizes = {seed: run["params"]["batch_size"] for seed, run in cell.runs.items()}
    full = max(sizes.values())
    small = [f"seed {seed} of {size}" for seed, size in sizes.items() if size < full]
    return f"{name}: batches of {full}, {', '.join(small)} (out of memory)" if small else ""


def limit_note(cell: Cell) -> str:
    """A note on the runs that ended at the limit of epochs with the best epoch last; empty without any."""
    lasts = [(run["stage_log"][-1], run["params"].get("epochs", 1)) for run in cell.runs.values()]
    count = sum(last["best"] and last["epoch"] >= limit for last, limit in lasts)
    few = f"{count} of {len(lasts)} runs ended at their limit of epochs, the last the best"
    return f"{few}: longer training may give more" if count else ""


def sentences(*names: str, **fields: Any) -> list[str]:
    """The sentences of some tables or figures, in order, with fields filled in."""
    known = read_yaml(Path(__file__).with_name("sentences.yaml"))
    return [sentence.format(**fields) for name in names for sentence in known[name]]
