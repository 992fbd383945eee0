"""The trials that chose the hyper-parameters."""

from __future__ import annotations

import json

from ..results import METRICS, DatasetResults
from .grid import Entry, NothingToShow, Table, header, points, settings


def tuning(results: list[DatasetResults]) -> Table:
    """Every trial of tuning with its validation metrics.

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
        metrics = (Entry(points(value), value) for value in valid.values())
        rows.append((*map(Entry, texts), *metrics, Entry("yes" if trial["chosen"] else "")))
        own = {key: trial[key] for key in ("model", "expid", "seed", "chosen")}
        tuned = json.dumps(trial["tuned"])
        records.append({"dataset_id": dataset_id, **own, "tuned": tuned, **valid})
    return Table(
        title="Tuning",
        header=header("Data set", "Model", "Tuned", "Seed", *METRICS, "Chosen"),
        labels=3,
        rows=rows,
        notes=("Metrics are on validation data, in points (x100); test data took no part.",),
        records=records,
    )
