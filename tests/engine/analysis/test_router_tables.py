"""MoS against the other routers, and how they route, recomputed from the result files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.analysis.results import METRICS, read_results
from engine.analysis.tables.grid import Table
from engine.analysis.tables.router_tables import mos_table, routing_table

from ...support.fake_results import OF_TABLES, PAPERS, write_study
from .test_tables import array, change, remove, t_test

RIVALS = ("DSelectK", "GShard", "ExpertChoice")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_study(tmp_path, seeds=(1, 2, 3), only=OF_TABLES)


def record(table: Table, **where: Any) -> dict[str, Any]:
    (found,) = (r for r in table.records if all(r[key] == value for key, value in where.items()))
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_mos_is_compared_with_every_other_router_of_its_backbone(home: Path, metric: str) -> None:
    table = mos_table(read_results(home))
    raw = {}
    for backbone in PAPERS:
        mos = array(home, f"{backbone}_MoS_toy", metric)
        for router in RIVALS:
            difference = mos - array(home, f"{backbone}_{router}_toy", metric)
            low, high, raw[backbone, router] = t_test(difference)
            found = record(table, backbone=backbone, router=router, metric=metric)
            assert found["gain"] == pytest.approx(difference.mean(), rel=1e-9)
            assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-6)
    largest = 0.0  # Holm, over the 12 comparisons
    for done, place in enumerate(sorted(raw, key=raw.get)):
        largest = max(largest, min(1.0, (12 - done) * raw[place]))
        found = record(table, backbone=place[0], router=place[1], metric=metric)
        assert found["p"] == pytest.approx(largest, rel=1e-6)
    assert done == 11
    assert [row[0].text for row in table.rows] == [b for b in PAPERS for _ in RIVALS]


def test_a_router_without_runs_has_no_row_and_no_part_in_the_correction(home: Path) -> None:
    for backbone in PAPERS[1:]:
        remove(home, f"{backbone}_MoS_toy")
    remove(home, f"{PAPERS[0]}_GShard_toy")
    remove(home, f"{PAPERS[0]}_DSelectK_toy", (2,))
    table = mos_table(read_results(home))
    assert [row[1].text for row in table.rows] == ["DSelect-k", "Expert Choice"]
    assert [row[2].secondary[0][:5] == "n = 2" for row in table.rows] == [True, False]
    mos = array(home, "Mamba4Rec_MoS_toy", "AUC")
    two = t_test(mos[[0, 2]] - array(home, "Mamba4Rec_DSelectK_toy", "AUC"))
    three = t_test(mos - array(home, "Mamba4Rec_ExpertChoice_toy", "AUC"))
    smaller = min(two[2], three[2])
    assert min(r["p"] for r in table.records if r["metric"] == "AUC") == pytest.approx(2 * smaller)
    remove(home, f"{PAPERS[0]}_MoS_toy")
    assert mos_table(read_results(home)) is None


def test_dead_experts_are_counted_over_seeds(home: Path) -> None:
    dead = iter([[0, 3], [], [1]])

    def edit(run: dict[str, Any]) -> None:
        run["routing"]["window"] |= {"dead": next(dead), "switch_rate": 0.1 * run["seed"]}

    change(home, "TWIN_MoS_toy", edit)
    table = routing_table(read_results(home))
    found = record(table, model="TWIN_MoS", branch="window", experiment="table1")
    assert (found["fewest_dead"], found["most_dead"], found["experts"], found["n"]) == (0, 2, 5, 3)
    assert found["switch_rate"] == pytest.approx(0.2)
    assert found["switch_rate_std"] == pytest.approx(0.1)
    assert found["consistency"] is None
    row = next(r for r in table.rows if r[1].text == "TWIN" and r[4].text == "window")
    assert row[5].text == "0 to 2 of 5" and row[-2].text == "-"
    runs = [json.loads(path.read_text()) for path in home.glob("runs/SDIM_GShard_toy_seed*.json")]
    entropy = [run["routing"]["moe"]["item_entropy"] for run in runs]
    found = record(table, model="SDIM_GShard", branch="moe")
    assert found["item_entropy"] == pytest.approx(np.mean(entropy))


def test_knobs_are_in_the_routing_table_and_vanilla_models_are_not(home: Path) -> None:
    table = routing_table(read_results(home))
    assert all("_" in r["model"] for r in table.records)
    knobs = [r for r in table.records if r["experiment"] == "knobs"]
    assert knobs and any(r["varied"] for r in knobs)
    shown = {row[3].text for row in table.rows}
    assert "knobs: nothing" in shown and "" in shown
