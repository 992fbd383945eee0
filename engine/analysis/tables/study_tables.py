"""The tables of a study: quality (Tables 1 and 2 of the paper, knobs), cost, and tuning."""

from __future__ import annotations

import json
from statistics import median
from typing import Any, NamedTuple

from ..results import (
    BACKBONES,
    BASELINES,
    METRICS,
    VARIANTS,
    Cell,
    DatasetResults,
    label,
    on_device,
    row_labels,
    split_name,
    usual_device,
    variant,
)
from .comparison import Group
from .grid import Entry, NothingToShow, Table, points, settings
from .metric_block import Plan
from .metric_table import metric_table


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


def table1(results: list[DatasetResults]) -> Table:
    """Each backbone that has runs, without and with each mixture; gains are over the vanilla backbone.

    Raises:
        NothingToShow: there is no such run.
    """
    parts = _by_model(results, "table1")
    backbones = _backbones_of(parts)
    plan = Plan(
        title="Table 1: backbones and mixtures",
        split="test",
        groups=[Group(tuple(variant(b, m) for m in VARIANTS), (b,)) for b in backbones],
        labels={variant(b, m): (b, label(m)) for b in backbones for m in VARIANTS},
        headings=("Backbone", "Variant"),
        notes=("Gains are over the vanilla backbone; ranks and marks are within a backbone.",),
        paper="table1",
        mean_ranks=len(parts) > 1,
    )
    return metric_table(plan, parts)


def table2(results: list[DatasetResults]) -> Table:
    """MoS models and published baselines; gains are over the best baseline.

    Raises:
        NothingToShow: there is no such run.
    """
    parts = _by_model(results, "table2")
    mos = tuple(variant(backbone, "MoS") for backbone in _backbones_of(parts))
    plan = Plan(
        title="Table 2: MoS and models of long histories",
        split="test",
        groups=[Group((*BASELINES, *mos), BASELINES)],
        labels={m: ("Baseline", m) for m in BASELINES} | {m: ("MoS", m) for m in mos},
        headings=("Kind", "Model"),
        notes=("Gains are over the best baseline: that with the largest mean in the column.",),
        paper="table2",
    )
    return metric_table(plan, parts)


def knobs(results: list[DatasetResults]) -> Table:
    """What single keys of the configuration change; on validation data, since keys are chosen by it.

    Raises:
        NothingToShow: there is no such run.
    """
    parts = _with_experiment(results, "knobs")
    cells = [cell for data in parts for cell in data.experiment("knobs")]
    labels = {}
    for model in dict.fromkeys(cell.model for cell in cells):
        labels[model] = (model, "reference")
        own = [cell for cell in cells if cell.model == model and cell.varied]
        labels |= {_knob(cell): (model, settings(cell.varied)) for cell in own}
    models = dict.fromkeys(cell.model for cell in cells)
    plan = Plan(
        title="Knobs: what changed keys are worth",
        split="valid",
        groups=[
            Group(tuple(name for name, (of, _) in labels.items() if of == model), (model,))
            for model in models
        ],
        labels=labels,
        headings=("Model", "Changed"),
        notes=("Gains are over the reference, which changes nothing.",),
    )
    return metric_table(plan, [(d, {_knob(c): c for c in d.experiment("knobs")}) for d in parts])


def cost(results: list[DatasetResults]) -> Table:
    """What the models of Tables 1 and 2 cost: medians over seeds, for speed and memory over those on the
    model's most usual device, and ratios to the vanilla backbone on the same.

    Raises:
        NothingToShow: there is no such run.
    """
    parts = [data for data in results if data.experiment("table1") or data.experiment("table2")]
    if not parts:
        raise _nothing(results, "table1")
    models = [
        model
        for model in [*(variant(b, m) for b in BACKBONES for m in VARIANTS), *BASELINES]
        if any(_table_cell(data, model) for data in parts)
    ]
    rows, records = [], []
    for model in models:
        backbone, mixture = split_name(model)
        row = [Entry(text) for text in row_labels(model)]
        for data in parts:
            cell = _table_cell(data, model)
            vanilla = _table_cell(data, backbone) if mixture else None
            for quantity in COSTS:
                if cell is None:
                    row.append(Entry())
                    continue
                record = _cost_record(data, cell, vanilla, quantity)
                row.append(_cost_entry(record, quantity, cell))
                records.append(record)
            row.append(_device_entry(cell))
        rows.append(tuple(row))
    headings = [*(quantity.heading for quantity in COSTS), "device of speed and memory"]
    return Table(
        title="Cost",
        header=(
            (("", 2), *((data.dataset_id, len(headings)) for data in parts)),
            tuple((text, 1) for text in ["Model", "Variant", *headings * len(parts)]),
        ),
        labels=2,
        rows=tuple(rows),
        notes=(
            "Medians over seeds; of speed and memory with the least and the most, over the runs on the "
            "device that most were on. Below them the ratio to the vanilla backbone; of speed and memory to "
            "its runs on the same device, if there are any.",
            "FLOPs grow with the experts that are read per item: k is router_topk, which tuning chose; MoS reads k "
            "item experts and k window experts.",
            "Speed and memory on different devices, or beside other work, are not comparable.",
        ),
        footnotes=(),
        records=tuple(records),
    )


def tuning(results: list[DatasetResults]) -> Table:
    """The trials that chose the hyper-parameters, with their validation metrics.

    Raises:
        NothingToShow: there is no trial.
    """
    trials = [(data.dataset_id, trial) for data in results for trial in data.tuning]
    if not trials:
        raise NothingToShow(
            "the results have no trials of tuning; engine.study writes them to study.json"
        )
    rows, records = [], []
    for dataset_id, trial in trials:
        valid = {metric: trial["valid"].get(metric) for metric in METRICS}
        texts = [dataset_id, trial["model"], settings(trial["tuned"]), str(trial["seed"])]
        rows.append(
            (
                *map(Entry, texts),
                *(Entry(points(value), value) for value in valid.values()),
                Entry("yes" if trial["chosen"] else ""),
            )
        )
        own = {key: trial[key] for key in ("model", "expid", "seed", "chosen")}
        tuned = json.dumps(trial["tuned"])
        records.append({"dataset_id": dataset_id, **own, "tuned": tuned, **valid})
    return Table(
        title="Tuning",
        header=(tuple((t, 1) for t in ["Data set", "Model", "Tuned", "Seed", *METRICS, "Chosen"]),),
        labels=3,
        rows=tuple(rows),
        notes=("Metrics are on validation data, in points (x100); test data took no part.",),
        footnotes=(),
        records=tuple(records),
    )


def _nothing(results: list[DatasetResults], experiment: str) -> NothingToShow:
    folders = ", ".join(str(data.folder) for data in results)
    return NothingToShow(
        f"{folders}: no finished run of {experiment}; python -m engine.study {experiment} makes them"
    )


def _with_experiment(results: list[DatasetResults], name: str) -> list[DatasetResults]:
    parts = [data for data in results if data.experiment(name)]
    if not parts:
        raise _nothing(results, name)
    return parts


def _by_model(
    results: list[DatasetResults], name: str
) -> list[tuple[DatasetResults, dict[str, Cell]]]:
    parts = _with_experiment(results, name)
    return [(data, {cell.model: cell for cell in data.experiment(name)}) for data in parts]


def _backbones_of(parts: list[tuple[DatasetResults, dict[str, Cell]]]) -> list[str]:
    """The backbones with a run on any data set, in the paper's order: the others get no empty rows."""
    present = {split_name(model)[0] for _, cells in parts for model in cells}
    return [backbone for backbone in BACKBONES if backbone in present]


def _knob(cell: Cell) -> str:
    """A name of the cell; that of the reference is its model's."""
    return f"{cell.model} {json.dumps(cell.varied)}" if cell.varied else cell.model


def _table_cell(data: DatasetResults, model: str) -> Cell | None:
    return data.cell("table1", model) or data.cell("table2", model)


def _costs(cell: Cell, quantity: Quantity, device: str) -> list[float]:
    """By run; of what depends on the device only those on one."""
    runs = cell.runs.values()
    return [run[quantity.key] for run in (on_device(runs, device) if quantity.by_device else runs)]


def _cost_record(
    data: DatasetResults, cell: Cell, vanilla: Cell | None, quantity: Quantity
) -> dict[str, Any]:
    device = usual_device(cell.runs.values())
    values = _costs(cell, quantity, device)
    reference = _costs(vanilla, quantity, device) if vanilla else []
    return {
        "dataset_id": data.dataset_id,
        "model": cell.model,
        "quantity": quantity.key,
        "median": median(values),
        "least": min(values),
        "most": max(values),
        "n": len(values),
        "ratio": median(values) / median(reference) if reference else None,
        "device": device if quantity.by_device else "",
    }


def _cost_entry(record: dict[str, Any], quantity: Quantity, cell: Cell) -> Entry:
    text, least, most = (
        f"{record[key] / quantity.unit:,.{quantity.decimals}f}"
        for key in ("median", "least", "most")
    )
    below = [] if record["ratio"] is None else [f"×{record['ratio']:.2f}"]
    if quantity.by_device and least != most:
        below.append(f"{least} to {most}")
    k = cell.settings.get("router_topk")
    if quantity.key == "flops_per_sample" and k is not None:
        below.append(f"k = {k}")
    return Entry(text, record["median"], secondary=tuple(below))


def _device_entry(cell: Cell | None) -> Entry:
    """That of speed and memory; and of how many runs, if not of all."""
    if cell is None:
        return Entry()
    device = usual_device(cell.runs.values())
    n = len(on_device(cell.runs.values(), device))
    few = (f"{n} of {len(cell.runs)} runs",) if n < len(cell.runs) else ()
    return Entry(device, secondary=few)
