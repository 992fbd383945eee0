"""Tables 1 and 2 as the paper prints them, with what is odd about them, beside LongCTR's values."""

from __future__ import annotations

from model_zoo.registry import BASELINES

from ...datasets.paper import NAMES
from ..lineup import ordered_models, row_labels
from ..results import METRICS, DatasetResults
from .grid import Entry, Footnotes, Table, grouped_header, points
from .published import models_of, published

MAX_LEN = 200  # in this project's configurations of these data sets
TITLES = {"table1": "Table 1", "table2": "Table 2"}


def published_table(results: list[DatasetResults]) -> Table:
    """The printed values; a note says on which of the paper's data sets the results have no run."""
    footnotes = Footnotes()
    rows, records = [], []
    for table, title in TITLES.items():
        # Table 2 shows the baselines first.
        for model in sorted(ordered_models(models_of(table)), key=lambda m: m not in BASELINES):
            row = [Entry(text) for text in (title, *row_labels(model))]
            for dataset_id, metric in ((name, metric) for name in NAMES for metric in METRICS):
                found = published(table, dataset_id, model, metric, MAX_LEN)
                marked = footnotes.numbers(found.note)
                row.append(Entry(points(found.paper), found.paper, footnotes=marked))
                row.append(Entry(points(found.longctr), found.longctr))
                place = {"dataset_id": dataset_id, "table": table, "model": model, "metric": metric}
                records.append(place | found._asdict())
            rows.append(tuple(row))
    headings = [text for metric in METRICS for text in (metric, f"LongCTR's {metric}")]
    absent = without_runs(results)
    notes = [
        f"Test metrics in points (x100). LongCTR's: of its published best run at max_len {MAX_LEN}."
    ]
    return Table(
        title="What the paper and LongCTR print",
        header=grouped_header(["Table", "Model", "Variant"], [(name, headings) for name in NAMES]),
        labels=3,
        rows=rows,
        notes=notes + ([f"There is no run here on {', '.join(absent)}."] if absent else []),
        footnotes=footnotes.texts,
        records=records,
    )


def without_runs(results: list[DatasetResults]) -> list[str]:
    """The paper's data sets that have no results."""
    present = {data.dataset_id for data in results}
    return [name for name in NAMES if name not in present]
