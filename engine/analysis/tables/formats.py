"""A table as Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
from collections.abc import Callable
from html import escape
from io import StringIO
from itertools import groupby
from pathlib import Path

from ...common.errors import UserError
from ...common.files import write_text
from .grid import Entry, Table

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$",
    "[": "{[}", "]": "{]}",  # after \\ a bracket would be read as a length
}  # fmt: skip


def write_table(folder: Path, name: str, table: Table) -> list[Path]:
    """Write ``NAME.md``, ``.csv``, ``.tex`` and ``.html``; returns their paths.

    Raises:
        UserError: a file cannot be written.
    """
    forms: dict[str, Callable[[Table], str]] = {
        "md": markdown, "csv": long_csv, "tex": latex, "html": html,
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    paths = [folder / f"{name}.{ending}" for ending in forms]
    for path, form in zip(paths, forms.values(), strict=True):
        write_text(path, form(table))
    return paths


def markdown(table: Table) -> str:
    """GitHub's Markdown; the header's rows become one, since it has no others."""
    stacks = zip(*_columns(table), strict=True)
    columns = ["<br>".join(_markdown_text(text) for text in stack if text) for stack in stacks]
    align = ["---"] * table.labels + ["--:"] * (len(columns) - table.labels)
    lines = [columns, align]
    lines += [list(map(_markdown_entry, row)) for row in table.rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = [f"- {_markdown_text(note)}" for note in table.notes]
    below += [f"- <sup>{i}</sup> {_markdown_text(t)}" for i, t in enumerate(table.footnotes, 1)]
    return f"### {_markdown_text(table.title)}\n\n{grid}\n\n" + "\n".join(below) + "\n"


def long_csv(table: Table) -> str:
    """The records with full precision: metrics are fractions, missing values are empty."""
    text = StringIO()
    writer = csv.DictWriter(text, list(table.records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return text.getvalue()


def latex(table: Table) -> str:
    """A ``table`` for a document that loads ``booktabs``: best in bold, second underlined."""
    upper, lower = table.header[:-1], table.header[-1]
    lines = [line for row in upper for line in _latex_spans(row)]
    lines.append(_latex_row([_latex_text(text) for text, _ in lower]))
    for _, rows in groupby(table.rows, key=lambda row: row[0].text):
        lines.append(r"\midrule")
        lines += [_latex_row(list(map(_latex_entry, row))) for row in rows]
    below = [_latex_text(note) for note in table.notes]
    below += [
        rf"\textsuperscript{{{i}}} {_latex_text(t)}" for i, t in enumerate(table.footnotes, 1)
    ]
    columns = "l" * table.labels + "r" * (len(lower) - table.labels)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\footnotesize\raggedright",
            *(f"{text}\\par" for text in below),
            r"\end{table}",
            "",
        ]
    )


def html(table: Table) -> str:
    """A ``<table>``, and its notes; ``data-value`` has the number of a cell unrounded, to sort by."""
    lines = ['<table class="results">', f"<caption>{escape(table.title)}</caption>", "<thead>"]
    for row in table.header:
        cells = "".join(f'<th colspan="{span}">{escape(text)}</th>' for text, span in row)
        lines.append(f"<tr>{cells}</tr>")
    lines += ["</thead>", "<tbody>"]
    for row in table.rows:
        labels = (f"<th>{escape(entry.text)}</th>" for entry in row[: table.labels])
        cells = "".join([*labels, *map(_html_entry, row[table.labels :])])
        lines.append(f"<tr>{cells}</tr>")
    lines += ["</tbody>", "</table>"]
    for kind, tag, texts in (("notes", "ul", table.notes), ("footnotes", "ol", table.footnotes)):
        if texts:
            items = "".join(f"<li>{escape(text)}</li>" for text in texts)
            lines.append(f'<{tag} class="{kind}">{items}</{tag}>')
    return "\n".join(lines) + "\n"


def _columns(table: Table) -> list[list[str]]:
    """The header's rows, each with one text for each column."""
    return [[text for text, span in row for _ in range(span)] for row in table.header]


def _markdown_text(text: str) -> str:
    text = escape(text, quote=False)
    for sign in "\\|*`":
        text = text.replace(sign, f"\\{sign}")
    return text


def _markdown_entry(entry: Entry) -> str:
    around = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}[entry.mark]
    text = around.format(_markdown_text(entry.text))
    text += "".join(f"<sup>{number}</sup>" for number in entry.footnotes)
    return "<br>".join([text, *map(_markdown_text, entry.secondary)])


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_spans(row: tuple[tuple[str, int], ...]) -> list[str]:
    """A row of headings that span columns, and the rules below them."""
    cells, rules, first = [], [], 1
    for text, span in row:
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_latex_text(text)}}}")
        if text:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [_latex_row(cells), "".join(rules)]


def _latex_entry(entry: Entry) -> str:
    around = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[entry.mark]
    text = around % _latex_text(entry.text)
    text += "".join(rf"\textsuperscript{{{number}}}" for number in entry.footnotes)
    if not entry.secondary:
        return text
    below = [rf"\scriptsize {_latex_text(line)}" for line in entry.secondary]
    stack = r" \\ ".join([text, *below])
    return rf"\shortstack[r]{{{stack}}}"


def _html_entry(entry: Entry) -> str:
    kind = f' class="{entry.mark}"' if entry.mark else ""
    value = "" if entry.number is None else f' data-value="{entry.number!r}"'
    text = escape(entry.text) + "".join(f"<sup>{number}</sup>" for number in entry.footnotes)
    below = "".join(f"<br><small>{escape(line)}</small>" for line in entry.secondary)
    return f"<td{kind}{value}>{text}{below}</td>"
