"""Tables 1 and 2 as the paper prints them, with what is odd about them, beside LongCTR's values."""

from __future__ import annotations

from functools import partial

from model_zoo.registry import BASELINES

from ...datasets.paper import NAMES
from ..lineup import ordered_models, row_labels
from ..results import METRICS, DatasetResults
from ..sentences import sentences
from .grid import Column, Entry, Table, grouped
from .published import models_of, published

MAX_LEN = 200  # in this project's configurations of these data sets
TITLES = {"table1": "Table 1", "table2": "Table 2"}


def published_table(results: list[DatasetResults]) -> Table:
    """The printed values; a note says on which of the paper's data sets the results have no run."""
    rows = {
        (table, model): (title, *row_labels(model))
        for table, title in TITLES.items()
        # Table 2 shows the baselines first.
        for model in sorted(ordered_models(models_of(table)), key=lambda m: m not in BASELINES)
    }
    places = [(name, metric) for name in NAMES for metric in METRICS]
    absent = without_runs(results)
    return grouped(
        "What the paper and LongCTR print",
        ["Table", "Model", "Variant"],
        rows,
        [
            Column(name, heading, partial(_entry, name, metric, source))
            for name, metric in places
            for source, heading in (("paper", metric), ("longctr", f"LongCTR's {metric}"))
        ],
        sentences(
            "published", *(["absent"] if absent else []), max_len=MAX_LEN, names=", ".join(absent)
        ),
        [
            {"dataset_id": name, "table": table, "model": model, "metric": metric}
            | published(table, name, model, metric, MAX_LEN)._asdict()
            for table, model in rows
            for name, metric in places
        ],
    )


def _entry(dataset_id: str, metric: str, source: str, row: tuple[str, str]) -> Entry:
    table, model = row
    return published(table, dataset_id, model, metric, MAX_LEN).entry(source)


def without_runs(results: list[DatasetResults]) -> list[str]:
    """The paper's data sets that have no results."""
    present = {data.dataset_id for data in results}
    return [name for name in NAMES if name not in present]
