"""Studies: what is planned, tuned alike, run once, kept without paths, and found again."""

import json
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.analysis.results import read_results
from engine.common.errors import UserError
from engine.config.options import RunOptions
from engine.config.read import read_yaml
from engine.study.__main__ import main
from engine.study.experiments import EXPERIMENTS, Call, Planned, distinct, plan, widest
from engine.study.run_queue import StudySearch, balanced, model_space, seeded_trial
from engine.study.store import Store
from engine.tuner.folder import Folder
from model_zoo.registry import BACKBONES, BASELINES
from model_zoo.training.initializer import FUXICTR_START, parse_initializer

from ...support.command_line import (
    ROOT,
    Outcome,
    Workspace,
    environment,
    run_here,
    snapshot,
    wait_for,
)
from ...support.fake_results import write_run

VARIANTS = ("", "_DSelectK", "_GShard", "_ExpertChoice", "_MoS")


class StudySpace:
    """A workspace with all variants of TWIN on ``tiny``, one short epoch each, and their grids."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.space = Workspace(folder, data)
        self.output, self.queue = folder / "results", folder / "queue"
        real = read_yaml(ROOT / "config" / "model_config.yaml")
        short = {"dataset_id": "tiny", "epochs": 1, "verbose": 0, "batch_size": 512}
        for ending in VARIANTS:
            entry = real[f"TWIN{ending}_session_hopping_tiny"] | short
            self.space.models[f"TWIN{ending}_tiny"] = entry
        self.write_grid("default", learning_rate=[1e-4, 1e-3, 0.02])
        self.space.save()

    def write_grid(self, name: str, **choices: Any) -> None:
        file = self.space.config / "tuner" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        content = {"base_config": str(self.space.config), "base_expid": "TWIN_tiny"}
        file.write_text(yaml.safe_dump(content | {"tuner_space": choices}))

    def arguments(self, *more: str, experiment: str = "table1") -> list[str]:
        given = [
            experiment,
            "--dataset",
            "tiny",
            "--backbones",
            "TWIN",
            "--seeds",
            "2",
            "--budget",
            "2",
        ]
        given += ["--config", str(self.space.config), "--output", str(self.output)]
        return [*given, "--queue", str(self.queue), *more]

    def run(self, *more: str, experiment: str = "table1") -> Outcome:
        return run_here(main, *self.arguments(*more, experiment=experiment))

    def options(self, changes: dict[str, Any]) -> RunOptions:
        return RunOptions(config=self.space.config, changes=changes)

    def study(self) -> dict[str, Any]:
        return json.loads((self.output / "tiny" / "study.json").read_text())


@pytest.fixture
def here(tiny_data: Path, tmp_path: Path) -> StudySpace:
    return StudySpace(tmp_path, tiny_data)


def started(outcome: Outcome) -> list[str]:
    """The runs that a study started."""
    return [line.split()[0] for line in outcome.stdout.splitlines() if " started on " in line]


# ---------------------------------------------------------------- what is planned


def test_plans_are_the_papers() -> None:
    models = [cell.model for cell in plan("table1")]
    assert models == [b + v for b in BACKBONES for v in VARIANTS]
    assert [c.model for c in plan("table2", ["SDIM"])] == [*BASELINES, "SDIM_MoS"]
    triangle = [tuple(cell.varied.values()) for cell in plan("alphas", ["TWIN"])]
    assert len(set(triangle)) == 21 and all(0 <= i + w <= 1 for i, w in triangle)
    lengths = Counter(cell.model for cell in plan("length", ["TWIN"]))
    assert lengths == {"TWIN": 4, "TWIN_MoS": 4}
    assert [c.varied["num_experts"] for c in plan("experts", ["TWIN"])] == [0, 2, 4, 6, 8]
    starts = [cell.varied["embedding_initializer"] for cell in plan("start", ["TWIN"])]
    assert all(parse_initializer(text) for text in starts) and starts[0] == FUXICTR_START
    for name in EXPERIMENTS:
        cells = plan(name, ["TWIN"])
        assert len({f"{c.model} {c.varied}" for c in cells}) == len(cells) > 1
    with pytest.raises(UserError, match="did you mean `TWIN`"):
        plan("table1", ["twin"])


def test_a_plan_can_be_of_some_variants() -> None:
    some = plan("table1", ["TWIN", "SDIM"], ["vanilla", "MoS"])
    assert [cell.model for cell in some] == ["TWIN", "TWIN_MoS", "SDIM", "SDIM_MoS"]
    assert {c.model for c in plan("knobs", ["SDIM"], ["DSelectK"])} == {"SDIM_DSelectK"}
    assert [c.model for c in plan("table2", ["SDIM"], ["MoS"])] == [*BASELINES, "SDIM_MoS"]
    assert [c.model for c in plan("table1", ["TWIN"], ["Ensemble"])] == ["TWIN_Ensemble"]
    with pytest.raises(UserError, match=r"--variants mos: table1 has .*; did you mean `MoS`"):
        plan("table1", variants=["mos"])
    with pytest.raises(UserError, match="--variants GShard: table2 has MoS"):
        plan("table2", variants=["GShard"])


@pytest.mark.parametrize(
    ("longest", "lengths"),
    [
        (None, {100, 200, 300, 400}),
        (60, set()),
        (100, set()),
        (101, {100, 200}),
        (200, {100, 200}),
        (301, {100, 200, 300, 400}),
        (5000, {100, 200, 300, 400}),
    ],
)
def test_lengths_that_cut_nothing_are_not_run_twice(longest: int | None, lengths: set[int]) -> None:
    cells = distinct(plan("length", ["TWIN"]), longest)
    assert {cell.varied["max_len"] for cell in cells} == lengths
    assert len(cells) == 2 * len(lengths)
    assert distinct(plan("experts"), longest) == plan("experts")  # nothing else is touched


def test_a_call_is_kept_as_it_was_made() -> None:
    call = Call(
        "table1", "toy", 3, 1, ["TWIN"], ["vanilla", "MoS"], {"max_len": 50, "dcn_hidden_units": [64, 32]},
        output="a folder",
    )  # fmt: skip
    assert call.command == (
        "python -m engine.study table1 --dataset toy --seeds 3 --budget 1 --backbones TWIN "
        "--variants vanilla MoS --set max_len=50 'dcn_hidden_units=[64, 32]' --output 'a folder'"
    )
    assert Call(**json.loads(json.dumps(call.to_json()))) == call
    assert "--budget" not in Call("knobs", "toy", budget=1).command  # which refuses it


def test_only_the_widest_calls_have_to_be_repeated() -> None:
    """In whatever order they were made; a call covers itself once only."""
    one = Call("table1", "toy", 3, backbones=["TWIN"], variants=["MoS"])
    others = [
        replace(one, experiment="table2"), replace(one, dataset="micro"), replace(one, budget=1),
        replace(one, changes={"max_len": 50}), replace(one, config="mine"), replace(one, output="other"),
        replace(one, seeds=4, variants=["GShard"]), replace(one, backbones=["SDIM"]),
    ]  # fmt: skip
    wider = [
        replace(one, variants=[]), replace(one, backbones=[]), replace(one, seeds=5),
        replace(one, backbones=["SDIM", "TWIN"]), replace(one, variants=["vanilla", "MoS"]),
    ]  # fmt: skip
    assert widest([one, *others]) == [one, *others]
    assert widest([one, replace(one)]) == [one]
    control = replace(one, variants=["Ensemble"])  # no study runs it unless it is named
    assert len(widest([replace(one, variants=[]), control])) == 2
    assert widest([control, replace(one, variants=["MoS", "Ensemble"])])[0].variants[0] == "MoS"
    for wide in wider:
        assert widest([one, wide]) == widest([wide, one]) == [wide]
    everything = replace(one, seeds=5, backbones=[], variants=[])
    assert widest([*wider, everything, one]) == [everything]


def test_every_knob_and_variation_is_a_key_that_models_read(here: StudySpace) -> None:
    """A misspelt one would be refused only after hours."""
    for name in EXPERIMENTS:
        for cell in plan(name, ["TWIN"]):
            if cell.model.startswith("TWIN"):
                model_space(f"{cell.model}_tiny", here.options(cell.varied), 1)


def test_a_budget_covers_values_evenly_from_the_configurations_own() -> None:
    choices = {"rate": [1, 2, 3], "k": [1, 2], "width": [16, 32, 64]}
    own = {"rate": 3, "k": 1, "width": 64}
    drawn = balanced(choices, own, 6)
    assert drawn[0] == own and len({tuple(d.values()) for d in drawn}) == 6
    for key, values in choices.items():
        uses = Counter(d[key] for d in drawn)
        assert set(uses) == set(values) and max(uses.values()) - min(uses.values()) <= 1
    everything = balanced(choices, own, 99)
    assert len({tuple(d.values()) for d in everything}) == 18
    assert balanced({"rate": [5, 6]}, {"rate": 1}, 1) == [{"rate": 5}]
    assert balanced({"rate": [1e-4, 1e-3]}, {"rate": "1e-3"}, 1) == [
        {"rate": 1e-3}
    ]  # as YAML reads


def test_runs_of_one_configuration_share_an_experiment_id(here: StudySpace) -> None:
    plain, changed = (
        model_space("TWIN_tiny", here.options(keys), 1) for keys in ({}, {"max_len": 20})
    )
    own = [seeded_trial(plain, {}, seed) for seed in (1, 2)]
    assert own[0].expid == own[1].expid and own[0].name != own[1].name
    other = seeded_trial(plain, {"learning_rate": 0.5}, 1)
    short = seeded_trial(changed, {}, 1)
    assert len({own[0].expid, other.expid, short.expid}) == 3
    assert short.params["max_len"] == 20 and short.expid.startswith("TWIN_tiny_")
    own[0].changes = {"batch_size": 64, "accumulation_steps": 2}
    assert own[0].expid == own[1].expid + "_batch64"


# ---------------------------------------------------------------- a whole study


def test_a_short_study_from_run_to_tables(here: StudySpace) -> None:
    """One model, untuned, with one seed."""
    outcome = here.run("--variants", "vanilla", "--seeds", "1", "--budget", "1")
    assert outcome.code == 0, outcome.stderr + outcome.stdout
    (part,) = read_results(here.output)
    (cell,) = part.experiment("table1")
    (run,) = cell.runs.values()
    assert run["seed"] == 1 and run["model"] == "TWIN"
    assert "| Counting baseline |" in (here.output / "tables" / "table1.md").read_text()
    (measured,) = part.counting.items()
    assert measured[0] == run["params"]["max_len"]
    again = here.run("--variants", "vanilla", "--seeds", "1", "--budget", "1")
    assert "counting baseline" in outcome.stdout and "counting baseline" not in again.stdout


@pytest.mark.slow
def test_a_study_from_tuning_to_tables_and_again(here: StudySpace) -> None:
    """Two tuning trials, then each cell; killed on the way; then there is nothing left to do, also
    without the queue's folder, and a run can be repeated to the same metrics."""
    arguments = here.arguments("--runs-per-gpu", "2", "--seeds", "1", experiment="experts")
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.study", *arguments],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    done = here.output / "tiny" / "runs"
    wait_for(lambda: len(list(done.glob("*.json"))) >= 2 or process.poll() is not None, 200)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("*.json")}

    outcome = here.run("--runs-per-gpu", "2", "--seeds", "1", experiment="experts")
    assert outcome.code == 0, outcome.stderr + outcome.stdout
    assert not {f"{name}.json" for name in started(outcome)} & before.keys()
    for name, time in before.items():
        assert (done / name).stat().st_mtime_ns == time

    trials = here.study()["tuning"]
    best = max(trials, key=lambda trial: trial["valid"]["AUC"] + trial["valid"]["gAUC"])
    assert [trial["chosen"] for trial in trials] == [trial is best for trial in trials]
    assert len(trials) == 2 and {trial["seed"] for trial in trials} == {2024}
    (part,) = read_results(here.output)
    for cell, count in zip(part.experiment("experts"), (0, 2, 4, 6, 8), strict=True):
        (run,) = cell.runs.values()
        assert run["seed"] == 1 and run["params"]["num_experts"] == count
        assert run["params"]["learning_rate"] == best["tuned"]["learning_rate"]
    assert (here.output / "tiny" / "figures" / "scaling.svg").exists()
    texts = [path.read_text() for path in here.output.rglob("*.json")]
    assert texts and not any(str(here.queue.parent) in text for text in texts)

    whole = snapshot(here.output)
    here.queue.rename(here.queue.with_name("gone"))
    again = here.run("--seeds", "1", experiment="experts")
    assert again.code == 0 and not started(again), again.stdout
    assert snapshot(here.output) == whole
    (call,) = (Call(**entry) for entry in here.study()["studies"])
    assert call.command == (
        "python -m engine.study experts --dataset tiny --seeds 1 --budget 2 --backbones TWIN "
        "--config experiments --output results"
    )

    (cell,) = (c for c in part.experiment("experts") if c.varied == {"num_experts": 4})
    repeated = here.space.run_expid(
        "--config", str(here.output / "tiny" / "config"), "--expid", cell.expid, "--seed", "1",
        "--data-root", str(here.space.data.parent), "--model-root", str(here.space.checkpoints),
    )  # fmt: skip
    assert repeated.code == 0, repeated.stderr
    assert here.space.result(cell.expid, 1)["metrics"] == cell.runs[1]["metrics"]


@pytest.mark.slow
def test_experiments_share_runs_and_results_that_differ_are_kept_apart(
    here: StudySpace,
) -> None:
    plainly = ("--budget", "1", "--seeds", "1")
    first = here.run(*plainly, experiment="routers")
    assert first.code == 0, first.stderr + first.stdout
    probes = {path.stem for path in (here.output / "tiny" / "probes").glob("*.json")}
    (part,) = read_results(here.output)
    cells = {cell.model: cell for cell in part.experiment("routers")}
    assert set(cells) == {f"TWIN{v}" for v in VARIANTS[1:]}
    assert probes == {f"{cell.expid}_seed1" for cell in cells.values()}
    second = here.run(*plainly)
    assert second.code == 0, second.stderr
    (only,) = started(second)
    assert only.startswith("TWIN_tiny_") and only.endswith("_seed1")
    experiments = Counter(cell["experiment"] for cell in here.study()["cells"])
    assert experiments == {"routers": 4, "table1": 5}
    assert {path.suffix for path in (here.output / "tables").glob("table1.*")} == {
        ".md", ".csv", ".tex", ".html"
    }  # fmt: skip

    here.space.change_model("TWIN_MoS_tiny", topk=7)  # another configuration: only it runs again
    edited = here.run(*plainly)
    assert edited.code == 0, edited.stderr
    assert [name.rsplit("_", 2)[0] for name in started(edited)] == ["TWIN_MoS_tiny"]
    (part,) = read_results(here.output)
    (cell,) = (c for c in part.experiment("table1") if c.model == "TWIN_MoS")
    assert cell.runs[1]["params"]["topk"] == 7 and cell.expid != cells["TWIN_MoS"].expid

    again = here.run(*plainly)
    assert again.code == 0 and not started(again) and "nothing to run: all 5 runs" in again.stdout

    mixed = here.run("--set", "max_len=20", *plainly)
    assert mixed.code == 2 and "one table compares like with like" in mixed.stderr
    assert "--budget 1, now --set max_len=20 --budget 1" in mixed.stderr
    study = here.study() | {"dataset_hash": "other"}
    (here.output / "tiny" / "study.json").write_text(json.dumps(study))
    outcome = here.run(*plainly)
    assert outcome.code == 2 and "has results on other data (hash other" in outcome.stderr


def test_a_seed_that_was_tuned_with_is_a_run_too(here: StudySpace, tmp_path: Path) -> None:
    """The configuration's own seed is among the study's, and its trial won."""
    done: list[str] = []

    def search(seeds: int) -> StudySearch:
        call = Call("table1", "tiny", seeds, budget=2)
        space = model_space("TWIN_tiny", here.options({}), 2)
        cells = [Planned("table1", "TWIN", {})]
        store, folder = Store(here.output, call, "hash"), Folder(here.queue)
        folder.runs.mkdir(parents=True, exist_ok=True)
        (here.queue / "trials").mkdir(exist_ok=True)
        return StudySearch({"TWIN": space}, cells, folder, store)

    def run(study: StudySearch) -> None:
        while (trial := study.next()) is not None:
            folder, seed = study.folder.runs / "tiny", trial.params["seed"]
            path = write_run(folder, "tiny", trial.expid, "TWIN", seed)
            result = json.loads(path.read_text()) | {"params": trial.params}
            auc = 0.9 if trial.params["learning_rate"] == 1e-3 else 0.5
            metrics = {s: {"AUC": auc, "gAUC": auc, "logloss": 0.5} for s in ("valid", "test")}
            path.write_text(json.dumps(result | {"metrics": metrics, "dataset_hash": "hash"}))
            trial.metrics, trial.dataset_hash, trial.status = metrics, "hash", "done"
            study.folder.save(trial)
            study.tell(trial)
            done.append(trial.name.rsplit("_", 1)[1])

    here.space.change_model("TWIN_tiny", seed=2)
    run(search(1))
    assert done == ["seed2", "seed2", "seed1"]
    run(search(3))
    assert done[3:] == ["seed3"]
    stored = sorted(path.stem[-5:] for path in (here.output / "tiny" / "runs").glob("*.json"))
    assert stored == ["seed1", "seed2", "seed3"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backbones", "TWN"), "--backbones TWN: table1 has Mamba4Rec"),
        (("--variants", "gshard"), "--variants gshard: table1 has vanilla"),
        (("--dataset", "tinny"), "dataset_id 'tinny' is not in dataset_config.yaml"),
        (("--budget", "4"), "default.yaml has 3 combinations"),
        (("--budget", "0"), "--budget: is 0; write a number above 0"),
        (("--budget", "2"), "knobs runs at the configuration's own values"),
        (("--dataset", "zzz"), "is not in dataset_config.yaml; it has tiny"),
        (("--set", "max_length=5"), "unknown key"),
        (("--set", "max_len"), "--set max_len: write KEY=VALUE"),
        (("--set", "train_data=x.parquet"), "--set train_data: is a key of the data set"),
        (("--set", "seed=5"), "--set seed: cannot be set; the study decides it"),
        (("--gpu", "0"), "--gpu 0: torch"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    here: StudySpace, arguments: tuple[str, ...], message: str
) -> None:
    experiment = "knobs" if message.startswith("knobs") else "table1"
    outcome = here.run(*arguments, experiment=experiment)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1, outcome.stderr
    assert message in outcome.stderr
    assert not here.output.exists() and not here.queue.exists()
