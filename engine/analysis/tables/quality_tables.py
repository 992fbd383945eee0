"""The tables of quality: Tables 1 and 2 of the paper, what single keys change, and the trials of tuning.

Each is None if no data set has what it shows.
"""

from __future__ import annotations

import json

from model_zoo.registry import OURS, backbone_of, label, mixture_of, variant

from ..lineup import ordered_backbones, ordered_models, row_labels
from ..remarks import sentences
from ..results import METRICS, Cell, DatasetResults
from .comparison import Group
from .grid import Entry, Table, header, points, settings
from .metric_table import Plan, metric_table
from .published import models_of

Parts = list[tuple[DatasetResults, dict[str, Cell]]]


def table1(results: list[DatasetResults]) -> Table | None:
    """Each backbone that has runs, without and with each mixture; gains are over the vanilla backbone."""
    parts = _parts(results, "table1")
    models = _models(parts)
    # What the paper has of a backbone has a row, so that it is seen where it was not run.
    wanted = ordered_models([*models, *models_of("table1")])
    of = {b: [m for m in wanted if backbone_of(m) == b] for b in ordered_backbones(models)}
    groups = [Group(tuple(of[b]), (b,)) for b in of]
    labels = {model: row_labels(model) for b in of for model in of[b]}
    title, headings = "Table 1: backbones and mixtures", ("Backbone", "Variant")
    plan = Plan("table1", title, groups, labels, headings, mean_ranks=len(parts) > 1)
    return metric_table(plan, parts)


def table2(results: list[DatasetResults]) -> Table | None:
    """MoS models and published baselines; gains are over the best baseline."""
    parts = _parts(results, "table2")
    models = _models(parts)
    plain = [model for model in [*models, *models_of("table2")] if not mixture_of(model)]
    baselines = tuple(ordered_models(plain))
    backbones = ordered_backbones(model for model in models if mixture_of(model))
    ours = tuple(variant(backbone, OURS) for backbone in backbones)
    groups = [Group((*baselines, *ours), baselines)]
    labels = {m: ("Baseline", m) for m in baselines} | {m: (label(OURS), m) for m in ours}
    title = f"Table 2: {label(OURS)} and models of long histories"
    return metric_table(Plan("table2", title, groups, labels, ("Kind", "Model")), parts)


def knobs(results: list[DatasetResults]) -> Table | None:
    """What single keys of the configuration change; on validation data, since keys are chosen by it."""
    parts = _parts(results, "knobs")
    cells = {name: cell for _, named in parts for name, cell in named.items()}
    models = dict.fromkeys(_models(parts))
    # A reference has a row even if it was not run.
    of = {m: [m, *(n for n, c in cells.items() if c.model == m and c.varied)] for m in models}
    groups = [Group(tuple(names), (model,)) for model, names in of.items()]
    labels = {m: (m, "reference") for m in models}
    labels |= {n: (c.model, settings(c.varied)) for n, c in cells.items() if c.varied}
    labels = {name: labels[name] for group in groups for name in group.names}
    title, headings = "Knobs: what changed keys are worth", ("Model", "Changed")
    return metric_table(Plan("knobs", title, groups, labels, headings, split="valid"), parts)


def _parts(results: list[DatasetResults], experiment: str) -> Parts:
    """The data sets with the experiment, and its cells by name; without varied keys it is the model's."""
    return [
        (data, {f"{c.model} {json.dumps(c.varied)}" if c.varied else c.model: c for c in cells})
        for data in results
        if (cells := data.experiment(experiment))
    ]


def _models(parts: Parts) -> list[str]:
    return [cell.model for _, cells in parts for cell in cells.values()]


def tuning(results: list[DatasetResults]) -> Table | None:
    """Every trial of tuning with its validation metrics; None without a trial."""
    rows, records = [], []
    for home, trial in ((data, t) for data in results for t in data.tuning):
        valid = {metric: trial["valid"].get(metric) for metric in METRICS}
        texts = [home.title, trial["model"], settings(trial["tuned"]), str(trial["seed"])]
        metrics = (Entry(points(value), value) for value in valid.values())
        rows.append((*map(Entry, texts), *metrics, Entry("yes" if trial["chosen"] else "")))
        own = {key: trial[key] for key in ("model", "expid", "seed", "chosen")}
        tuned = json.dumps(trial["tuned"])
        records.append({"dataset_id": home.dataset_id, **own, "tuned": tuned, **valid})
    headings = header("Data set", "Model", "Tuned", "Seed", *METRICS, "Chosen")
    return Table("Tuning", headings, 3, rows, sentences("tuning"), records) if rows else None
