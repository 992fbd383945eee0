"""The trials that chose the hyper-parameters."""

from __future__ import annotations

import json

from ..results import METRICS, DatasetResults
from ..sentences import sentences
from .grid import Entry, Table, header, points, settings


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
