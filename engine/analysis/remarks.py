"""What stands beside numbers: the conditions of runs, notes where they differ, and sentences.

The file ``sentences.yaml`` beside this one has the sentences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from statistics import mode
from typing import Any

from ..config.read import read_yaml
from .results import Cell, Run


def conditions(cells: Collection[Cell]) -> list[str]:
    """The length of the histories of some cells with runs, and the number of trials that tuned them."""
    found = [f"max_len {span(cell.first_run['params']['max_len'] for cell in cells)}"]
    budgets = {cell.budget for cell in cells}
    if 0 not in budgets:
        found.append("untuned" if budgets == {1} else f"{span(budgets)} trials each")
    return found


def span(values: Iterable[int]) -> str:
    """``3 to 5`` from the least and the most of some numbers; ``3`` if all are alike."""
    found = set(values)
    return " to ".join(str(value) for value in sorted({min(found), max(found)}))


def usual_device(runs: Collection[Run]) -> str:
    """The device that most runs were on; the first by name of several."""
    return mode(sorted(run["device"] for run in runs))


def on_device(runs: Collection[Run], device: str) -> list[Run]:
    """The runs on a device: their speed and memory can be compared."""
    return [run for run in runs if run["device"] == device]


def device_note(cell: Cell, reference: Cell) -> str:
    """A note on the runs of the same seed that were on different devices; empty without such runs."""
    devices = {
        seed: (cell.runs[seed]["device"], reference.runs[seed]["device"])
        for seed in sorted(cell.runs.keys() & reference.runs.keys())
    }
    mixed = {seed: pair for seed, pair in devices.items() if pair[0] != pair[1]}
    if not mixed:
        return ""
    own, others = (" and ".join(sorted(set(names))) for names in zip(*mixed.values(), strict=True))
    seeds = ", ".join(map(str, mixed))
    return f"{cell.model} on {own}, {reference.model} on {others}: seed {seeds}"


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
