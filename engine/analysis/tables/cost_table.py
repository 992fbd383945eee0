"""What the models of Tables 1 and 2 cost: parameters, FLOPs, speed and memory."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from model_zoo.registry import backbone_of, mixture_of

from ..conditions import on_device, usual_device
from ..lineup import ordered_models, row_labels
from ..results import Cell, DatasetResults
from .grid import Entry, Table, grouped_header
from .quality_tables import nothing


class Quantity(NamedTuple):
    """What a run costs: its key in the result, and how the table shows it."""

    key: str
    heading: str
    by_device: bool  # only comparable on the same device
    unit: float = 1  # of the table, in that of the result
    decimals: int = 0


COSTS = (
    Quantity("num_parameters", "parameters", False),
    Quantity("flops_per_sample", "MFLOPs per sample", False, 1e6, 2),
    Quantity("train_samples_per_s", "training samples/s", True),
    Quantity("test_samples_per_s", "test samples/s", True),
    Quantity("peak_memory_bytes", "peak memory, MB", True, 1e6),
)
NOTES = (
    "Medians over seeds; of speed and memory with the least and the most, over the runs on the "
    "device that most were on. Below them the ratio to the vanilla backbone; of speed and memory to "
    "its runs on the same device, if there are any.",
    "FLOPs grow with the experts that are read per item: k is router_topk, which tuning chose; MoS reads k "
    "item experts and k window experts.",
    "Speed and memory on different devices, or beside other work, are not comparable.",
)
FLOPS_ERROR = (
    "± below FLOPs: the standard error of the mean over the samples that they were counted on."
)


def cost(results: list[DatasetResults]) -> Table:
    """Medians over seeds and ratios to the vanilla backbone; a row for each model with a run.

    Speed and memory are those of the runs on the device that most runs of the model were on.

    Raises:
        NothingToShow: no model of Tables 1 and 2 has a run.
    """
    cells = [
        {c.model: c for name in ("table2", "table1") for c in data.experiment(name)}
        for data in results
    ]
    parts = [(data, own) for data, own in zip(results, cells, strict=True) if own]
    if not parts:
        raise nothing(results, "table1")
    rows, records = [], []
    for model in ordered_models(model for _, own in parts for model in own):
        row = [Entry(text) for text in row_labels(model)]
        for data, own in parts:
            if model not in own:
                row += [Entry()] * (len(COSTS) + 1)
                continue
            vanilla = own.get(backbone_of(model)) if mixture_of(model) else None
            for quantity in COSTS:
                records.append(_record(data.dataset_id, own[model], vanilla, quantity))
                row.append(_entry(records[-1], quantity, own[model]))
            row.append(_device_entry(own[model]))
        rows.append(tuple(row))
    headings = [*(quantity.heading for quantity in COSTS), "device of speed and memory"]
    groups = [(data.dataset_id, headings) for data, _ in parts]
    header = grouped_header(["Model", "Variant"], groups)
    errors = any(_flops_error(cell) is not None for _, own in parts for cell in own.values())
    notes = [*NOTES, *([FLOPS_ERROR] if errors else [])]
    return Table("Cost", header, 2, rows, notes, records=records)


def _values(cell: Cell, quantity: Quantity, device: str) -> list[float]:
    """The quantity of each run that has it; if it depends on the device, of the runs on this one."""
    runs = on_device(cell.runs.values(), device) if quantity.by_device else cell.runs.values()
    return [run[quantity.key] for run in runs if run[quantity.key] is not None]


def _record(
    dataset_id: str, cell: Cell, vanilla: Cell | None, quantity: Quantity
) -> dict[str, Any]:
    device = usual_device(cell.runs.values())
    values = _values(cell, quantity, device)
    reference = _values(vanilla, quantity, device) if vanilla else []
    return {
        "dataset_id": dataset_id,
        "model": cell.model,
        "quantity": quantity.key,
        "median": median(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
        "n": len(values),
        "ratio": median(values) / median(reference) if values and reference else None,
        "device": device if quantity.by_device else "",
    }


def _entry(record: dict[str, Any], quantity: Quantity, cell: Cell) -> Entry:
    if not record["n"]:
        return Entry()
    text, least, most = (
        f"{record[key] / quantity.unit:,.{quantity.decimals}f}"
        for key in ("median", "least", "most")
    )
    below = [] if record["ratio"] is None else [f"×{record['ratio']:.2f}"]
    if quantity.by_device and least != most:
        below.append(f"{least} to {most}")
    if (error := _flops_error(cell)) is not None and quantity.key == "flops_per_sample":
        below.append(f"± {error / quantity.unit:,.{quantity.decimals}f}")
    k = cell.settings.get("router_topk")
    if quantity.key == "flops_per_sample" and k is not None:
        below.append(f"k = {k}")
    return Entry(text, record["median"], secondary=tuple(below))


def _flops_error(cell: Cell) -> float | None:
    """The median standard error of the FLOPs over the samples they were counted on, if it is known."""
    errors = [run.get("flops_per_sample_error") for run in cell.runs.values()]
    known = [error for error in errors if error is not None]
    return median(known) if known else None


def _device_entry(cell: Cell) -> Entry:
    """The device of speed and memory, and how many runs were on it, if not all."""
    device = usual_device(cell.runs.values())
    n = len(on_device(cell.runs.values(), device))
    few = (f"{n} of {len(cell.runs)} runs",) if n < len(cell.runs) else ()
    return Entry(device, secondary=few)
