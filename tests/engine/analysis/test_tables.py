"""The tables, recomputed by the test from the result files."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from engine.analysis.catalogue import write_artefacts
from engine.analysis.results import METRICS, read_results
from engine.analysis.tables.cost_table import cost
from engine.analysis.tables.grid import Entry, Table, p_value
from engine.analysis.tables.metric_tables import knobs, signals, table1, table2, tuning
from engine.analysis.tables.router_tables import mos_table
from engine.baseline.record import ALL, add
from engine.common.errors import UserError
from model_zoo.registry import BACKBONES, BASELINES, variant

from ...support.fake_results import OF_TABLES, VARIANTS, write_run, write_study

MICRO = "MicroVideo1.7M_x2"
SEEDS = (1, 2, 3)
TOY = "toy, 3 seeds, max_len 200, 2 trials each"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_study(tmp_path, seeds=SEEDS, only=OF_TABLES)


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    return write_study(tmp_path, MICRO, seeds=SEEDS, only=OF_TABLES)


def read(home: Path, expid: str) -> dict[int, dict[str, Any]]:
    """The runs of an experiment, straight from the files."""
    runs = [json.loads(path.read_text()) for path in home.glob(f"runs/{expid}_seed*.json")]
    return {run["seed"]: run for run in runs}


def change(home: Path, expid: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    for path in home.glob(f"runs/{expid}_seed*.json"):
        run = json.loads(path.read_text())
        edit(run)
        path.write_text(json.dumps(run))


def remove(home: Path, expid: str, seeds: tuple[int, ...] = SEEDS) -> None:
    for seed in seeds:
        (home / "runs" / f"{expid}_seed{seed}.json").unlink()


def array(home: Path, expid: str, metric: str, split: str = "test") -> np.ndarray:
    runs = read(home, expid)
    return np.array([runs[seed]["metrics"][split][metric] for seed in sorted(runs)])


def t_test(difference: np.ndarray) -> tuple[float, float, float]:
    """Interval and p of a paired t-test by the formula."""
    n = len(difference)
    error = difference.std(ddof=1) / np.sqrt(n)
    half = student.ppf(0.975, n - 1) * error
    p = 2 * student.sf(abs(difference.mean() / error), n - 1)
    return difference.mean() - half, difference.mean() + half, p


def record(table: Table, model: str, metric: str = "AUC", **where: Any) -> dict[str, Any]:
    where |= {"model": model, "metric": metric}
    (found,) = (r for r in table.records if all(r[key] == value for key, value in where.items()))
    return found


def headings(table: Table) -> list[str]:
    """``data set|column`` of each column."""
    columns = [[text for text, span in row for _ in range(span)] for row in table.header]
    return ["|".join(parts) for parts in zip(*columns, strict=True)]


def entry(table: Table, labels: tuple[str, ...], heading: str) -> Entry:
    (row,) = (r for r in table.rows if tuple(e.text for e in r[: table.labels]) == labels)
    return row[headings(table).index(heading)]


@pytest.mark.parametrize("metric", METRICS)
def test_table1_is_what_the_files_say(home: Path, metric: str) -> None:
    table = table1(read_results(home))
    gains, ranks = {}, {}
    for backbone in BACKBONES:
        vanilla = array(home, f"{backbone}_toy", metric)
        means = {}
        for mixture in VARIANTS:
            model = variant(backbone, mixture)
            values = array(home, f"{model}_toy", metric)
            found = record(table, model, metric)
            means[model] = values.mean()
            assert found["mean"] == pytest.approx(values.mean(), rel=1e-12)
            assert found["std"] == pytest.approx(values.std(ddof=1), rel=1e-9)
            assert found["n"] == 3
            if mixture:
                low, high, p = t_test(values - vanilla)
                assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-6)
                assert found["gain"] == pytest.approx((values - vanilla).mean(), rel=1e-9)
                gains[model] = p
            else:
                assert (found["gain"], found["p"], found["reference"]) == (None, None, "")
        order = sorted(means, key=means.get, reverse=True)
        ranks |= {model: order.index(model) + 1 for model in order}
    assert {model: record(table, model, metric)["rank"] for model in ranks} == ranks
    largest = 0.0  # Holm, over the 16 comparisons
    for done, model in enumerate(sorted(gains, key=gains.get)):
        largest = max(largest, min(1.0, (16 - done) * gains[model]))
        assert record(table, model, metric)["p"] == pytest.approx(largest, rel=1e-6)
    assert done == 15


def test_table1_has_the_papers_order_and_shows_points(home: Path) -> None:
    table = table1(read_results(home))
    assert headings(table) == [
        "|Backbone", "|Variant", f"{TOY}|AUC", f"{TOY}|gAUC",
    ]  # fmt: skip
    assert [row[0].text for row in table.rows[::5]] == ["Mamba4Rec", "TransAct", "TWIN", "SDIM"]
    variants = ["Vanilla", "DSelect-k", "GShard", "Expert Choice", "MoS"]
    assert [row[1].text for row in table.rows] == variants * 4
    values = array(home, "TWIN_MoS_toy", "AUC")
    gain = values - array(home, "TWIN_toy", "AUC")
    low, high, _ = t_test(gain)
    shown = entry(table, ("TWIN", "MoS"), f"{TOY}|AUC")
    p = record(table, "TWIN_MoS")["p"]
    assert shown.text == f"{100 * values.mean():.2f} ± {100 * values.std(ddof=1):.2f}"
    assert shown.number == pytest.approx(values.mean())
    assert shown.secondary == (
        f"{100 * gain.mean():+.2f} [{100 * low:+.2f}, {100 * high:+.2f}], p {p:.2g}",
        "rank 1",
    )


def test_marks_follow_the_rule_of_the_notes(home: Path) -> None:
    """The tests of best against second and second against third of four backbones, by hand."""
    table = table1(read_results(home))
    tests = []
    for backbone in BACKBONES:
        values = {
            m: array(home, f"{m}_toy", "AUC") for m in (variant(backbone, x) for x in VARIANTS)
        }
        order = sorted(values, key=lambda m: values[m].mean(), reverse=True)
        for i, mark in enumerate(("best", "second")):
            difference = values[order[i]] - values[order[i + 1]]
            tests.append((t_test(difference)[2], order[i], mark))
    expected, largest = {}, 0.0
    for done, (p, model, mark) in enumerate(sorted(tests)):
        largest = max(largest, (8 - done) * p)
        if largest < 0.05:
            expected[model] = mark
    marks = {r["model"]: r["mark"] for r in table.records if r["metric"] == "AUC" and r["mark"]}
    assert marks == expected
    assert marks  # the fake gain of MoS is large enough for some
    assert any("p is below 0.05" in note and "Holm" in note for note in table.notes)


@pytest.mark.slow
def test_mean_ranks_are_over_the_data_sets_that_rank_the_model(tmp_path: Path) -> None:
    homes = [write_study(tmp_path, name, seeds=SEEDS, only=OF_TABLES) for name in ("one", "two")]
    table = table1(read_results(tmp_path))
    two = [record(table, "TWIN_GShard", dataset_id=home.name)["rank"] for home in homes]
    shown = entry(table, ("TWIN", "GShard"), "Mean rank|AUC")
    assert (shown.text, shown.number) == (f"{sum(two) / 2:.2f}", sum(two) / 2)
    remove(homes[0], "TWIN_MoS_one")
    table = table1(read_results(tmp_path))
    shown = entry(table, ("TWIN", "GShard"), "Mean rank|AUC")
    assert shown.text == f"{two[1]:.2f}"
    assert shown.secondary == ("1 of 2 data sets",)
    remove(homes[1], "TWIN_MoS_two")
    table = table1(read_results(tmp_path))
    assert headings(table)[-2:] == ["Mean rank|AUC", "Mean rank|gAUC"]
    for labels in (("TWIN", "GShard"), ("TWIN", "MoS")):  # not ranked anywhere; not run
        assert entry(table, labels, "Mean rank|AUC") == Entry()


def test_fewer_seeds_are_said_and_pairs_are_the_common_ones(home: Path) -> None:
    remove(home, "SDIM_MoS_toy", (2,))
    table = table1(read_results(home))
    found = record(table, "SDIM_MoS")
    vanilla = array(home, "SDIM_toy", "AUC")[[0, 2]]
    assert found["n"] == 2
    assert found["gain"] == pytest.approx((array(home, "SDIM_MoS_toy", "AUC") - vanilla).mean())
    column = f"{TOY}|AUC"
    assert entry(table, ("SDIM", "MoS"), column).secondary[0] == "n = 2"
    assert not any(e.startswith("n =") for e in entry(table, ("SDIM", "GShard"), column).secondary)


def test_ranks_need_all_variants_with_equally_many_seeds(home: Path) -> None:
    remove(home, "SDIM_MoS_toy", (2,))
    remove(home, "TWIN_GShard_toy")
    table = table1(read_results(home))
    ranked = {r["model"].partition("_")[0] for r in table.records if r["rank"] is not None}
    assert ranked == {"Mamba4Rec", "TransAct"}
    for labels in (("SDIM", "MoS"), ("SDIM", "GShard"), ("TWIN", "MoS")):
        shown = entry(table, labels, f"{TOY}|AUC")
        assert not any("rank" in line for line in shown.secondary)


def test_runs_that_the_limit_of_epochs_ended_are_said(home: Path) -> None:
    """Best at the last epoch that was allowed; not those that patience or a worse epoch ended."""

    def limit(run: dict[str, Any]) -> None:
        run["params"]["epochs"] = run["stage_log"][-1]["epoch"]

    change(home, "SDIM_MoS_toy", limit)
    change(home, "SDIM_toy", limit)
    change(home, "SDIM_toy", lambda run: run["stage_log"][-1].update(best=run["seed"] == 3))
    table = table1(read_results(home))
    notes = {
        name: entry(table, name, f"{TOY}|AUC").footnotes
        for name in (("SDIM", "MoS"), ("SDIM", "Vanilla"), ("SDIM", "GShard"))
    }
    assert [note[0][:6] for note in list(notes.values())[:2]] == ["3 of 3", "1 of 3"]
    assert all("limit of epochs" in note for note in table.footnotes)
    assert notes["SDIM", "GShard"] == ()


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0498, "0.0498"), (0.04996, "0.04996"), (0.05, "0.05"), (0.0502, "0.05"), (0.3333, "0.33"), (2e-9, "2e-09"), (1.0, "1")],
)  # fmt: skip
def test_a_p_value_says_on_which_side_it_is(p: float, text: str) -> None:
    assert p_value(p) == text


def test_missing_variants_are_dashes_and_leave_the_family(home: Path) -> None:
    remove(home, "SDIM_MoS_toy")
    remove(home, "TWIN_toy")
    table = table1(read_results(home))
    assert entry(table, ("SDIM", "MoS"), f"{TOY}|AUC") == Entry()
    assert not [r for r in table.records if r["model"] == "SDIM_MoS"]
    orphan = record(table, "TWIN_MoS")
    assert (orphan["gain"], orphan["p"], orphan["rank"]) == (None, None, None)
    gains = [r["p"] for r in table.records if r["metric"] == "AUC" and r["p"] is not None]
    assert len(gains) == 16 - 1 - 4
    raw = [
        t_test(array(home, f"{variant(b, m)}_toy", "AUC") - array(home, f"{b}_toy", "AUC"))[2]
        for b in ("Mamba4Rec", "TransAct", "SDIM")
        for m in VARIANTS[1:]
        if (b, m) != ("SDIM", "MoS")
    ]
    assert min(gains) == pytest.approx(11 * min(raw), rel=1e-6)


def test_one_seed_has_neither_spread_nor_test(tmp_path: Path) -> None:
    table = table1(read_results(write_study(tmp_path, seeds=(5,), only=OF_TABLES)))
    found = record(table, "TWIN_MoS")
    assert (found["std"], found["low"], found["high"], found["p"]) == (None,) * 4
    assert found["gain"] > 0
    shown = entry(table, ("TWIN", "MoS"), "toy, 1 seed, max_len 200, 2 trials each|AUC")
    assert shown.text == f"{100 * found['mean']:.2f}"
    assert shown.secondary == (f"{100 * found['gain']:+.2f}", "rank 1")
    assert not any(r["mark"] for r in table.records)


def test_a_data_set_of_the_paper_shows_what_is_published(micro: Path) -> None:
    table = table1(read_results(micro))
    head = TOY.replace("toy", MICRO)
    assert [h for h in headings(table) if h.startswith(MICRO)] == [
        f"{head}|{c}" for c in ("AUC", "paper", "LongCTR", "gAUC", "paper", "LongCTR")
    ]
    assert entry(table, ("TransAct", "Vanilla"), f"{head}|paper").text == "70.58"
    assert entry(table, ("TransAct", "Vanilla"), f"{head}|LongCTR").text == "70.62"  # at length 200
    assert entry(table, ("TransAct", "MoS"), f"{head}|LongCTR") == Entry()
    doubtful = entry(table, ("TWIN", "MoS"), f"{head}|paper")
    assert doubtful.footnotes == (table.footnotes[0],)
    assert "70.83" in table.footnotes[0]
    found = record(table, "TWIN", "gAUC")
    assert (found["paper"], found["longctr"]) == (0.6967, 0.699074)


def test_a_pair_on_two_devices_says_so(home: Path) -> None:
    """Of pairs with one seed only, in each of the tables that pair."""
    path = home / "runs" / "TWIN_MoS_toy_seed2.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "a GPU"}))
    results = read_results(home)
    table = table1(results)
    assert table.footnotes == ["TWIN_MoS on a GPU, TWIN on cpu: seed 2"]
    assert entry(table, ("TWIN", "MoS"), f"{TOY}|AUC").footnotes == (*table.footnotes,)
    assert entry(table, ("TWIN", "GShard"), f"{TOY}|AUC").footnotes == ()
    (note,) = table2(results).footnotes
    assert note.startswith("TWIN_MoS on a GPU, ") and note.endswith(" on cpu: seed 2")
    against = mos_table(results)
    assert len(against.footnotes) == 3  # three rivals on one backbone
    assert against.footnotes[0] == "TWIN_MoS on a GPU, TWIN_DSelectK on cpu: seed 2"
    # Each seed in one place, but not the same place for all: there is no mixed pair.
    for path in (home / "runs").glob("*_seed2.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "a GPU"}))
    results = read_results(home)
    assert not table1(results).footnotes and not mos_table(results).footnotes


def test_a_run_whose_batch_was_halved_says_so(home: Path) -> None:
    path = home / "runs" / "TWIN_MoS_toy_seed2.json"
    run = json.loads(path.read_text())
    run["params"]["batch_size"] //= 2
    run["params"]["accumulation_steps"] = 2
    path.write_text(json.dumps(run))
    table = table1(read_results(home))
    full = run["params"]["batch_size"] * 2
    assert table.footnotes == [
        f"TWIN_MoS: batches of {full}, seed 2 of {full // 2} (out of memory)"
    ]
    assert entry(table, ("TWIN", "MoS"), f"{TOY}|AUC").footnotes == (*table.footnotes,)
    assert entry(table, ("TWIN", "GShard"), f"{TOY}|AUC").footnotes == ()


def test_longctrs_value_is_at_the_runs_length(micro: Path) -> None:
    change(micro, f"TWIN_{MICRO}", lambda run: run["params"].update(max_len=500))
    assert record(table1(read_results(micro)), "TWIN")["longctr"] == 0.718564
    change(micro, f"TWIN_{MICRO}", lambda run: run["params"].update(max_len=333))
    assert record(table1(read_results(micro)), "TWIN")["longctr"] is None


def test_a_published_value_without_our_run_stays(micro: Path) -> None:
    remove(micro, f"TWIN_{MICRO}")
    found = record(table1(read_results(micro)), "TWIN")
    assert (found["paper"], found["mean"], found["n"], found["gain"]) == (0.7034, None, 0, None)


def test_the_counting_baseline_is_a_row_and_no_model(home: Path) -> None:
    before = table1(read_results(home))
    test, valid = {"AUC": 0.8125, "gAUC": 0.75}, {"AUC": 0.625, "gAUC": 0.5}
    entry_of_all = {"metrics": {ALL: {"valid": valid, "test": test}}}
    add(home, "other data", 200, entry_of_all)
    add(home, "hash of toy", 100, entry_of_all)
    assert table1(read_results(home)) == before
    add(home, "hash of toy", 200, entry_of_all)
    results = read_results(home)
    table = table1(results)
    row = ("Counting baseline", "")
    assert entry(table, row, f"{TOY}|AUC") == Entry("81.25", 0.8125)
    assert entry(table, row, f"{TOY}|gAUC").text == "75.00"
    assert entry(knobs(results), row, f"{TOY}|AUC").text == "62.50"  # on validation data
    assert [row for row in table.rows if row[0].text != "Counting baseline"] == before.rows
    assert record(table, "TWIN")["counting"] == 0.8125
    assert any("no neural model" in note for note in table.notes)


def test_a_title_names_sampled_negatives(home: Path) -> None:
    drawn = {"per_positive": 4, "from": "time", "rate": 0.1}
    change(home, "*", lambda run: run.update(negatives=drawn))
    results = read_results(home)
    titles = {titles[0] for titles in table1(results).columns if len(titles) == 2}
    assert titles == {TOY.replace("toy", "toy, sampled negatives (4, time)")}
    assert "sampled negatives (4, time)" in mos_table(results).columns[-1][0]
    assert record(table1(results), "TWIN")["dataset_id"] == "toy"


def test_the_best_possible_value_is_a_row(home: Path) -> None:
    results = read_results(home)
    assert not any(row[0].text == "Best possible" for row in table1(results).rows)
    change(home, "*", lambda run: run.update(bayes={"AUC": 0.8125}))
    table = table1(read_results(home))
    assert entry(table, ("Best possible", ""), f"{TOY}|AUC").text == "81.25"
    assert entry(table, ("Best possible", ""), f"{TOY}|gAUC").text == "-"
    assert record(table, "TWIN")["bayes"] == 0.8125


def test_a_metric_that_was_not_computed_is_missing(home: Path) -> None:
    change(home, "TWIN_toy", lambda run: run["metrics"]["test"].pop("gAUC"))
    table = table1(read_results(home))
    assert entry(table, ("TWIN", "Vanilla"), f"{TOY}|gAUC") == Entry()
    assert record(table, "TWIN")["n"] == 3


@pytest.mark.parametrize("metric", METRICS)
def test_table2_compares_with_the_best_baseline(home: Path, metric: str) -> None:
    table = table2(read_results(home))
    values = {m: array(home, f"{m}_toy", metric) for m in BASELINES}
    best = max(BASELINES, key=lambda m: values[m].mean())
    p_values = {}
    for backbone in BACKBONES:
        model = f"{backbone}_MoS"
        difference = array(home, f"{model}_toy", metric) - values[best]
        found = record(table, model, metric)
        assert found["reference"] == best
        assert found["gain"] == pytest.approx(difference.mean(), rel=1e-9)
        p_values[model] = t_test(difference)[2]
    first = min(p_values, key=p_values.get)
    assert record(table, first, metric)["p"] == pytest.approx(4 * p_values[first], rel=1e-6)
    assert [record(table, m, metric)["gain"] for m in BASELINES] == [None] * 3
    assert sorted(record(table, r[1].text, metric)["rank"] for r in table.rows) == [*range(1, 8)]


def test_signals_compare_test_metrics_with_the_reference(tmp_path: Path) -> None:
    home = write_study(tmp_path, seeds=SEEDS, only=("knobs",))
    study = home / "study.json"
    assert signals(read_results(tmp_path)) is None
    study.write_text(study.read_text().replace("knobs", "signals"))
    table = signals(read_results(tmp_path))
    assert "on test data" in table.notes[0]
    reference = array(home, "TWIN_MoS_toy", "AUC", "test")
    difference = array(home, "TWIN_MoS_toy_router_topk2", "AUC", "test") - reference
    found = record(table, "TWIN_MoS", "AUC", varied='{"router_topk": 2}')
    assert found["gain"] == pytest.approx(difference.mean(), rel=1e-9)


def test_knobs_compare_validation_metrics_with_the_reference(home: Path) -> None:
    table = knobs(read_results(home))
    assert [row[1].text for row in table.rows] == [
        "reference", "router_weight = softmax_topk", "router_topk = 2",
    ]  # fmt: skip
    assert "on validation data" in table.notes[0]
    reference = array(home, "TWIN_MoS_toy", "gAUC", "valid")
    differences = {
        '{"router_topk": 2}': array(home, "TWIN_MoS_toy_router_topk2", "gAUC", "valid") - reference,
        '{"router_weight": "softmax_topk"}': array(
            home, "TWIN_MoS_toy_router_weightsoftmax_topk", "gAUC", "valid"
        )
        - reference,
    }
    p = sorted(t_test(difference)[2] for difference in differences.values())
    corrected = []
    for varied, difference in differences.items():
        found = record(table, "TWIN_MoS", "gAUC", varied=varied)
        assert found["split"] == "valid"
        assert found["gain"] == pytest.approx(difference.mean(), rel=1e-9)
        corrected.append(found["p"])
    expected = [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
    assert sorted(corrected) == pytest.approx(expected, rel=1e-6)


def test_costs_are_medians_and_ratios(home: Path) -> None:
    table = cost(read_results(home))
    speeds = [
        [run["train_samples_per_s"] for run in read(home, f"{m}_toy").values()]
        for m in ("TWIN_MoS", "TWIN")
    ]
    (found,) = (
        r for r in table.records
        if r["model"] == "TWIN_MoS" and r["quantity"] == "train_samples_per_s"
    )  # fmt: skip
    assert (found["median"], found["n"], found["device"]) == (median(speeds[0]), 3, "cpu")
    assert found["ratio"] == pytest.approx(median(speeds[0]) / median(speeds[1]))
    flops = median(run["flops_per_sample"] for run in read(home, "MIRRN_toy").values())
    assert entry(table, ("MIRRN", ""), "toy|MFLOPs per sample").text == f"{flops / 1e6:,.2f}"
    assert len(table.records) == 23 * 6


def test_what_was_not_measured_is_missing_and_the_error_of_flops_is_shown(home: Path) -> None:
    def edit(run: dict[str, Any]) -> None:
        run.update(peak_memory_bytes=None, flops_per_sample=2e6, flops_per_sample_error=3e4)

    change(home, "TWIN_MoS_toy", edit)
    table = cost(read_results(home))
    assert entry(table, ("TWIN", "MoS"), "toy|peak memory, MB") == Entry()
    assert "± 0.03" in entry(table, ("TWIN", "MoS"), "toy|MFLOPs per sample").secondary
    assert "standard error" in table.notes[-2]
    assert table.notes[-1] == "Speed and memory on toy: all runs were on cpu."
    assert "device" not in str(table.header)


def test_a_run_that_diverged_does_not_count(home: Path) -> None:
    path = home / "runs" / "TWIN_toy_seed2.json"
    run = json.loads(path.read_text())
    run["metrics"]["test"]["AUC"] = float("nan")
    path.write_text(json.dumps(run))
    table = table1(read_results(home))
    assert (record(table, "TWIN")["n"], record(table, "TWIN", "gAUC")["n"]) == (2, 3)


def test_speeds_are_those_of_the_device_that_most_runs_were_on(home: Path) -> None:
    def on_gpu(run: dict[str, Any]) -> None:
        if run["seed"] != 2:
            run.update(device="a GPU", train_samples_per_s=1e6 * run["seed"])

    change(home, "TWIN_MoS_toy", on_gpu)
    table = cost(read_results(home))
    own = {r["quantity"]: r for r in table.records if r["model"] == "TWIN_MoS"}
    speed, size = own["train_samples_per_s"], own["num_parameters"]
    assert (speed["median"], speed["least"], speed["most"], speed["n"]) == (2e6, 1e6, 3e6, 2)
    assert (speed["device"], speed["ratio"]) == ("a GPU", None)  # TWIN had none
    assert (size["device"], size["n"], size["ratio"] > 0) == ("", 3, True)
    heading = "toy|device of speed and memory"
    assert entry(table, ("TWIN", "MoS"), heading) == Entry("a GPU", secondary=("2 of 3 runs",))
    assert entry(table, ("TWIN", "GShard"), heading) == Entry("cpu")

    change(home, "TWIN_toy", lambda run: run.update(device="a GPU" if run["seed"] == 3 else "cpu"))
    alone = read(home, "TWIN_toy")[3]["train_samples_per_s"]
    own = {r["quantity"]: r for r in cost(read_results(home)).records if r["model"] == "TWIN_MoS"}
    assert own["train_samples_per_s"]["ratio"] == pytest.approx(2e6 / alone)


def test_headings_say_how_long_histories_were_and_how_much_was_tuned(home: Path) -> None:
    change(home, "TWIN_toy", lambda run: run["params"].update(max_len=50))
    study = json.loads((home / "study.json").read_text())

    def title(*budgets: int) -> str:
        for cell, budget in zip(study["cells"], budgets, strict=False):
            cell["budget"] = budget
        (home / "study.json").write_text(json.dumps(study))
        return headings(table1(read_results(home)))[2]

    assert title(1) == "toy, 3 seeds, max_len 50 to 200, 1 to 2 trials each|AUC"
    assert title(*[1] * len(study["cells"])) == "toy, 3 seeds, max_len 50 to 200, untuned|AUC"


def test_headings_say_of_which_groups_metrics_are(home: Path) -> None:
    def say(run: dict[str, Any]) -> None:
        run["params"]["group_id"] = "group_index"

    expids = {json.loads(file.read_text())["expid"] for file in (home / "runs").glob("*.json")}
    change(home, "TWIN_toy", say)
    assert ", grouped by group_index or user_index, " in headings(table1(read_results(home)))[2]
    for expid in expids:
        change(home, expid, say)
    assert ", grouped by group_index, " in headings(table1(read_results(home)))[2]


def test_tuning_lists_every_trial(home: Path) -> None:
    table = tuning(read_results(home))
    trials = json.loads((home / "study.json").read_text())["tuning"]
    assert len(table.rows) == len(table.records) == len(trials)
    assert [r["chosen"] for r in table.records] == [trial["chosen"] for trial in trials]
    assert [e.text for e in table.rows[1]] == [
        "toy", "Mamba4Rec", "learning_rate = 0.001", "2024", "70.10", "65.00", "yes",
    ]  # fmt: skip


def test_results_without_an_experiment_say_how_to_make_them(tmp_path: Path) -> None:
    write_run(tmp_path, "toy", "a", "MIRRN", 1)
    results = read_results(tmp_path)
    # nothing says whether anything was tuned
    assert headings(table2(results))[2] == "toy, 1 seed, max_len 200|AUC"
    assert len(table2(results).records) == 2
    for name, build in (("table1", table1), ("knobs", knobs), ("tuning", tuning)):
        assert build(results) is None
        with pytest.raises(UserError, match=f"{name}: .* docs/studies.md"):
            write_artefacts(tmp_path, [name])
