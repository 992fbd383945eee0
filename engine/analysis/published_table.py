"""Tables 1 and 2 as the paper prints them, with what is odd about them, beside LongCTR's values."""

from __future__ import annotations

from collections.abc import Iterator

from ..datasets.paper import NAMES
from . import published
from .results import BACKBONES, BASELINES, METRICS, VARIANTS, DatasetResults, variant
from .table import Entry, Footnotes, Table, points

LENGTH = 200  # of the histories in this project's configurations of these data sets
MODELS = {
    "table1": [variant(backbone, mixture) for backbone in BACKBONES for mixture in VARIANTS],
    "table2": [*BASELINES, *(variant(backbone, "MoS") for backbone in BACKBONES)],
}
COLUMNS = [(dataset_id, metric) for dataset_id in NAMES for metric in METRICS]


def published_table(results: list[DatasetResults]) -> Table:
    """What is to be compared with, and whether any of it can be."""
    present = {data.dataset_id for data in results}
    absent = [name for name in NAMES if name not in present]
    footnotes = Footnotes()
    rows = [
        (
            Entry({"table1": "Table 1", "table2": "Table 2"}[table]),
            Entry(model),
            *_entries(table, model, footnotes),
        )
        for table, models in MODELS.items()
        for model in models
    ]
    return Table(
        title="What the paper and LongCTR print",
        header=(
            (("", 2), *((name, 2 * len(METRICS)) for name in NAMES)),
            tuple((text, 1) for text in ["Table", "Model", *_headings() * len(NAMES)]),
        ),
        labels=2,
        rows=tuple(rows),
        notes=(
            f"Test metrics in points (x100). LongCTR: its published best run with histories of {LENGTH} items.",
            f"No run here is on {', '.join(absent)}: none of this was reproduced there."
            if absent
            else "Tables 1 and 2 above have these data sets, too.",
        ),
        footnotes=footnotes.texts(),
        records=tuple(
            {
                "dataset_id": dataset_id,
                "table": table,
                "model": model,
                "metric": metric,
                "paper": published.paper_value(table, dataset_id, model, metric),
                "longctr": published.longctr_value(dataset_id, model, LENGTH, metric),
                "note": _note(table, dataset_id, model, metric),
            }
            for table, models in MODELS.items()
            for model in models
            for dataset_id, metric in COLUMNS
        ),
    )


def _headings() -> list[str]:
    return [text for metric in METRICS for text in (metric, "LongCTR")]


def _entries(table: str, model: str, footnotes: Footnotes) -> Iterator[Entry]:
    for dataset_id, metric in COLUMNS:
        paper = published.paper_value(table, dataset_id, model, metric)
        marked = footnotes.numbers(_note(table, dataset_id, model, metric))
        yield Entry(points(paper), paper, footnotes=marked)
        longctr = published.longctr_value(dataset_id, model, LENGTH, metric)
        yield Entry(points(longctr), longctr)


def _note(table: str, dataset_id: str, model: str, metric: str) -> str:
    return published.notes(table, dataset_id).get((model, metric), "")
