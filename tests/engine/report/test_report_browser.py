"""The report in a browser: sorting, filter and details work, nothing is loaded, nothing foreign runs."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.figures.style import EXPERT_COLOURS
from engine.analysis.tables.grid import Entry, Table
from engine.report import page
from engine.report.page import build

from ...support.browser import browse, needs_browser
from ...support.fake_results import write_run, write_study
from ...support.report_page import change, embedded

pytestmark = needs_browser

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"

LOOK = """
const [table, others] = document.querySelectorAll("table.runs");
const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "Parameters");
const button = header.querySelector("button");
const column = () => [...table.tBodies].map((body) => Number(body.rows[0].cells[header.cellIndex].dataset.value));
const above = others.parentElement.previousElementSibling;
const filter = above.querySelector("input[type=search]");
const body = table.querySelector("tbody[data-group='0']");
body.querySelector("summary").click();
button.focus();
seen.focused = document.activeElement === button;
button.click();
seen.first = [header.ariaSort, column()];
button.click();
seen.second = [header.ariaSort, column()];
filter.value = "sdim EXPERTS";
filter.dispatchEvent(new Event("input"));
seen.left = [...others.tBodies].filter((b) => b.checkVisibility()).map((b) => b.rows[0].cells[6].textContent);
seen.count = above.querySelector("[aria-live]").textContent;
filter.value = "";
filter.dispatchEvent(new Event("input"));
setTimeout(() => {
  seen.details = body.rows[1].innerText;
  const bars = body.rows[1].querySelectorAll(".bar");
  seen.bars = bars.length;
  seen.label = bars[0].ariaLabel;
  seen.colours = [...bars[0].children].map((part) => part.style.background);
  seen.codes = [...body.rows[1].querySelector(".cosines tr").cells].map((cell) => cell.textContent);
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  body.querySelector("summary").click();
  setTimeout(() => { seen.closed = body.rows[1].hidden; done(); }, 100);
}, 100);
"""


def test_sorting_filter_and_details(tmp_path: Path) -> None:
    home = write_study(tmp_path / "results", seeds=(1, 2))
    expid = embedded(build(tmp_path / "results"))["groups"][0]["expid"]
    file = home / "runs" / f"{expid}_seed1.json"
    change(file, lambda run: run["routing"]["item"].update(dead=[0, 4]))
    whole = build(tmp_path / "results")
    seen = browse(whole, LOOK, tmp_path)
    assert seen["problems"] == [] and seen["loaded"] == []
    assert seen["focused"] and seen["closed"] and not seen["wide"]
    (first, down), (second, up) = seen["first"], seen["second"]
    assert (first, second) == ("descending", "ascending")
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(up) == 23
    assert sorted(seen["left"]) == [f"num_experts = {n}" for n in (0, 2, 4, 6, 8)]
    assert seen["count"] == "5 of 79 configurations"
    run = json.loads(file.read_text())
    for text in (
        expid,
        f"{100 * run['metrics']['test']['AUC']:.2f}",
        f"{run['metrics']['valid']['logloss']:.4f}",
        f"{run['num_parameters']:,}",
        f"python run_expid.py --expid {expid} --seed 1",
        "learning_rate: 0.001",
        "torch: 2.13.0+cpu",
        f"{100 * run['stage_log'][2]['gAUC']:.2f}",
        f"{run['stage_log'][2]['logloss']:.4f}",
        "dead\t1, 5",
        f"{run['stage_log'][2]['routing']['item']['switch_rate']:.3f}",
        f"toy/runs/{expid}_seed1.json",
    ):
        assert text in seen["details"]
    assert seen["bars"] == 3 * 2 + 4 + 2  # three stages with two branches, and the report's
    assert [text.split()[1] for text in seen["label"].split(", ")] == list("12345")
    figures = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in EXPERT_COLOURS[:5]]
    assert seen["colours"] == [f"rgb{colour}" for colour in figures]
    assert seen["codes"] == ["", *"12345"]


@pytest.mark.slow
def test_what_names_a_row_stays_in_sight(tmp_path: Path) -> None:
    write_study(tmp_path / "results", seeds=(1, 2))
    look = """
    const sized = (width) => { document.querySelector("main").style.maxWidth = `${width}px`; };
    const box = (table) => table.parentElement;
    const board = document.querySelector("table.runs"), cost = document.querySelector("#table-cost table");
    const inner = (element) => element.getBoundingClientRect();
    const shade = (cell) => Number(getComputedStyle(cell, "::after").opacity);
    sized(800);
    const headers = [...board.tHead.rows[0].cells];
    seen.visible = headers.filter((h) => inner(h).right < inner(box(board)).right).map((h) => h.textContent);
    sized(390);
    const rows = [board, cost].flatMap((table) => [table.tHead.rows[table.tHead.rows.length - 1], table.tBodies[0].rows[0]]);
    const names = rows.map((row) => [...row.cells].slice(0, cost.contains(row) ? 2 : 1));
    const last = names.map((cells) => cells.at(-1));
    seen.before = last.map(shade);
    for (const table of [board, cost]) box(table).scrollLeft = 200;
    setTimeout(() => {
      seen.moved = [board, cost].map((table) => box(table).scrollLeft);
      seen.places = names.map((cells) => cells.map((cell) => Math.round(inner(cell).left - inner(box(board)).left)));
      seen.widths = names.map((cells) => Math.round(inner(cells[0]).width));
      seen.covered = rows.map((row, i) => inner(row.cells[names[i].length]).left < inner(last[i]).right);
      seen.on_top = last.map((cell) => {
        cell.scrollIntoView({ block: "center", inline: "nearest" });
        const { right, top } = inner(cell);
        return cell.contains(document.elementFromPoint(right - 3, top + 5));
      });
      seen.after = last.map(shade);
      seen.edges = [board, cost].map((table) => getComputedStyle(box(table)).backgroundAttachment);
      done();
    }, 300);
    """
    seen = browse(build(tmp_path / "results"), look, tmp_path)
    assert seen["problems"] == []
    metrics = ["Model", "Test AUC", "Test gAUC", "Test logloss", "Valid AUC"]
    assert seen["visible"][:5] == metrics
    assert seen["moved"] == [200, 200] and all(seen["covered"]) and all(seen["on_top"])
    name = seen["widths"][2] + 1  # and the box's border
    assert seen["places"] == [[1], [1], [1, name], [1, name]]
    assert seen["before"] == [0, 0, 0, 0] and seen["after"] == [1, 1, 1, 1]
    assert all("local" in edge and "scroll" in edge for edge in seen["edges"])


@pytest.mark.slow
def test_a_figure_is_shown_at_full_size(tmp_path: Path) -> None:
    write_study(tmp_path / "results", seeds=(1, 2))
    look = """
    const figures = [...document.querySelectorAll("figure")];
    const width = (element) => element.getBoundingClientRect().width;
    seen.wide = figures.map((figure) => width(figure) / width(figure.parentElement));
    const button = figures[1].querySelector("button");
    button.focus();
    button.click();
    const dialog = document.querySelector("dialog"), image = dialog.querySelector("img");
    seen.shown = [dialog.open, dialog.ariaLabel === image.alt, image.src === button.firstChild.src];
    seen.size = width(image);
    dialog.querySelector("button").click();
    setTimeout(() => {
      seen.left = document.querySelectorAll("dialog").length;
      seen.focused = document.activeElement === button;
      done();
    }, 200);
    """
    seen = browse(build(tmp_path / "results"), look, tmp_path)
    assert seen["problems"] == [] and seen["loaded"] == []
    assert set(seen["wide"]) == {1} and seen["shown"] == [True, True, True]
    assert seen["size"] >= 1800 and seen["left"] == 0 and seen["focused"]


def test_nothing_from_results_runs(tmp_path: Path) -> None:
    home = write_study(tmp_path / "results", seeds=(1,))

    def poison(run: dict[str, Any]) -> None:
        run["params"]["note"] = run["device"] = run["command"][1] = NASTY
        run["versions"]["torch"] = run["stage_log"][0]["stage"] = NASTY
        run["params"][NASTY] = [NASTY]
        run["routing"][NASTY] = run["routing"]["item"]

    def plan(study: dict[str, Any]) -> None:
        study["studies"] = [{"experiment": "table1", "dataset": NASTY}]
        study["tuning"][0]["tuned"] = {"x": NASTY}
        cell = next(c for c in study["cells"] if c["expid"] == "TWIN_MoS_toy")
        cell["varied"] = {NASTY: NASTY}
        study["cells"].append(cell | {"model": NASTY, "expid": NASTY})

    change(home / "runs" / "TWIN_MoS_toy_seed1.json", poison)
    change(home / "study.json", plan)
    change(home / "dataset_card.json", lambda card: card.update(source=NASTY))
    whole = build(tmp_path / "results")
    assert NASTY not in whole and "<script>alert" not in whole
    look = """
    const row = [...document.querySelectorAll("tbody[data-group]")].find((b) => b.textContent.includes("onerror"));
    row.querySelector("summary").click();
    setTimeout(() => { seen.details = row.rows[1].innerText; seen.all = document.body.textContent; done(); }, 300);
    """
    seen = browse(whole, look, tmp_path)
    assert seen["problems"] == [] and seen["loaded"] == []
    assert seen["details"].count(NASTY) >= 6  # shown as it is
    assert NASTY in unescape(seen["all"])


@pytest.mark.slow
def test_a_table_of_the_analysis_is_sorted_by_its_unrounded_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"a": 0.11, "b": None, "c": 0.3, "d": 0.12}
    table = Table(
        title="Title <b>",
        header=((("", 1), ("toy", 2)), (("Model", 1), ("AUC", 1), ("paper", 1))),
        labels=1,
        rows=tuple(
            (
                Entry(name),
                Entry() if n is None else Entry("0.1 ± 9", n, "best", footnotes=("A footnote.",)),
                Entry(),
            )
            for name, n in numbers.items()
        ),
        notes=("A note.",),
        records=(),
    )
    write_run(tmp_path / "toy", "toy", "TWIN_toy", "TWIN", 1)
    monkeypatch.setattr(page, "TABLES", {"table1": lambda results: table})
    look = """
    const table = document.querySelector(".fragment table");
    const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join("");
    const auc = table.tHead.rows[1].cells[1].querySelector("button");
    seen.buttons = table.querySelectorAll("button").length;
    seen.orders = [names()];
    for (let i = 0; i < 2; i++) { auc.click(); seen.orders.push(names()); }
    done();
    """
    seen = browse(build(tmp_path), look, tmp_path)
    assert seen["problems"] == [] and seen["buttons"] == 3
    assert seen["orders"] == ["abcd", "cdab", "adcb"]  # what has no number comes last
