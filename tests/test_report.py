"""The report: the same bytes for the same results, nothing loaded, every number from a run."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.report.page import build

from .fake_results import write_run, write_study
from .report_page import change, embedded, rows

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a study on one data set; tests that change them take a copy."""
    folder = tmp_path_factory.mktemp("results")
    write_study(folder, seeds=(1, 2))
    return folder


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "copy"))


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return build(study)


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.report", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_same_results_give_the_same_bytes_wherever_they_are(page: str, copied: Path) -> None:
    assert build(copied) == page
    (copied / "report.html").write_text(page)  # an earlier report is no result
    assert build(copied) == page


def test_nothing_is_loaded(page: str) -> None:
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:|//)""", page)
    assert not re.search(r"url\((?!data:)|@import|<link|<iframe|<object", page)
    assert "default-src 'none'" in page


def test_every_run_is_embedded(page: str, study: Path) -> None:
    data = embedded(page)
    runs = {run["file"]: (group["expid"], run) for group in data["groups"] for run in group["runs"]}
    files = sorted(study.rglob("runs/*.json"))
    assert sorted(runs) == [file.relative_to(study).as_posix() for file in files]
    for file in files:
        expid, run = runs[file.relative_to(study).as_posix()]
        result = json.loads(file.read_text())
        assert (expid, run["seed"]) == (result["expid"], result["seed"])
        assert run["num_parameters"] == result["num_parameters"]
        assert run["metrics"]["test"] == pytest.approx(result["metrics"]["test"], abs=1e-6)
        assert run["command"] == " ".join(result["command"])
        assert f"model_id: {expid}\n" in data["texts"][run["config"]]
        assert [entry[0] for entry in run["log"]] == [e["stage"] for e in result["stage_log"]]
        assert [entry[3] for entry in run["log"]] == [
            pytest.approx([e[m] for m in run["logged"]], abs=1e-6) for e in result["stage_log"]
        ]


def test_the_leaderboard_is_what_the_runs_say(page: str, study: Path) -> None:
    groups = embedded(page)["groups"]
    order = []
    for index, cells in rows(page):
        expid = groups[index]["expid"]
        runs = [json.loads(p.read_text()) for p in study.rglob(f"runs/{expid}_seed*.json")]
        auc = [run["metrics"]["test"]["AUC"] for run in runs]
        assert cells[0][0] == runs[0]["model"] and cells[3][0] == "2"
        assert float(cells[4][0]) == pytest.approx(statistics.fmean(auc), abs=1e-12)
        assert cells[4][1] == f"{statistics.fmean(auc):.4f} ± {statistics.stdev(auc):.4f}"
        flops = statistics.fmean(run["flops_per_sample"] for run in runs) / 1e6
        assert cells[9][1] == f"{flops:,.3f}"
        memory = max(run["peak_memory_bytes"] for run in runs) / 1e6
        assert cells[12][1] == f"{memory:,.0f}"
        order.append(float(cells[4][0]))
    assert len(order) == len(groups) and order == sorted(order, reverse=True)
    both = next(cells for _, cells in rows(page) if "TWIN_MoS_toy</code>" in cells[0][1])
    assert both[2][1] == "table1, table2, knobs"
    assert "seed 2: 0." in both[0][1]  # for readers without scripts


def test_what_is_missing_is_said(page: str, copied: Path) -> None:
    assert "Nothing: all 196 runs that" in page
    for file in (copied / "toy" / "runs").glob("SDIM_GShard_*"):
        file.unlink()
    (copied / "toy" / "runs" / "TWIN_toy_max_len100_seed2.json").unlink()
    missing = build(copied).split("no run: not started, failed or cut off.")[1].split("</table>")[0]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in missing.split("<tr>")[2:]]
    assert found == [
        ["SDIM_GShard", "", "table1", "SDIM_GShard_toy", "1, 2"],
        ["TWIN", "max_len: 100", "length", "TWIN_toy_max_len100", "2"],
    ]


def test_a_seed_that_was_not_planned_does_not_change_the_mean(page: str, copied: Path) -> None:
    write_run(copied / "toy" / "runs", "toy", "TWIN_toy", "TWIN", 9)
    before = [cells for _, cells in rows(page) if "<code>TWIN_toy</code>" in cells[0][1]]
    after = [cells for _, cells in rows(build(copied)) if "<code>TWIN_toy</code>" in cells[0][1]]
    assert before[0] in after and len(after) == 2
    assert {cells[2][1] for cells in after} == {"table1", "outside the study"}


def test_the_same_budget_is_not_claimed_where_it_was_not(page: str, copied: Path) -> None:
    assert "with 2 trials for every model, the same budget for all." in page
    assert page.count("✓ chosen") == 23
    change(copied / "toy" / "study.json", lambda study: study["tuning"].pop(0))
    assert "<strong>unequal numbers of trials</strong>: Mamba4Rec had 1," in build(copied)


def test_what_is_not_a_number_is_a_dash(copied: Path) -> None:
    def diverge(run: dict[str, Any]) -> None:
        run["metrics"]["test"]["AUC"] = float("nan")

    change(copied / "toy" / "runs" / "TWIN_toy_seed1.json", diverge)
    last = rows(build(copied))[-1][1]
    assert "<code>TWIN_toy</code>" in last[0][1]
    assert last[4] == ("", "–")  # not the mean of the other seed


def test_plain_results_make_a_page_too(tmp_path: Path) -> None:
    write_run(tmp_path / "toy", "toy", "TWIN_toy", "TWIN", 1)
    page = build(tmp_path)
    assert len(rows(page)) == 1
    for text in (
        "run_expid.py",
        "no <code>dataset_card.json",
        "no <code>study.json",
        "No tables yet",
    ):
        assert text in page
    assert "No figures yet: <code>python -m engine.analysis RESULTS</code>" in page


def test_tables_and_figures_are_put_in(copied: Path) -> None:
    (copied / "tables").mkdir()
    (copied / "toy" / "figures").mkdir()
    table = '<table><tr><td data-value="0.7"><b>0.7</b> &lt;</td></tr></table>'
    (copied / "tables" / "table_1.html").write_text(table + "\n")
    (copied / "toy" / "figures" / "length_AUC.svg").write_text("<svg/>")
    page = build(copied)
    assert f'<div class="box fragment">{table}</div>' in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+" alt="Length AUC, toy"' in page
    for foreign in (
        "<script>1</script>",
        "<p>x</p>",
        "<table><img src=x></table>",
        "<table onclick='x'></table>",
    ):
        (copied / "tables" / "table_1.html").write_text(foreign)
        with pytest.raises(UserError, match="must be a <table> and notes"):
            build(copied)


def test_exit_codes(copied: Path, tmp_path: Path) -> None:
    done = report(copied)
    written = copied / "report.html"
    assert (done.returncode, done.stderr) == (0, "")
    size = written.stat().st_size / 1e6
    assert done.stdout == f"{written}: {size:.1f} MB, open it in a browser\n"
    (tmp_path / "empty").mkdir()
    run = copied / "toy" / "runs" / "TWIN_toy_seed1.json"
    for arguments, said in (
        ((tmp_path / "nowhere",), "is no folder"),
        ((tmp_path / "empty",), "has no results"),
        ((copied, "-o", tmp_path / "nowhere" / "x.html"), "name a file in a folder that is there"),
        ((copied, "-o", tmp_path), "name a file in a folder that is there"),
    ):
        done = report(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and said in done.stderr
    change(run, lambda result: result.pop("versions"))
    with pytest.raises(UserError, match=r"TWIN_toy_seed1.json: lacks versions"):
        build(copied)
    run.write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        build(copied)
