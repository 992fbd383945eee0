"""A table between its numbers and its four forms: Markdown, CSV, LaTeX and HTML.

The files ``table.*.j2`` beside this one are the layouts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...common.files import write_text
from ...common.text_table import csv_text
from .comparison import SIGNIFICANT

Header = tuple[tuple[tuple[str, int], ...], ...]
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$",
    "[": "{[}", "]": "{]}",  # after \\ a bracket would be read as a length
})  # fmt: skip
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\|*`"})


@dataclass(frozen=True)
class Entry:
    """What one place of a table shows.

    Attributes:
        text: the value; ``-`` if there is none.
        number: the value unrounded, to sort by; None if the text is no number.
        mark: ``best``, ``second`` or empty.
        secondary: smaller lines below, such as the gain.
        footnotes: sentences that explain the value. The table numbers them.
    """

    text: str = "-"
    number: float | None = None
    mark: str = ""
    secondary: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: one line.
        header: rows of headings, each with the number of columns that it spans.
        labels: how many columns at the left name the row. Rows with the same first label belong together.
        rows: one entry for each column.
        notes: sentences below the table.
        records: the same numbers, unrounded and in long form. Each dictionary is one line of the CSV
            file, and all have the same keys. Metrics and their differences are fractions.
    """

    title: str
    header: Header
    labels: int
    rows: Sequence[tuple[Entry, ...]]
    notes: Sequence[str] = ()
    records: Sequence[dict[str, Any]] = ()

    @property
    def footnotes(self) -> list[str]:
        """The distinct footnotes of all entries; the first has the number 1."""
        return list(dict.fromkeys(n for row in self.rows for entry in row for n in entry.footnotes))

    @property
    def columns(self) -> list[list[str]]:
        """The headings above each column, the upper first, without empty ones."""
        spread = ([text for text, span in row for _ in range(span)] for row in self.header)
        return [[text for text in stack if text] for stack in zip(*spread, strict=True)]


class Column(NamedTuple):
    """A column of a table whose columns stand in groups.

    Attributes:
        title: what the group has in common. Neighbours with the same title are a group.
        heading: what the column has by itself.
        entry: gives the entry of a row, from the row's name.
    """

    title: str
    heading: str
    entry: Callable[[Any], Entry]


def grouped(
    title: str,
    labels: Sequence[str],
    rows: Mapping[Any, Sequence[str]],
    columns: Sequence[Column],
    notes: Sequence[str],
    records: Sequence[dict[str, Any]],
) -> Table:
    """A table with groups of columns: its header has a row of titles above the row of headings.

    Args:
        title: as in ``Table``.
        labels: headings of the columns that name a row.
        rows: the labels of each row, by a name that ``Column.entry`` understands.
        columns: the other columns.
        notes: as in ``Table``.
        records: as in ``Table``.
    """
    titles = groupby(column.title for column in columns)
    upper = (("", len(labels)), *((text, len(list(group))) for text, group in titles))
    lower = header(*labels, *(column.heading for column in columns))
    entries = [(*map(Entry, texts), *(c.entry(n) for c in columns)) for n, texts in rows.items()]
    return Table(title, (upper, *lower), len(labels), entries, notes, records)


def header(*headings: str) -> Header:
    """A header of one row."""
    return (tuple((text, 1) for text in headings),)


def points(value: float | None, sign: str = "") -> str:
    """A fraction in points (x100) with two decimals as in the paper; ``-`` for None."""
    return "-" if value is None else f"{100 * value:{sign}.2f}"


def plus_minus(mean: float, std: float | None, show: Callable[[float], str]) -> str:
    """A mean with its standard deviation, if it has one. ``show`` writes a number."""
    return show(mean) if std is None else f"{show(mean)} ± {show(std)}"


def tested(low: float | None, high: float | None, p: float | None) -> str:
    """The interval of a difference in points, and the p of its test; empty without a test."""
    if low is None or high is None or p is None:
        return ""
    return f"[{points(low, '+')}, {points(high, '+')}], p {p_value(p)}"


def p_value(p: float) -> str:
    """A p value with two digits, or as many as tell on which side of ``SIGNIFICANT`` it is."""
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT))


def settings(varied: Mapping[str, Any]) -> str:
    """Keys and their values as a table shows them."""
    return ", ".join(f"{key} = {value}" for key, value in varied.items())


def write_table(folder: Path, name: str, table: Table) -> list[Path]:
    """Write ``NAME.md``, ``.csv``, ``.tex`` and ``.html`` into a folder that exists; returns their paths.

    Raises:
        UserError: a file cannot be written.
    """
    forms = {"md": markdown, "csv": long_csv, "tex": latex, "html": html}
    paths = [folder / f"{name}.{ending}" for ending in forms]
    for path, form in zip(paths, forms.values(), strict=True):
        write_text(path, form(table))
    return paths


def markdown(table: Table) -> str:
    """GitHub's Markdown; the header's rows become one, since it has no others."""
    return _render("md", table, lambda text: escape(text, quote=False).translate(MARKDOWN))


def long_csv(table: Table) -> str:
    """The records with full precision: metrics are fractions, missing values are empty."""
    return csv_text([table.records[0], *(record.values() for record in table.records)])


def latex(table: Table) -> str:
    """A ``table`` for a document that loads ``booktabs``: best in bold, second underlined."""
    return _render("tex", table, lambda text: text.translate(LATEX))


def html(table: Table) -> str:
    """A ``<table>``, and its notes; ``data-value`` has the number of a cell unrounded, to sort by."""
    return _render("html", table, escape)


def _render(form: str, table: Table, text: Callable[[str], str]) -> str:
    """The table in a form; ``text`` gives a plain text in this form."""
    return _environment().get_template(f"table.{form}.j2").render(table=table, text=text)


@cache
def _environment() -> Environment:
    """Templates with brackets instead of braces, which LaTeX has everywhere."""
    return Environment(
        block_start_string="[%", block_end_string="%]", variable_start_string="[[",
        variable_end_string="]]", trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        undefined=StrictUndefined, loader=FileSystemLoader(Path(__file__).parent),
    )  # fmt: skip
