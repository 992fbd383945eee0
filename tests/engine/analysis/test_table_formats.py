"""The four forms of a table."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from engine.analysis.results import read_results
from engine.analysis.tables.cost_table import cost
from engine.analysis.tables.grid import Entry, Table, html, latex, long_csv, markdown, write_table
from engine.analysis.tables.metric_tables import knobs, table1, table2, tuning
from engine.analysis.tables.published import published_table

from ...support.fake_results import OF_TABLES, write_study


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    return write_study(tmp_path, "MicroVideo1.7M_x2", seeds=(1, 2, 3), only=OF_TABLES)


@pytest.mark.parametrize("build", [table1, table2, cost, tuning, knobs, published_table])
def test_every_table_fits_its_header_and_has_four_forms(
    micro: Path, tmp_path: Path, build: Callable[..., Table]
) -> None:
    table = build(read_results(micro))
    width = {len(row) for row in table.rows} | {sum(span for _, span in h) for h in table.header}
    assert len(width) == 1
    assert len({tuple(r) for r in table.records}) == 1
    paths = write_table(tmp_path, "some", table)
    assert [path.name for path in paths] == ["some.md", "some.csv", "some.tex", "some.html"]
    texts = [path.read_text() for path in paths]
    assert texts == [form(table) for form in (markdown, long_csv, latex, html)]


def test_csv_keeps_every_digit(micro: Path, tmp_path: Path) -> None:
    table = table1(read_results(micro))
    path = write_table(tmp_path, "table1", table)[1]
    frames = [pd.read_csv(path).to_dict("records"), pl.read_csv(path).to_dicts()]
    for rows in frames:
        assert len(rows) == len(table.records) == 40
        for row, expected in zip(rows, table.records, strict=True):
            for key in ("mean", "std", "n", "gain", "low", "high", "p", "rank", "paper", "longctr"):
                if expected[key] is None:
                    assert pd.isna(row[key])
                else:
                    assert row[key] == pytest.approx(expected[key], rel=1e-15)
            assert (row["model"], row["metric"]) == (expected["model"], expected["metric"])


TRICKY = Table(
    title="a_b & <c>",
    header=((("", 1), ("x_1 50%", 2)), (("who", 1), ("A|B", 1), ("C", 1))),
    labels=1,
    rows=(
        (
            Entry("m_1 {<&>}"),
            Entry("1.00 ± 0.10", 0.01, "best", ("[+1] #2 ~^\\$", "<i>"), ("<odd>",)),
            Entry("3", 3.0, "second"),
        ),
        (Entry("m_2"), Entry(), Entry("<b>")),
    ),
    notes=("p < 0.05 & more_",),
    records=({"model": 'a,"b"', "value": None},),
)


def test_latex_escapes_and_marks() -> None:
    text = latex(TRICKY)
    assert r"a\_b \& \textless{}c\textgreater{}" in text
    assert r"\multicolumn{2}{c}{x\_1 50\%}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"\textbf{1.00 $\pm$ 0.10}\textsuperscript{1}" in text
    assert r"\underline{3}" in text
    assert r"m\_1 \{\textless{}\&\textgreater{}\}" in text
    assert r"{[}+1{]} \#2 \textasciitilde{}\textasciicircum{}\textbackslash{}\$" in text
    assert not re.search(r"(?<!\\)[_%#]", text)
    begun, ended = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert begun == ended[::-1] == ["table", "tabular"]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


class Reader(HTMLParser):
    """Texts and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_escapes_and_keeps_numbers() -> None:
    page = Reader(html(TRICKY))
    used = {
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "br",
        "wbr",
        "small",
        "sup",
        "ul",
        "ol",
        "li",
    }
    assert {tag for tag, _ in page.tags} == used  # <c>, <b> and <odd> became text
    assert {"a_b & <c>", "1 {<&>}", "<b>", "p < 0.05 & more_", "<odd>", "<i>"} <= set(page.texts)
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    assert cells == [
        {"class": "best", "data-value": "0.01"}, {"class": "second", "data-value": "3.0"}, {}, {},
    ]  # fmt: skip


def test_html_numbers_are_unrounded(micro: Path) -> None:
    table = table1(read_results(micro))
    page = Reader(html(table))
    values = [a["data-value"] for tag, a in page.tags if tag == "td" and "data-value" in a]
    assert float(values[0]) == table.records[0]["mean"]


def test_markdown_has_one_cell_for_each_column() -> None:
    lines = markdown(TRICKY).splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in grid] == [4] * 4
    assert r"x_1 50%<br>A\|B" in grid[0]
    assert "**1.00 ± 0.10**<sup>1</sup><br>[+1] #2 ~^\\\\$<br>&lt;i&gt;" in grid[2]
    assert "<u>3</u>" in grid[2]
    assert "&lt;b&gt;" in grid[3]
    assert lines[-1] == "- <sup>1</sup> &lt;odd&gt;"


def test_csv_quotes(tmp_path: Path) -> None:
    assert long_csv(TRICKY) == 'model,value\n"a,""b""",\n'
