"""Published numbers to compare with, and Tables 1 and 2 as the paper prints them.

The files are in the folder ``printed`` beside this one.

- ``paper_table1.csv``, ``paper_table2.csv``: Tables 1 and 2 of "Mixture of Sequence" (WWW 2026) as
  printed, in points (x100), misprints included.
- ``paper_notes.csv``: printed cells that contradict others or look wrong, and why.
- ``longctr.csv``: test metrics, as fractions, of LongCTR's published leaderboard: for a model, a data set
  and a length its best run by validation AUC + gAUC. Source: https://github.com/reczoo/LongCTR.
"""

import csv
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from model_zoo.registry import BASELINES

from ...datasets.paper import NAMES
from ..results import METRICS, DatasetResults
from ..wording import ordered_models, row_labels, sentences
from .grid import Column, Entry, Table, grouped, points

FOLDER = Path(__file__).with_name("printed")
MAX_LEN = 200  # in this project's configurations of these data sets
TITLES = {"table1": "Table 1", "table2": "Table 2"}


class Published(NamedTuple):
    """What others print for one model, data set and metric.

    Attributes:
        paper: what the paper prints, as a fraction such as 0.7111; None if it prints nothing.
        longctr: LongCTR's test metric, as a fraction; None if it publishes none.
        note: what is odd about the paper's number, or an empty text.
    """

    paper: float | None = None
    longctr: float | None = None
    note: str = ""

    def entry(self, source: str) -> Entry:
        """What a table shows of the number of one source, ``paper`` or ``longctr``."""
        value = getattr(self, source)
        odd = (self.note,) if self.note and source == "paper" else ()
        return Entry(points(value), value, footnotes=odd)


def published(
    table: str, dataset_id: str, model: str, metric: str, max_len: int | None
) -> Published:
    """Look up what the paper and LongCTR print.

    Args:
        table: ``table1`` or ``table2`` of the paper.
        dataset_id: such as ``KuaiVideo_x2``.
        model: such as ``TWIN`` or ``TWIN_MoS``.
        metric: ``AUC``, ``gAUC`` or ``logloss``.
        max_len: longest history of the run of LongCTR; None for no such run.
    """
    place = {"dataset_id": dataset_id, "model": model}
    paper = _cell(f"paper_{table}.csv", metric, place)
    longctr = _cell("longctr.csv", metric, place | {"max_len": str(max_len)})
    note = _cell("paper_notes.csv", "note", place | {"table": table, "metric": metric})
    # Decimal: 0.7111 and not its neighbour 71.11 / 100.
    printed = float(Decimal(paper) / 100) if paper else None
    return Published(printed, float(longctr) if longctr else None, note or "")


def models_of(table: str) -> list[str]:
    """The models of a table of the paper."""
    return list(dict.fromkeys(row["model"] for row in _rows(f"paper_{table}.csv")))


def _cell(file: str, column: str, place: dict[str, str]) -> str | None:
    """A column of the row with these values; None if there is no such row or column."""
    found = (row for row in _rows(file) if place.items() <= row.items())
    return next(found, {}).get(column)


@cache
def _rows(file: str) -> list[dict[str, str]]:
    with open(FOLDER / file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


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
    notes = ["published", *(["absent"] if absent else [])]
    columns = [
        Column(name, heading, partial(_entry, name, metric, source))
        for name, metric in places
        for source, heading in (("paper", metric), ("longctr", f"LongCTR's {metric}"))
    ]
    records = [
        {"dataset_id": name, "table": table, "model": model, "metric": metric}
        | published(table, name, model, metric, MAX_LEN)._asdict()
        for table, model in rows
        for name, metric in places
    ]
    below = sentences(*notes, max_len=MAX_LEN, names=", ".join(absent))
    title, headings = "What the paper and LongCTR print", ["Table", "Model", "Variant"]
    return grouped(title, headings, rows, columns, below, records)


def _entry(dataset_id: str, metric: str, source: str, row: tuple[str, str]) -> Entry:
    table, model = row
    return published(table, dataset_id, model, metric, MAX_LEN).entry(source)


def without_runs(results: list[DatasetResults]) -> list[str]:
    """The paper's data sets that have no results."""
    present = {data.dataset_id for data in results}
    return [name for name in NAMES if name not in present]
