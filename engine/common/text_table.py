"""Tables for a terminal, and as CSV."""

import csv
import io
from collections.abc import Iterable
from typing import Any


def text_table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A table with aligned columns.

    Args:
        header: one word per column.
        rows: cells, at most one per column.
        left: how many of the first columns are aligned to the left; the others are to the right.
    """
    rows = [row + [""] * (len(header) - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    ruler = "  ".join("-" * width for width in widths)

    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), ruler, *map(line, rows)])


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, a line each; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
