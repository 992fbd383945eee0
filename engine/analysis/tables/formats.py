"""A table as Markdown, CSV, LaTeX and HTML; the files ``table.*.j2`` beside this one are the layouts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from html import escape
from io import StringIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...common.files import write_text
from .grid import Table

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$",
    "[": "{[}", "]": "{]}",  # after \\ a bracket would be read as a length
})  # fmt: skip
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\|*`"})


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
    text = StringIO()
    writer = csv.DictWriter(text, list(table.records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return text.getvalue()


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
