"""Reading a folder of results: a study's, a plain one, and what is refused."""

import json
from pathlib import Path

import pytest

from engine.analysis.results import read_results
from engine.common.errors import UserError
from engine.report.groups import groups

from ...support.fake_results import write_run, write_study


def test_a_study_has_its_cells_with_their_planned_seeds(tmp_path: Path) -> None:
    home = write_study(tmp_path, seeds=(1, 2, 3))
    (home / "runs" / "TWIN_toy_seed2.json").unlink()
    write_run(home / "runs", "toy", "TWIN_toy", "TWIN", 9)  # not planned
    (part,) = read_results(tmp_path)
    (cell,) = (c for c in part.experiment("table1") if c.model == "TWIN")
    assert cell.seeds == (1, 2, 3) and sorted(cell.runs) == [1, 3]
    lengths = [c.varied for c in part.experiment("length") if c.model == "TWIN"]
    assert lengths == [{"max_len": n} for n in (100, 200, 300, 400)]
    assert cell.values("AUC")[3] == cell.runs[3]["metrics"]["test"]["AUC"]


def test_plain_results_are_cells_of_the_tables(tmp_path: Path) -> None:
    for model in ("TWIN", "TWIN_MoS", "MIRRN"):
        for seed in (1, 2):
            write_run(tmp_path / "toy", "toy", f"{model}_toy", model, seed)
    (part,) = read_results(tmp_path)
    assert {c.model for c in part.experiment("table1")} == {"TWIN", "TWIN_MoS"}
    assert {c.model for c in part.experiment("table2")} == {"TWIN_MoS", "MIRRN"}
    write_run(tmp_path / "tuner" / "TWIN_toy" / "runs", "toy", "trial", "TWIN", 1)
    assert len(read_results(tmp_path)) == 1  # the trials of a tuner are no results
    write_run(tmp_path / "toy", "toy", "other", "TWIN", 1)
    with pytest.raises(UserError, match="two experiments of TWIN"):
        read_results(tmp_path)


def change(file: Path, changes: dict[str, object]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"set": changes}))


def test_runs_that_set_something_are_experiments_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "toy"
    for seed in (1, 2):
        for model in ("TWIN", "TWIN_MoS"):
            write_run(home, "toy", f"{model}_toy", model, seed)
    (part,) = read_results(tmp_path)
    plain = {c.model: c.values("AUC") for c in part.experiment("table1")}
    for file in list(home.glob("*_seed1.json")):
        name = file.name.replace("_seed1", "_set_0a_seed1")
        (home / name).write_text(file.read_text().replace('"AUC": 0.', '"AUC": 0.1'))
        change(home / name, {"epochs": 6, "verbose": 0})
    (part,) = read_results(tmp_path)
    assert {c.model: c.values("AUC") for c in part.experiment("table1")} == plain
    assert {run["expid"] for run in part.runs} > {"TWIN_toy", "TWIN_toy epochs=6"}
    assert "not in Tables 1 and 2" in capsys.readouterr().out
    for file in home.glob("*_toy_seed?.json"):
        change(file, {"epochs": 6})
    for file in home.glob("*_set_*.json"):
        file.unlink()
    (part,) = read_results(tmp_path)
    assert {c.model: c.values("AUC") for c in part.experiment("table1")} == plain


@pytest.mark.parametrize("other", [{"learning_rate": 0.01}, {"match_features": True}], ids=str)
def test_runs_with_other_parameters_are_no_seeds_of_one_configuration(
    tmp_path: Path, other: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (key, value), home = next(iter(other.items())), write_study(tmp_path / "study", seeds=(1, 2, 3))
    for seed in (1, 2, 3):
        write_run(tmp_path / "plain" / "toy", "toy", "TWIN_toy", "TWIN", seed, {"verbose": seed})
    for file in (home / "runs" / "TWIN_toy_seed1.json", *tmp_path.glob("plain/toy/*_seed1.json")):
        result = json.loads(file.read_text())
        file.write_text(json.dumps(result | {"params": result["params"] | other}))
    for folder in ("study", "plain"):
        (part,) = read_results(tmp_path / folder)
        (cell,) = (c for c in part.experiment("table1") if c.model == "TWIN")
        assert sorted(cell.runs) == [2, 3]
        found = {
            g.expid: [run["seed"] for run in g.runs] for g in groups(part) if g.model == "TWIN"
        }
        assert found["TWIN_toy"] == [2, 3] and found[f"TWIN_toy {key}={value}"] == [1]
    assert "not in Tables 1 and 2" in capsys.readouterr().out


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no results"):
        read_results(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        read_results(tmp_path / "missing")
    home = write_study(tmp_path, seeds=(1, 2))
    study = json.loads((home / "study.json").read_text())
    del study["cells"][3]["seeds"]
    (home / "study.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match=r"study.json, cells\[3\].seeds: is missing"):
        read_results(tmp_path)
    (home / "study.json").unlink()
    one = next(home.glob("runs/*.json"))
    one.write_text(json.dumps(json.loads(one.read_text()) | {"dataset_hash": "other"}))
    with pytest.raises(UserError, match="ran on other data"):
        read_results(tmp_path)
    one.write_text("{")
    with pytest.raises(UserError, match="is no JSON at line 1 column 1"):
        read_results(tmp_path)
