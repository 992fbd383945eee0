"""The report in a browser: sorting, filter and details work, nothing is loaded, nothing foreign runs."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

from engine.analysis.formats import html
from engine.analysis.table import Entry, Table
from engine.report.page import build

from .browser import browse
from .fake_results import write_run, write_study
from .report_page import change, embedded

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"

LOOK = """
const table = document.querySelector("table.runs");
const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "Parameters");
const button = header.querySelector("button");
const column = () => [...table.tBodies].map((body) => Number(body.rows[0].cells[header.cellIndex].dataset.value));
const filter = document.querySelector("input[type=search]");
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
seen.left = [...table.tBodies].filter((b) => b.checkVisibility()).map((b) => b.rows[0].cells[1].textContent);
seen.count = document.querySelector("[aria-live]").textContent;
filter.value = "";
filter.dispatchEvent(new Event("input"));
setTimeout(() => {
  seen.details = body.rows[1].innerText;
  seen.bars = body.rows[1].querySelectorAll(".bar").length;
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  body.querySelector("summary").click();
  setTimeout(() => { seen.closed = body.rows[1].hidden; done(); }, 100);
}, 100);
"""


def test_sorting_filter_and_details(tmp_path: Path) -> None:
    home = write_study(tmp_path / "results", seeds=(1, 2))
    page = build(tmp_path / "results")
    seen = browse(page, LOOK, tmp_path)
    assert seen["problems"] == [] and seen["loaded"] == []
    assert seen["focused"] and seen["closed"] and not seen["wide"]
    (first, down), (second, up) = seen["first"], seen["second"]
    assert (first, second) == ("descending", "ascending")
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(up) == 98
    assert sorted(seen["left"]) == [f"num_experts: {n}" for n in (0, 2, 4, 6, 8)]
    assert seen["count"] == "5 of 98 configurations"
    expid = embedded(page)["groups"][0]["expid"]
    run = json.loads((home / "runs" / f"{expid}_seed1.json").read_text())
    for text in (
        expid,
        f"{run['metrics']['test']['AUC']:.4f}",
        f"{run['metrics']['valid']['logloss']:.4f}",
        f"{run['num_parameters']:,}",
        f"python run_expid.py --expid {expid} --seed 1",
        "learning_rate: 0.001",
        "torch: 2.13.0+cpu",
        f"{run['stage_log'][2]['gAUC']:.4f}",
        f"{run['stage_log'][2]['routing']['item']['switch_rate']:.3f}",
        f"toy/runs/{expid}_seed1.json",
    ):
        assert text in seen["details"]
    assert seen["bars"] == 3 * 2 + 4 + 2  # three stages with two branches, and the report's


def test_nothing_from_results_runs(tmp_path: Path) -> None:
    home = write_study(tmp_path / "results", seeds=(1,))

    def poison(run: dict[str, Any]) -> None:
        run["params"]["note"] = run["device"] = run["command"][1] = NASTY
        run["versions"]["torch"] = run["stage_log"][0]["stage"] = NASTY
        run["params"][NASTY] = [NASTY]
        run["routing"][NASTY] = run["routing"]["item"]

    def plan(study: dict[str, Any]) -> None:
        study["commands"] = [NASTY]
        study["tuning"][0]["tuned"] = {"x": NASTY}
        cell = next(c for c in study["cells"] if c["expid"] == "TWIN_MoS_toy")
        cell["varied"] = {NASTY: NASTY}
        study["cells"].append(cell | {"model": NASTY, "expid": NASTY})

    change(home / "runs" / "TWIN_MoS_toy_seed1.json", poison)
    change(home / "study.json", plan)
    change(home / "dataset_card.json", lambda card: card.update(source=NASTY))
    page = build(tmp_path / "results")
    assert NASTY not in page and "<script>alert" not in page
    look = """
    const row = [...document.querySelectorAll("tbody[data-group]")].find((b) => b.textContent.includes("onerror"));
    row.querySelector("summary").click();
    setTimeout(() => { seen.details = row.rows[1].innerText; seen.all = document.body.textContent; done(); }, 300);
    """
    seen = browse(page, look, tmp_path)
    assert seen["problems"] == [] and seen["loaded"] == []
    assert seen["details"].count(NASTY) >= 6  # shown as it is
    assert NASTY in unescape(seen["all"])


def test_a_table_of_the_analysis_is_sorted_by_its_unrounded_numbers(tmp_path: Path) -> None:
    numbers = {"a": 0.11, "b": None, "c": 0.3, "d": 0.12}
    table = Table(
        title="Title <b>",
        header=((("", 1), ("toy", 2)), (("Model", 1), ("AUC", 1), ("paper", 1))),
        labels=1,
        rows=tuple(
            (Entry(name), Entry("-" if n is None else "0.1 ± 9", n, "best"), Entry())
            for name, n in numbers.items()
        ),
        notes=("A note.",),
        footnotes=("A footnote.",),
        records=(),
    )
    write_run(tmp_path / "toy", "toy", "TWIN_toy", "TWIN", 1)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table1.html").write_text(html(table))
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
