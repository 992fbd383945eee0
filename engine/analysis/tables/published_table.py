"""Tables 1 and 2 as the paper prints them, with what is odd about them, beside LongCTR's values."""

from __future__ import annotations

from typing import Any

from ...datasets.paper import NAMES
from ..results import BACKBONES, BASELINES, METRICS, VARIANTS, DatasetResults, row_labels, variant
from . import published
from .grid import Entry, Footnotes, Table, points

MAX_LEN = 200  # in this project's configurations of these data sets
MODELS = {
    "table1": [variant(backbone, mixture) for backbone in BACKBONES for mixture in VARIANTS],
    "table2": [*BASELINES, *(variant(backbone, "MoS") for backbone in BACKBONES)],
}
TITLES = {"table1": "Table 1", "table2": "Table 2"}


def published_table(results: list[DatasetResults]) -> Table:
    """The printed values; a note says on which of the paper's data sets the results have no run."""
    footnotes = Footnotes()
    rows, records = [], []
    for table, models in MODELS.items():
        for model in models:
            row = [Entry(text) for text in (TITLES[table], *row_labels(model))]
            for record in (_record(table, n, model, m) for n in NAMES for m in METRICS):
                paper, longctr = record["paper"], record["longctr"]
                row.append(Entry(points(paper), paper, footnotes=footnotes.numbers(record["note"])))
                row.append(Entry(points(longctr), longctr))
                records.append(record)
            rows.append(tuple(row))
    headings = [text for metric in METRICS for text in (metric, f"LongCTR's {metric}")]
    absent = without_runs(results)
    return Table(
        title="What the paper and LongCTR print",
        header=(
            (("", 3), *((name, len(headings)) for name in NAMES)),
            tuple((text, 1) for text in ["Table", "Model", "Variant", *headings * len(NAMES)]),
        ),
        labels=3,
        rows=tuple(rows),
        notes=(
            f"Test metrics in points (x100). LongCTR's: of its published best run at max_len {MAX_LEN}.",
            *([f"There is no run here on {', '.join(absent)}."] if absent else []),
        ),
        footnotes=footnotes.texts(),
        records=tuple(records),
    )


def without_runs(results: list[DatasetResults]) -> list[str]:
    """The paper's data sets that results are not about."""
    present = {data.dataset_id for data in results}
    return [name for name in NAMES if name not in present]


def _record(table: str, dataset_id: str, model: str, metric: str) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "table": table,
        "model": model,
        "metric": metric,
        "paper": published.paper_value(table, dataset_id, model, metric),
        "longctr": published.longctr_value(dataset_id, model, MAX_LEN, metric),
        "note": published.notes(table, dataset_id).get((model, metric), ""),
    }
