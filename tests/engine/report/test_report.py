"""The report: the same bytes for the same results, nothing loaded, every number from a run."""

import json
import re
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.catalogue import FIGURES, TABLES
from engine.analysis.results import read_results
from engine.analysis.tables.grid import html
from engine.baseline.record import ALL, add
from engine.common.errors import UserError, run_command
from engine.report.__main__ import main
from engine.report.page import build
from engine.report.pieces import PIECES
from model_zoo.registry import MIXTURES, variant

from ...support.fake_results import write_probe, write_run, write_study
from ...support.report_page import change, embedded, pieces, rows


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


@pytest.mark.slow
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
        assert run["device"] == f"cpu, {run['seed']} thread{'s' if run['seed'] > 1 else ''}"
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
        logloss = [run["metrics"]["test"]["logloss"] for run in runs]
        assert cells[0][0] == runs[0]["model"] and cells[5][0] == "2"
        assert float(cells[1][0]) == pytest.approx(statistics.fmean(auc), abs=1e-12)
        assert (
            cells[1][1] == f"{100 * statistics.fmean(auc):.2f} ± {100 * statistics.stdev(auc):.2f}"
        )
        assert cells[3][1] == f"{statistics.fmean(logloss):.4f} ± {statistics.stdev(logloss):.4f}"
        for run, value in zip(runs, auc, strict=True):  # for readers without scripts
            assert f"seed {run['seed']}: {100 * value:.2f}" in cells[0][1]
        order.append((not {"table1", "table2"} & set(cells[7][1].split(", ")), -float(cells[1][0])))
    assert len(order) == len(groups) and order == sorted(order)
    both = next(cells for _, cells in rows(page) if "TWIN_MoS_toy</code>" in cells[0][1])
    assert both[7][1] == "table1, table2, knobs"


def test_what_a_stage_began_with_stands_before_its_evaluations(copied: Path) -> None:
    def older_to_newer(run: dict[str, Any]) -> None:
        start = {"stage": "joint", "AUC": 0.61, "best": False, "valid_seconds": 0.1}
        run.update(stage_start=[start], peak_memory_bytes=None)

    change(copied / "toy" / "runs" / "TWIN_toy_seed1.json", older_to_newer)
    page = build(copied)
    runs = [run for group in embedded(page)["groups"] for run in group["runs"]]
    run = next(run for run in runs if run["file"] == "toy/runs/TWIN_toy_seed1.json")
    assert run["log"][0] == ["joint", 0.0, None, [0.61, None, None], False, None, None, {}]
    assert len(run["log"]) == 3 and run["peak_memory_bytes"] is None


def test_costs_are_medians(copied: Path) -> None:
    costs = {
        "num_parameters": (8, 1), "flops_per_sample": (9, 1e6), "train_samples_per_s": (10, 1),
        "test_samples_per_s": (11, 1), "serving_ms": (12, 1), "peak_memory_bytes": (13, 1e6),
    }  # fmt: skip
    write_run(copied / "toy" / "runs", "toy", "TWIN_toy", "TWIN", 3)
    change(
        copied / "toy" / "study.json",
        lambda study: [c["seeds"].append(3) for c in study["cells"] if c["expid"] == "TWIN_toy"],
    )
    for seed, factor in ((1, 2), (2, 3), (3, 100)):
        run = copied / "toy" / "runs" / f"TWIN_toy_seed{seed}.json"
        change(
            run, lambda r, f=factor: r.update({key: f * unit for key, (_, unit) in costs.items()})
        )
    cells = next(c for _, c in rows(build(copied)) if "<code>TWIN_toy</code>" in c[0][1])
    shown = ["3", "3.00", "3", "3", "3.0", "3"]
    assert [cells[place][1] for place, _ in costs.values()] == shown
    for path in copied.glob("toy/runs/*.json"):  # of an older version
        change(path, lambda run: run.pop("serving_ms"))
    cells = next(c for _, c in rows(build(copied)) if "<code>TWIN_toy</code>" in c[0][1])
    assert [c[1] for c in cells[8:]] == ["3", "3.00", "3", "3", "3"]


def test_the_best_is_not_chosen_among_other_experiments(page: str, copied: Path) -> None:
    lucky = copied / "toy" / "runs" / "TWIN_MoS_toy_router_topk2_seed1.json"
    change(lucky, lambda run: run["metrics"]["test"].update(AUC=0.999))
    write_run(copied / "toy" / "runs", "toy", "TWIN_new", "TWIN", 1)
    change(
        copied / "toy" / "runs" / "TWIN_new_seed1.json",
        lambda run: run["metrics"]["test"].update(AUC=0.998),
    )
    changed = build(copied)

    def overview(page: str) -> str:
        return page.split("Best mean test AUC")[1].split("</table>")[0]

    assert overview(changed).replace(">205<", ">204<") == overview(page)
    tables, others = changed.split("<h4>Other experiments</h4>")
    assert len(rows(tables)) == 23 and "<code>TWIN_new</code>" not in tables
    assert "<code>TWIN_MoS_toy_router_topk2</code>" in others and len(rows(others)) == 80
    assert "99.80" in rows(others)[0][1][1][1]


def test_a_study_without_the_tables_has_no_best(copied: Path) -> None:
    def only_alphas(study: dict[str, Any]) -> None:
        study["cells"] = [cell for cell in study["cells"] if cell["experiment"] == "alphas"]

    change(copied / "toy" / "study.json", only_alphas)
    page = build(copied)
    none = "<td>–</td>" + 3 * '<td class="n">–</td>' + "</tr>"
    assert none in page.split("Best mean test AUC")[1].split("</table>")[0]
    assert "No run of table1 or table2 yet." in page and len(rows(page)) == 102


def test_the_best_stands_beside_its_backbone_and_what_is_no_model(copied: Path) -> None:
    for path in copied.glob("toy/runs/TWIN_MoS_toy_seed*.json"):

        def best(run: dict[str, Any]) -> None:
            run["metrics"]["test"]["AUC"], run["bayes"] = 0.9, {"AUC": 0.95}

        change(path, best)
    found = {"valid": {"AUC": 0.6}, "test": {"AUC": 0.61}}
    add(copied / "toy", "hash of toy", 200, {"metrics": {ALL: found}})
    page = build(copied)
    row = page.split("Best mean test AUC")[1].split("</table>")[0]
    alone = next(row for _, row in rows(page) if row[0][0] == "TWIN")[1][1]
    order = ("90.00", "TWIN_MoS", alone, "61.00", "95.00")
    places = [row.index(text) for text in order]
    assert places == sorted(places)
    for path in copied.glob("toy/runs/MIRRN_toy_seed*.json"):
        change(path, lambda run: run["metrics"]["test"].update(AUC=0.94))
    row = build(copied).split("Best mean test AUC")[1].split("</table>")[0]
    assert 'MIRRN</span></td><td class="n">–</td>' in row  # which has no backbone


def test_every_table_and_figure_has_a_name_and_a_sentence() -> None:
    own = [name for name in TABLES if name != "published"]
    assert sorted(piece.name for piece in PIECES) == sorted([*own, *FIGURES])
    assert all(bool(piece.alt) == (piece.name in FIGURES) for piece in PIECES)


def test_the_papers_data_sets_without_runs_are_named(copied: Path) -> None:
    sentence = "no run on the paper's own MicroVideo1.7M_x2, KuaiVideo_x2, Ebnerd_small_x1,"
    page = build(copied)
    assert sentence in page and 'href="#table-published"' in page and 'id="table-published"' in page


def test_the_leaderboards_speed_is_that_of_the_usual_device(copied: Path) -> None:
    for path in copied.glob("toy/runs/Mamba4Rec_MoS_toy_seed*.json"):
        gpu = path.stem.endswith("1")
        change(path, lambda run, gpu=gpu: run.update(
            device="a GPU" if gpu else "cpu", train_samples_per_s=1234.0 if gpu else 9e9,
            flops_per_sample=2e6 if gpu else 3e6,
        ))  # fmt: skip
    (row,) = (
        cells for _, cells in rows(build(copied)) if "<code>Mamba4Rec_MoS_toy<" in cells[0][1]
    )
    texts = [text for _, text in row]
    assert "1,234" in texts and texts[-1] == "a GPU (1 of 2 runs)"  # the first by name
    assert (
        "2.50" in texts
    )  # FLOPs do not depend on the device: all seeds count, as in the cost table


def test_the_paper_piece_by_piece(copied: Path) -> None:
    home = copied / "toy"
    write_probe(home, "TWIN_MoS")
    for gone in ("Mamba4Rec*", "TransAct*", "SDIM_GShard_toy_seed*", "MIRRN_*", "*_num_experts*"):
        for file in (home / "runs").glob(gone):
            file.unlink()
    change(
        home / "study.json",
        lambda study: study.update(
            studies=[
                {
                    "experiment": "knobs",
                    "dataset": "toy",
                    "seeds": 3,
                    "budget": 1,
                    "backbones": ["TWIN"],
                },
                {"experiment": "knobs", "dataset": "toy", "seeds": 1, "budget": 1},
                {
                    "experiment": "table1",
                    "dataset": "toy",
                    "seeds": 2,
                    "budget": 4,
                    "output": "here",
                    "backbones": ["TWIN"],
                    "variants": ["MoS"],
                    "changes": {"max_len": 50},
                },
            ]
        ),
    )
    page = build(copied)
    known = pieces(page)
    study, places = "python -m engine.study", "--set max_len=50 --output here"
    options = "--dataset toy --seeds 2 --budget 4"
    unrun = [variant(b, m) for b in ("Mamba4Rec", "TransAct") for m in ("", *MIXTURES)]
    table1 = (
        f"partly : 9 of 20 models what is missing {', '.join(unrun)}, SDIM_GShard: not run "
        f"{study} table1 {options} --backbones Mamba4Rec TransAct SDIM {places}"
    )
    assert known["Table 1 backbones and mixtures"] == [table1]
    assert known["Figure 4 utility and FLOPs"] == [table1]
    assert known["Table 2 MoS and models of long histories"][0] == (
        "partly : 4 of 7 models; MIRRN, Mamba4Rec_MoS, TransAct_MoS: not run "
        f"{study} table2 {options} --backbones Mamba4Rec TransAct {places}"
    )
    assert known["Figures 2 and 8 session hopping"][0] == "present"
    assert known["Figures 5 and 9 dispatch of popular and rare items"][0] == (
        "partly : 1 of 4 models; TWIN_DSelectK, TWIN_GShard, TWIN_ExpertChoice: not run "
        f"{study} routers {options} --backbones TWIN {places}"
    )
    assert known["Figure 6 history length and number of experts"][0] == (
        "partly : 16 of 52 configurations what is missing Mamba4Rec, Mamba4Rec_MoS, TransAct, TransAct_MoS, "
        "5 of 9 of TWIN_MoS, 5 of 9 of SDIM_MoS: not run "
        f"{study} length {options} --backbones Mamba4Rec TransAct --output here "
        f"{study} experts {options} --backbones Mamba4Rec TransAct TWIN SDIM {places}"
    )
    assert known["Figure 7 fusion weights"][0].startswith("partly : 21 of 84 configurations;")
    assert known["routing over training"][0] == known["themes of the experts"][0] == "present"
    assert known["knobs, one key changed at a time"][0].startswith("partly : 3 of 108")
    assert (
        f"{study} knobs --dataset toy --seeds 3 --back"
        in known["knobs, one key changed at a time"][0]
    )
    assert "partly : 11 of 23" in known["cost of the models of Tables 1 and 2"][0]
    assert known["tuning of the models of Tables 1 and 2"][0] == "present"
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


def test_missing_seeds_are_missing_from_the_pieces(copied: Path) -> None:
    (copied / "toy" / "runs" / "SDIM_MoS_toy_seed2.json").unlink()
    assert pieces(build(copied))["Table 1 backbones and mixtures"][0] == (
        "partly : 19 of 20 models; SDIM_MoS: seeds missing "
        "python -m engine.study table1 --dataset toy --seeds 2 --budget 3 --backbones SDIM --output results"
    )


def test_pieces_that_are_absent_name_their_command(tmp_path: Path) -> None:
    write_run(tmp_path / "plain" / "toy", "toy", "TWIN_toy", "TWIN", 1)
    known = pieces(build(tmp_path / "plain"))
    assert known["Figure 7 fusion weights"] == [
        "absent python -m engine.study alphas --dataset toy --seeds 5 --budget 3 --output results",
    ]  # fmt: skip


def test_lengths_are_wanted_where_histories_are_long_enough(copied: Path) -> None:
    def longest(items: int) -> str:
        split = {"history_length": {"max": items, "mean": 9.0, "histogram": {"0+": 1}}}
        split |= {"rows": 1, "users": 1, "label_rate": 0.5}
        card = {"dataset_id": "toy", "splits": {"train": split}}
        (copied / "toy" / "dataset_card.json").write_text(json.dumps(card))
        return pieces(build(copied))["Figure 6 history length and number of experts"][0]

    for file in (copied / "toy" / "runs").glob("*_max_len*"):
        file.unlink()
    assert "20 of 52 configurations" in longest(301)
    assert longest(100) == "present"


def test_what_is_missing_is_said(page: str, copied: Path) -> None:
    assert "Nothing: all 204 runs of the studies" in page
    for file in (copied / "toy" / "runs").glob("SDIM_GShard_*"):
        file.unlink()
    (copied / "toy" / "runs" / "TWIN_toy_max_len100_seed2.json").unlink()
    missing = build(copied).split("no run: not started, failed or cut off.")[1].split("</table>")[0]
    found = [re.findall(r"<th>(.*?)</th>", row) for row in missing.split("<tr>")[2:]]
    assert found == [
        ["SDIM_GShard", "", "table1", "SDIM_GShard_toy", "1, 2"],
        ["TWIN", "max_len = 100", "length", "TWIN_toy_max_len100", "2"],
    ]


def test_a_seed_that_was_not_planned_does_not_change_the_mean(page: str, copied: Path) -> None:
    write_run(copied / "toy" / "runs", "toy", "TWIN_toy", "TWIN", 9)
    before = [cells for _, cells in rows(page) if "<code>TWIN_toy</code>" in cells[0][1]]
    after = [cells for _, cells in rows(build(copied)) if "<code>TWIN_toy</code>" in cells[0][1]]
    assert before[0] in after and len(after) == 2
    assert {cells[7][1] for cells in after} == {"table1", "outside the study"}


def test_what_a_run_set_is_shown_and_not_averaged_with_other_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "toy", "toy", "TWIN_toy", "TWIN", 1)
    first = tmp_path / "toy" / "TWIN_toy_seed1.json"
    other = Path(shutil.copy(first, tmp_path / "toy" / "TWIN_toy_set_0_seed1.json"))
    change(other, lambda run: run.update(set={"max_len": 50}))
    page = build(tmp_path)
    found = [(cells[5][0], cells[6][1], cells[7][1]) for _, cells in rows(page)]
    assert found == [("1", "", "table1"), ("1", "max_len = 50", "other settings")]
    (cell,) = read_results(tmp_path)[0].experiment("table1")
    assert cell.runs[1]["file"] == first


def test_repeating_names_the_folder_of_the_studies(copied: Path) -> None:
    call = {"experiment": "table1", "dataset": "toy", "output": "my results"}
    change(copied / "toy" / "study.json", lambda study: study.update(studies=[call]))
    text = re.sub("<[^>]+>", "", build(copied).split("<pre>")[1].split("</pre>")[0])
    assert "--output &#39;my results&#39;" in text
    assert "engine.report &#39;my results&#39;" in text and "RESULTS" not in text


def test_the_counting_baseline_and_sampled_negatives_are_named(page: str, copied: Path) -> None:
    assert page.count("Counting baseline") == 1 and "sampled negatives (" not in page
    metrics = {"test": {"AUC": 0.8125, "logloss": 0.5}}
    add(
        copied / "toy", "hash of toy", 200, {"metrics": {ALL: metrics | {"valid": metrics["test"]}}}
    )
    for path in (copied / "toy" / "runs").glob("*.json"):
        change(
            path, lambda run: run.update(negatives={"per_positive": 4, "from": "time", "rate": 0.1})
        )
    found = build(copied)
    line = "Counting baseline, no neural model, max_len 200: test AUC 81.25, test logloss 0.5000."
    assert f"<p>{line}</p>" in found
    assert "<h2>toy, sampled negatives (4, time)</h2>" in found


def test_metrics_are_points_everywhere(copied: Path) -> None:
    change(
        copied / "toy" / "runs" / "TWIN_toy_seed1.json",
        lambda run: run.update(bayes={"AUC": 0.91234, "logloss": 0.34567}),
    )
    page = build(copied)
    assert "is generated: AUC 91.23, logloss 0.3457." in " ".join(page.split())
    trial = page.split("trials</summary>")[1].split("<td>yes")[0].split("<tr>")[-1]
    assert re.findall(r"<td[^>]*>(.*?)</td>", trial) == ["2024", "70.10", "65.00"]
    assert page.count("AUC and gAUC are in points") == 1


def test_the_same_budget_is_not_claimed_where_it_was_not(page: str, copied: Path) -> None:
    assert "with 2 trials for every model, the same budget for all." in page
    assert page.count("<td>yes</td>") == 23
    change(copied / "toy" / "study.json", lambda study: study["tuning"].pop(0))
    assert "<strong>unequal numbers of trials</strong>: Mamba4Rec had 1," in build(copied)


def test_what_is_not_a_number_is_a_dash(copied: Path) -> None:
    def diverge(run: dict[str, Any]) -> None:
        run["metrics"]["test"]["AUC"] = float("nan")

    change(copied / "toy" / "runs" / "TWIN_toy_seed1.json", diverge)
    last = rows(build(copied).split("Other experiments")[0])[-1][1]
    assert "<code>TWIN_toy</code>" in last[0][1]
    assert last[1] == ("", "-")  # not the mean of the other seed


def test_plain_results_make_a_page_too(tmp_path: Path) -> None:
    write_run(tmp_path / "toy", "toy", "TWIN_toy", "TWIN", 1)
    page = build(tmp_path)
    assert len(rows(page)) == 1 and "Other experiments" not in page
    auc = rows(page)[0][1][1][1]
    assert f'{auc} <span class="dim">TWIN</span>' in page  # without a study all are compared
    for text in (
        "run_expid.py",
        "no <code>dataset_card.json",
        "no <code>study.json",
    ):
        assert text in page


def test_tables_and_figures_are_made_from_the_results(page: str, study: Path) -> None:
    results = read_results(study)
    made = {name: make(results) for name, make in TABLES.items()}
    assert [name for name, table in made.items() if table is None] == ["signals"]  # was not run
    for name, table in ((name, html(table)) for name, table in made.items() if table):
        assert (f'id="table-{name}">{table}</div>' in page) == (name != "tuning")
        assert table in page  # trials are in the data set's own section
    assert (
        'alt="On toy: test AUC and gAUC of every variant of every backbone over its FLOPs per '
        'sample."><figcaption>Figure 4 of the paper: utility and FLOPs<'
    ) in page
    assert 'id="data0-alphas"' in page and 'id="data0-scaling"' not in page
    assert page.count('<img src="data:image/svg+xml;base64,') == len(FIGURES) - 1


def test_files_beside_the_results_are_not_read(page: str, copied: Path) -> None:
    """Not even what looks like a table or a figure of the analysis: it could run in the page."""
    evil = "<table><!--><script>alert(1)</script>--></table>"
    for file in (copied / "tables" / "table1.html", copied / "toy" / "figures" / "alphas.svg"):
        file.parent.mkdir()
        file.write_text(evil)
    assert build(copied) == page


def test_models_that_this_checkout_does_not_know_are_listed_last(copied: Path) -> None:
    home = copied / "toy"
    for model in ("MeanPool", "MeanPool_MoS", "TWIN_SoftSlots"):
        for seed in (1, 2):
            write_run(home / "runs", "toy", f"{model}_toy", model, seed)
        cell = {"experiment": "table1", "model": model, "varied": {}, "expid": f"{model}_toy"}
        change(
            home / "study.json",
            lambda s, c=cell: s["cells"].append(c | {"seeds": [1, 2], "budget": 2, "changes": {}}),
        )
    page = build(copied)
    assert len(rows(page.split("Other experiments")[0])) == 26
    table = page.split('id="table-table1"')[1].split("</table>")[0]
    labels = [tuple(re.findall("<th>(.*?)</th>", row)) for row in table.split("<tr>")[3:]]
    assert labels[-2:] == [("MeanPool", "Vanilla"), ("MeanPool", "MoS")]
    assert labels[14:16] == [("TWIN", "MoS"), ("TWIN", "SoftSlots")]
    assert pieces(page)["Table 1 backbones and mixtures"] == ["present"]


def test_exit_codes(
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def report(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["engine.report", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            run_command(main)
        return exited.value.code, *capsys.readouterr()

    code, out, err = report(copied)
    size = (copied / "report.html").stat().st_size / 1e6
    assert (code, err) == (0, "")
    assert out == f"{copied / 'report.html'}: {size:.1f} MB, open it in a browser\n"
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "nowhere",), "is no folder"),
        ((tmp_path / "empty",), "has no results"),
        ((copied, "-o", tmp_path / "nowhere" / "x.html"), "name a file in a folder that is there"),
        ((copied, "-o", tmp_path), "name a file in a folder that is there"),
    ):
        code, out, err = report(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and said in err
    run = copied / "toy" / "runs" / "TWIN_toy_seed1.json"
    change(run, lambda result: result.pop("versions"))
    with pytest.raises(UserError, match=r"TWIN_toy_seed1.json, versions: is missing"):
        build(copied)
    run.write_text("{")
    with pytest.raises(UserError, match="is no JSON at line 1"):
        build(copied)
