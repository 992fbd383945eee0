"""Published numbers: as printed, complete, and the notes on them are on cells that exist."""

import csv
from dataclasses import replace
from pathlib import Path

from engine.analysis.results import read_results
from engine.analysis.tables import published
from engine.analysis.tables.published import published_table
from engine.datasets.paper import NAMES

from ...support.fake_results import write_study

MICRO = "MicroVideo1.7M_x2"


def paper(table: str, dataset_id: str, model: str, metric: str) -> float | None:
    return published.published(table, dataset_id, model, metric, None).paper


def test_the_papers_values_are_those_printed() -> None:
    assert paper("table1", MICRO, "TWIN_MoS", "AUC") == 0.7111
    assert paper("table2", MICRO, "TWIN_MoS", "AUC") == 0.7083
    assert paper("table1", "Ebnerd_small_x1", "SDIM_ExpertChoice", "gAUC") == 0.6913
    assert paper("table1", MICRO, "TWIN_MoS", "logloss") is None
    assert paper("table1", "toy", "TWIN", "AUC") is None
    assert (
        published.published("table2", "KuaiVideo_x2", "MIRRN", "logloss", 1000).longctr == 0.453207
    )
    for table, models in (("table1", 20), ("table2", 7)):
        rows = list(csv.DictReader((published.FOLDER / f"paper_{table}.csv").open()))
        assert len(rows) == len({(r["dataset_id"], r["model"]) for r in rows}) == 3 * models


def test_notes_are_on_cells_that_the_paper_prints() -> None:
    rows = list(csv.DictReader((published.FOLDER / "paper_notes.csv").open()))
    assert len(rows) == 17
    for row in rows:
        place = [row[key] for key in ("table", "dataset_id", "model", "metric")]
        assert paper(*place) is not None, place
        assert published.published(*place, None).note == row["note"]
    kuai = published.published("table1", "KuaiVideo_x2", "TransAct_DSelectK", "gAUC", None).note
    gap = paper("table1", "KuaiVideo_x2", "TransAct", "gAUC") - paper(
        "table1", "KuaiVideo_x2", "TransAct_DSelectK", "gAUC"
    )
    assert f"{100 * gap:.2f} below" in kuai


def test_the_table_of_published_values_shows_every_cell_and_every_note() -> None:
    table = published_table([])
    names = [name for name, n in table.header[0] for _ in range(n)]
    columns = list(zip(names, (text for text, _ in table.header[1]), strict=True))[3:]
    shown = {
        (row[0].text, record["model"], column): entry
        for row, record in zip(table.rows, table.records[::6], strict=True)
        for column, entry in zip(columns, row[3:], strict=True)
    }
    noted = set()
    for number, name in ((1, "paper_table1.csv"), (2, "paper_table2.csv")):
        for printed in csv.DictReader((published.FOLDER / name).open()):
            for metric in ("AUC", "gAUC"):
                place = f"Table {number}", printed["model"], (printed["dataset_id"], metric)
                assert shown[place].text == printed[metric], place
                notes = shown[place].footnotes
                noted |= {
                    (f"table{number}", printed["dataset_id"], printed["model"], metric, n)
                    for n in notes
                }
    expected = csv.DictReader((published.FOLDER / "paper_notes.csv").open())
    assert noted == {tuple(row.values()) for row in expected}
    labels = [tuple(entry.text for entry in row[:3]) for row in table.rows]
    assert len(set(labels)) == 27 and len(table.records) == 27 * 6
    assert labels[1] == ("Table 1", "Mamba4Rec", "DSelect-k")
    assert labels[-1] == ("Table 2", "SDIM", "MoS") and ("Table 2", "MIRRN", "") in labels
    for row in csv.DictReader((published.FOLDER / "longctr.csv").open()):
        if row["max_len"] == "200":
            table_of = "Table 2" if row["model"] == "MIRRN" else "Table 1"
            for metric in ("AUC", "gAUC"):
                place = table_of, row["model"], (row["dataset_id"], f"LongCTR's {metric}")
                assert shown[place].text == f"{100 * float(row[metric]):.2f}"


def test_it_says_which_data_sets_have_no_run(tmp_path: Path) -> None:
    write_study(tmp_path, MICRO, seeds=(1,))
    assert published_table([]).notes[1].endswith(f"on {MICRO}, KuaiVideo_x2, Ebnerd_small_x1.")
    some = read_results(tmp_path)
    assert published_table(some).notes[1].endswith("on KuaiVideo_x2, Ebnerd_small_x1.")
    all_three = [replace(some[0], dataset_id=name) for name in NAMES]
    assert len(published_table(all_three).notes) == 1
