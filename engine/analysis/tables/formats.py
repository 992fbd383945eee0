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
MARKDOWN_MARKS = {"best": "**%s**", "second": "<u>%s</u>", "": "%s"}
LATEX_MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
NO_MARKS = {"best": "%s", "second": "%s", "": "%s"}


def write_table(folder: Path, name: str, table: Table) -> list[Path]:
    """Write ``NAME.md``, ``.csv``, ``.tex`` and ``.html``; returns their paths.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    forms = {"md": markdown, "csv": long_csv, "tex": latex, "html": html}
    paths = [folder / f"{name}.{ending}" for ending in forms]
    for path, form in zip(paths, forms.values(), strict=True):
        write_text(path, form(table))
    return paths


def markdown(table: Table) -> str:
    """GitHub's Markdown; the header's rows become one, since it has no others."""
    stacks = zip(
        *([t for t, span in row for _ in range(span)] for row in table.header), strict=True
    )
    columns = ["<br>".join(_markdown_text(text) for text in stack if text) for stack in stacks]
    align = ["---"] * table.labels + ["--:"] * (len(columns) - table.labels)
    rows = [["<br>".join(_markdown_lines(entry)) for entry in row] for row in table.rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in [columns, align, *rows])
    below = "\n".join(f"- {line}" for line in _below(table, _markdown_text, "<sup>%d</sup>"))
    return f"### {_markdown_text(table.title)}\n\n{grid}\n\n{below}\n"


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
            *(rf"{line}\par" for line in _below(table, _latex_text, r"\textsuperscript{%d}")),
            r"\end{table}",
            "",
        ]
    )


def html(table: Table) -> str:
    """A ``<table>``, and its notes; ``data-value`` has the number of a cell unrounded, to sort by."""
    lines = ['<table class="results">', f"<caption>{escape(table.title)}</caption>", "<thead>"]
    for headings in table.header:
        cells = (f'<th colspan="{span}">{escape(text)}</th>' for text, span in headings)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines += ["</thead>", "<tbody>"]
    for row in table.rows:
        labels = (f"<th>{escape(entry.text)}</th>" for entry in row[: table.labels])
        lines.append(f"<tr>{''.join([*labels, *map(_html_entry, row[table.labels :])])}</tr>")
    lines += ["</tbody>", "</table>"]
    for kind, tag, texts in (("notes", "ul", table.notes), ("footnotes", "ol", table.footnotes)):
        if texts:
            items = "".join(f"<li>{escape(text)}</li>" for text in texts)
            lines.append(f'<{tag} class="{kind}">{items}</{tag}>')
    return "\n".join(lines) + "\n"


def _lines(
    entry: Entry, escaped: Callable[[str], str], marks: dict[str, str], raised: str
) -> list[str]:
    """The value with its mark and footnotes, then the smaller lines.

    Args:
        entry: what is shown.
        escaped: a text in the form.
        marks: what is around a value, by ``Entry.mark``.
        raised: what is around the number of a footnote.
    """
    text = marks[entry.mark] % escaped(entry.text)
    return [text + "".join(raised % n for n in entry.footnotes), *map(escaped, entry.secondary)]


def _below(table: Table, escaped: Callable[[str], str], raised: str) -> list[str]:
    """The notes, then the footnotes with their numbers."""
    numbered = (f"{raised % n} {escaped(text)}" for n, text in enumerate(table.footnotes, 1))
    return [*map(escaped, table.notes), *numbered]


def _markdown_text(text: str) -> str:
    text = escape(text, quote=False)
    for sign in "\\|*`":
        text = text.replace(sign, f"\\{sign}")
    return text


def _markdown_lines(entry: Entry) -> list[str]:
    return _lines(entry, _markdown_text, MARKDOWN_MARKS, "<sup>%d</sup>")


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
    text, *below = _lines(entry, _latex_text, LATEX_MARKS, r"\textsuperscript{%d}")
    stack = r" \\ ".join([text, *(rf"\scriptsize {line}" for line in below)])
    return rf"\shortstack[r]{{{stack}}}" if below else text


def _html_entry(entry: Entry) -> str:
    kind = f' class="{entry.mark}"' if entry.mark else ""
    value = "" if entry.number is None else f' data-value="{entry.number!r}"'
    text, *below = _lines(entry, escape, NO_MARKS, "<sup>%d</sup>")
    return f"<td{kind}{value}>{text}{''.join(f'<br><small>{line}</small>' for line in below)}</td>"
