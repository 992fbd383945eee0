"""Tables for a terminal."""

from __future__ import annotations


def text_table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Aligned columns, the first ``left`` of them to the left; rows may be shorter than the header."""
    rows = [row + [""] * (len(header) - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    ruler = "  ".join("-" * width for width in widths)

    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), ruler, *map(line, rows)])
