"""Published numbers to compare with; the files are in the folder ``printed`` beside this one.

- ``paper_table1.csv``, ``paper_table2.csv``: Tables 1 and 2 of "Mixture of Sequence" (WWW 2026) as
  printed, in points (x100), misprints included.
- ``paper_notes.csv``: printed cells that contradict others or look wrong, and why.
- ``longctr.csv``: test metrics, as fractions, of LongCTR's published leaderboard: for a model, a data set
  and a length its best run by validation AUC + gAUC. Source: https://github.com/reczoo/LongCTR.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .grid import Entry, points

FOLDER = Path(__file__).with_name("printed")


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
    return Published(
        float(Decimal(paper) / 100) if paper else None,
        float(longctr) if longctr else None,
        note or "",
    )


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
