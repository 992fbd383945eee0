"""Published numbers: as printed, complete, and the notes on them are on cells that exist."""

from __future__ import annotations

import csv

from engine.analysis import published

MICRO = "MicroVideo1.7M_x2"


def test_the_papers_values_are_those_printed() -> None:
    assert published.paper_value("table1", MICRO, "TWIN_MoS", "AUC") == 0.7111
    assert published.paper_value("table2", MICRO, "TWIN_MoS", "AUC") == 0.7083
    assert published.paper_value("table1", "Ebnerd_small_x1", "SDIM_ExpertChoice", "gAUC") == 0.6913
    assert published.paper_value("table1", MICRO, "TWIN_MoS", "logloss") is None
    assert published.paper_value("table1", "toy", "TWIN", "AUC") is None
    assert published.longctr_value("KuaiVideo_x2", "MIRRN", 1000, "logloss") == 0.453207
    for table, models in (("table1", 20), ("table2", 7)):
        rows = list(csv.DictReader((published.FOLDER / f"paper_{table}.csv").open()))
        assert len(rows) == len({(r["dataset_id"], r["model"]) for r in rows}) == 3 * models


def test_notes_are_on_cells_that_the_paper_prints() -> None:
    rows = list(csv.DictReader((published.FOLDER / "paper_notes.csv").open()))
    assert len(rows) == 17
    for row in rows:
        place = [row[key] for key in ("table", "dataset_id", "model", "metric")]
        assert published.paper_value(*place) is not None, place
        assert published.notes(*place[:2])[place[2], place[3]] == row["note"]
    kuai = published.notes("table1", "KuaiVideo_x2")
    gap = published.paper_value(
        "table1", "KuaiVideo_x2", "TransAct", "gAUC"
    ) - published.paper_value("table1", "KuaiVideo_x2", "TransAct_DSelectK", "gAUC")
    assert f"{100 * gap:.2f} below" in kuai["TransAct_DSelectK", "gAUC"]
