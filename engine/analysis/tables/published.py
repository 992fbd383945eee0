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

FOLDER = Path(__file__).with_name("printed")


def paper_value(table: str, dataset_id: str, model: str, metric: str) -> float | None:
    """What the paper prints, as a fraction such as 0.7111; None if it prints nothing.

    Args:
        table: ``table1`` or ``table2``.
        dataset_id: such as ``KuaiVideo_x2``.
        model: such as ``TWIN`` or ``TWIN_MoS``.
        metric: ``AUC`` or ``gAUC``.
    """
    for row in _rows(f"paper_{table}.csv"):
        if (row["dataset_id"], row["model"]) == (dataset_id, model) and metric in row:
            return float(Decimal(row[metric]) / 100)  # 0.7111, not its neighbour 71.11 / 100
    return None


def longctr_value(dataset_id: str, model: str, max_len: int, metric: str) -> float | None:
    """LongCTR's published test metric, as a fraction; None if it publishes none.

    Args:
        dataset_id: such as ``KuaiVideo_x2``.
        model: a vanilla backbone or ``MIRRN``.
        max_len: longest history.
        metric: ``AUC``, ``gAUC`` or ``logloss``.
    """
    for row in _rows("longctr.csv"):
        here = row["dataset_id"], row["model"], row["max_len"]
        if here == (dataset_id, model, str(max_len)) and metric in row:
            return float(row[metric])
    return None


def notes(table: str, dataset_id: str) -> dict[tuple[str, str], str]:
    """What is odd about the paper's printed cells, by model and metric, in the order of the file."""
    return {
        (row["model"], row["metric"]): row["note"]
        for row in _rows("paper_notes.csv")
        if (row["table"], row["dataset_id"]) == (table, dataset_id)
    }


@cache
def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
