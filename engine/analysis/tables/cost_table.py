"""What the models of Tables 1 and 2 cost: parameters, FLOPs, speed and memory."""

from collections.abc import Collection, Iterable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from model_zoo.registry import backbone_of, mixture_of

from ..results import Cell, DatasetResults, Run
from ..wording import on_device, ordered_models, row_labels, sentences, share_on, usual_device
from .grid import Column, Entry, Table, grouped


class Quantity(NamedTuple):
    """What a run costs: its key in the result, and how the table shows it."""

    key: str
    heading: str
    by_device: bool  # only comparable on the same device
    unit: float = 1  # of the table, in that of the result
    decimals: int = 0

    def show(self, value: float) -> str:
        """A value in the table's unit."""
        return f"{value / self.unit:,.{self.decimals}f}"

    def values(self, runs: Collection[Run], device: str) -> list[float]:
        """The values of runs where they are known, and on one device where only these compare."""
        same = on_device(runs, device) if self.by_device else runs
        return [run[self.key] for run in same if run.get(self.key) is not None]


FLOPS = Quantity("flops_per_sample", "MFLOPs per sample", False, 1e6, 2)
COSTS = (
    Quantity("num_parameters", "parameters", False),
    FLOPS,
    Quantity("train_samples_per_s", "training samples/s", True),
    Quantity("test_samples_per_s", "test samples/s", True),
    Quantity("serving_ms", "ms for 100 candidates", True, decimals=1),
    Quantity("peak_memory_bytes", "peak memory, MB", True, 1e6),
)


def measured(runs: Iterable[Run]) -> list[Quantity]:
    """The quantities that some run has; older runs lack some."""
    runs = list(runs)
    return [q for q in COSTS if any(run.get(q.key) is not None for run in runs)]


Cells = dict[str, Cell]  # the cells of Tables 1 and 2 on one data set, by model


def cost(results: list[DatasetResults]) -> Table | None:
    """Medians over seeds and ratios to the vanilla backbone; a row for each model with a run.

    Speed and memory are those of the runs on the device that most runs of the model were on. The
    table is None if no model of Tables 1 and 2 has a run.
    """
    parts = [(data.dataset_id, _cells(data)) for data in results]
    models = ordered_models(model for _, cells in parts for model in cells)
    if not models:
        return None
    costs = measured(r for _, cells in parts for c in cells.values() for r in c.runs.values())
    columns, notes = [], []
    for dataset_id, cells in parts:
        columns += [Column(dataset_id, q.heading, partial(_entry, cells, q)) for q in costs]
        devices = {run["device"] for cell in cells.values() for run in cell.runs.values()}
        if len(devices) > 1:
            columns += [Column(dataset_id, "device of speed and memory", partial(_device, cells))]
        elif devices:
            notes += sentences("one_device", dataset=dataset_id, device=devices.pop())
    rows = {model: row_labels(model) for model in models}
    ran = [(model, name, cells) for model in models for name, cells in parts if model in cells]
    records = [{"dataset_id": n, **_line(cells, m, q)} for m, n, cells in ran for q in costs]
    below = [*sentences("cost"), *notes]
    return grouped("Cost", ["Model", "Variant"], rows, columns, below, records)


def _cells(data: DatasetResults) -> Cells:
    return {cell.model: cell for name in ("table2", "table1") for cell in data.experiment(name)}


def _line(cells: Cells, model: str, quantity: Quantity) -> dict[str, Any]:
    """One line of the CSV file."""
    runs, backbone = cells[model].runs.values(), cells.get(backbone_of(model))
    device = usual_device(runs)
    own, vanilla = quantity.values(runs, device), []
    if backbone and mixture_of(model):
        vanilla = quantity.values(backbone.runs.values(), device)
    return {
        "model": model,
        "quantity": quantity.key,
        "median": median(own) if own else None,
        "least": min(own, default=None),
        "most": max(own, default=None),
        "n": len(own),
        "ratio": median(own) / median(vanilla) if own and vanilla else None,
        "device": device if quantity.by_device else "",
    }


def _entry(cells: Cells, quantity: Quantity, model: str) -> Entry:
    found = _line(cells, model, quantity) if model in cells else {"n": 0}
    if not found["n"]:
        return Entry()
    below = [] if found["ratio"] is None else [f"×{found['ratio']:.2f}"]
    least, most = (quantity.show(found[end]) for end in ("least", "most"))
    if quantity.by_device and least != most:
        below.append(f"{least} to {most}")
    if quantity is FLOPS:
        below += _about_flops(cells[model])
    return Entry(quantity.show(found["median"]), found["median"], secondary=tuple(below))


def _about_flops(cell: Cell) -> list[str]:
    """Their standard error over the samples that they were counted on, if it is known, and k."""
    errors = [run.get("flops_per_sample_error") for run in cell.runs.values()]
    known = [error for error in errors if error is not None]
    k = cell.settings.get("router_topk")
    lines = [f"± {FLOPS.show(median(known))}"] if known else []
    return lines + ([] if k is None else [f"k = {k}"])


def _device(cells: Cells, model: str) -> Entry:
    """The device of speed and memory, and how many runs were on it, if not all."""
    if model not in cells:
        return Entry()
    runs = cells[model].runs.values()
    device = usual_device(runs)
    return Entry(device, secondary=tuple(filter(None, [share_on(runs, device)])))
