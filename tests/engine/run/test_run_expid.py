"""``run_expid.py`` from the outside: listing, results, repeatability, kill and resume.

Two seeds of TWIN and TWIN_MoS run once, undisturbed; every other run is compared with them.
"""

import json
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from fuxictr.utils import print_to_list

from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.run.experiment import code_of, commit_of, make_loaders
from model_zoo.training.progress import save_atomically

from ...support.command_line import ROOT, Outcome, Workspace, environment, run_expid_often, snapshot

EXPIDS = ("TWIN_tiny", "TWIN_MoS_tiny")
SEEDS = (1, 2)
EPOCHS = 2
FIELDS = """
    status expid seed model dataset_id dataset_hash bayes negatives metrics routing stage_start stage_log
    num_parameters
    flops_per_sample flops_per_sample_error train_samples_per_s test_samples_per_s serving_ms peak_memory_bytes seconds device set
    versions ranks threads command params weights encoders
"""
TIMING = ("samples_per_s", "valid_seconds")


class Undisturbed(NamedTuple):
    """The reference runs: never changed by a test."""

    space: Workspace
    outcome: Outcome
    results: dict[tuple[str, int], dict[str, Any]]


def workspace(folder: Path, data: Path) -> Workspace:
    """A workspace whose joint stage lasts long enough to be killed in it."""
    space = Workspace(folder, data)
    for expid in EXPIDS:
        space.change_model(expid, epochs=EPOCHS, early_stop_patience=EPOCHS)
    return space


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    space = workspace(tmp_path_factory.mktemp("undisturbed"), tiny_data)
    (outcome,) = run_expid_often([(space, ("--expid", *EXPIDS, "--seed", "1", "2"))])
    assert outcome.code == 0, outcome.stderr
    results = {(expid, seed): space.result(expid, seed) for expid in EXPIDS for seed in SEEDS}
    return Undisturbed(space, outcome, results)


def without_timing(result: dict[str, Any]) -> dict[str, Any]:
    """What must repeat to the last bit."""
    log = [{k: v for k, v in row.items() if k not in TIMING} for row in result["stage_log"]]
    kept = ("metrics", "routing", "num_parameters", "flops_per_sample", "dataset_hash")
    return {"stage_log": log} | {name: result[name] for name in kept}


def weights(space: Workspace, expid: str, seed: int) -> dict[str, torch.Tensor]:
    return torch.load(space.file(expid, seed, "model"), weights_only=True)


def assert_same_run(space: Workspace, expected: Undisturbed) -> None:
    """TWIN_MoS with seed 1 in ``space`` has the numbers and the weights of the undisturbed run."""
    result = space.result("TWIN_MoS_tiny", 1)
    assert without_timing(result) == without_timing(expected.results["TWIN_MoS_tiny", 1])
    tensors = weights(expected.space, "TWIN_MoS_tiny", 1)
    for name, tensor in weights(space, "TWIN_MoS_tiny", 1).items():
        assert torch.equal(tensor, tensors.pop(name)), name
    assert not tensors


# ---------------------------------------------------------------- listing


def test_list_shows_every_experiment_without_torch(tmp_path: Path) -> None:
    for module in ("torch", "fuxictr", "polars", "pyarrow"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('poisoned')")

    def run(*arguments: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_expid.py"), *arguments],
            env=environment() | {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    content = yaml.safe_load((ROOT / "config" / "model_config.yaml").read_text())
    base = content.pop("Base")
    keys = ("model", "dataset_id", "max_len", "batch_size", "learning_rate", "epochs")
    keys += ("embedding_initializer",)
    expected = [
        [expid, *(str((base | entry)[key]) for key in keys)]
        for expid, entry in content.items()
        if not expid.startswith(".")
    ]
    listed = run("--list")
    assert listed.code == 0, listed.stderr
    header, ruler, *rows = listed.stdout.splitlines()
    columns = [slice(*match.span()) for match in re.finditer("-+", ruler)]
    titles = ["expid", *keys]
    assert [header[column].strip() for column in columns] == titles
    assert [[row[column].strip() for column in columns] for row in rows] == expected
    assert run().stdout == listed.stdout
    assert "poisoned" in run("--expid", expected[0][0]).stderr  # so the poison works


# ---------------------------------------------------------------- results


def test_table_shows_runs_means_and_paired_differences(undisturbed: Undisturbed) -> None:
    rows = [re.split(r"\s{2,}", line) for line in undisturbed.outcome.stdout.splitlines()]
    cells = {tuple(row[:2]): row[2:] for row in rows}
    metrics = ("AUC", "gAUC", "logloss")
    assert cells["expid", "seed"][:4] == [*(f"test {m}" for m in metrics), "valid AUC"]
    tested = {run: result["metrics"]["test"] for run, result in undisturbed.results.items()}
    for (expid, seed), values in tested.items():
        assert cells[expid, str(seed)][:3] == [f"{values[m]:.4f}" for m in metrics]
        parameters = undisturbed.results[expid, seed]["num_parameters"]
        assert cells[expid, str(seed)][4] == f"{parameters:,}"

    def shown(values: list[float], sign: str = "") -> str:
        return f"{statistics.mean(values):{sign}.4f} ± {statistics.stdev(values):.4f}"

    for expid in EXPIDS:
        expected = [shown([tested[expid, seed][m] for seed in SEEDS]) for m in metrics]
        assert cells[expid, "mean of 2"] == expected
    twin, mos = EXPIDS
    differences = [[tested[mos, s][m] - tested[twin, s][m] for s in SEEDS] for m in metrics]
    assert cells[f"{mos} - {twin}", "paired"] == [shown(values, "+") for values in differences]


def test_table_ends_with_the_routing_of_each_mixture(undisturbed: Undisturbed) -> None:
    for (expid, seed), result in undisturbed.results.items():
        assert set(result["routing"]) == ({"item", "window"} if expid == "TWIN_MoS_tiny" else set())
        for name, routing in result["routing"].items():
            line = (
                f"{expid}, seed {seed}, {name} experts served "
                + " ".join(f"{share:.0%}" for share in routing["sample_share"])
                + f" of the test samples (entropy {routing['sample_entropy']:.2f} of 1)"
            )
            assert line in undisturbed.outcome.stdout.splitlines()
            assert len(routing["sample_share"]) == 5
            assert sum(routing["sample_share"]) == pytest.approx(1)


def test_result_holds_all_fields(undisturbed: Undisturbed) -> None:
    for (expid, seed), result in undisturbed.results.items():
        assert set(result) == set(FIELDS.split())
        assert (result["status"], result["expid"], result["seed"]) == ("done", expid, seed)
        options = RunOptions(undisturbed.space.config, seed=seed)
        assert result["params"] == load(expid, options).params
        card = json.loads((undisturbed.space.data / "dataset_card.json").read_text())
        assert result["dataset_hash"] == card["hash"]
        assert result["bayes"]["AUC"] == card["bayes_auc"]["test"]
        assert result["versions"]["torch"] == version("torch")
        assert result["versions"]["fuxictr"] == version("fuxictr")
        assert result["versions"]["python"] == platform.python_version()
        assert result["versions"].get("commit", "") == commit_of(ROOT)
        assert result["threads"] == 1  # of environment()
        assert result["command"][:2] == ["python", str(ROOT / "run_expid.py")]
        assert set(result["metrics"]) == {"valid", "test"}
        assert 0 < result["seconds"]["fit"] < result["seconds"]["total"]
        positive = (
            "flops_per_sample train_samples_per_s test_samples_per_s serving_ms peak_memory_bytes"
        )
        assert all(result[name] > 0 for name in positive.split())


def test_stage_log_follows_the_stages(undisturbed: Undisturbed) -> None:
    joint = ["joint"] * EPOCHS
    stages = {"TWIN_tiny": joint, "TWIN_MoS_tiny": ["backbone", "experts", *joint]}
    for (expid, seed), result in undisturbed.results.items():
        assert [row["stage"] for row in result["stage_log"]] == stages[expid], seed
        joint = [row for row in result["stage_log"] if row["stage"] == "joint"]
        assert [row["epoch"] for row in joint] == list(range(1, EPOCHS + 1))
        start = [row for row in result["stage_start"] if row["stage"] == "joint"]
        best = [row for row in start + joint if row["best"]][-1]  # the start can be the best
        assert result["metrics"]["valid"] == {m: best[m] for m in ("AUC", "gAUC", "logloss")}


def test_checkpoint_gives_the_metrics_of_the_result(undisturbed: Undisturbed) -> None:
    for expid in EXPIDS:
        experiment = load(expid, RunOptions(undisturbed.space.config, seed=2))
        params, model_class = experiment.params, experiment.model_class
        feature_map = build_feature_map(params)
        model = model_class(feature_map, **params)
        model.load_state_dict(weights(undisturbed.space, expid, 2))
        loaders, result = make_loaders(params, feature_map, "cpu"), undisturbed.results[expid, 2]
        for split in ("valid", "test"):
            measured, told = model.evaluate(loaders[split]), result["metrics"][split]
            assert measured["logloss"] == pytest.approx(told["logloss"], abs=1e-6)
            assert measured["AUC"] == pytest.approx(told["AUC"], abs=1e-3)
        assert sum(p.numel() for p in model.parameters()) == result["num_parameters"]


def test_files_are_named_by_expid_and_seed(undisturbed: Undisturbed) -> None:
    names = {path.name for path in (undisturbed.space.checkpoints / "tiny").iterdir()}
    assert names == {
        f"{expid}_seed{seed}.{suffix}"
        for expid in EXPIDS
        for seed in SEEDS
        for suffix in ("model", "log", "json")
    }
    for expid, seed in undisturbed.results:
        log = undisturbed.space.file(expid, seed, "log").read_text()
        assert f'"model_id": "{expid}"' in log and f'"seed": {seed}' in log
        assert f"joint epoch {EPOCHS}: train loss" in log


def test_bars_line_is_the_one_of_fuxictr(undisturbed: Undisturbed) -> None:
    form = (
        r" \d{8}-\d{6},\[command\] python (.+),\[exp_id\] (.+),\[dataset_id\] (.+),"
        r"\[train\] N\.A\.,\[val\] (.+),\[test\] (.+)"
    )
    lines = (undisturbed.space.cwd / "experiments.csv").read_text().splitlines()
    runs = [(expid, seed) for seed in SEEDS for expid in EXPIDS]
    for line, (expid, seed) in zip(lines, runs, strict=True):
        metrics = undisturbed.results[expid, seed]["metrics"]
        command, *values = re.fullmatch(form, line).groups()
        assert command.startswith(str(ROOT / "run_expid.py")) and command.endswith("--seed 1 2")
        assert values[:2] == [expid, "tiny"]
        assert values[2:] == [print_to_list(metrics["valid"]), print_to_list(metrics["test"])]


# ---------------------------------------------------------------- repeating


@pytest.mark.slow
def test_seed_decides_the_numbers(
    undisturbed: Undisturbed, tiny_data: Path, tmp_path: Path
) -> None:
    space = workspace(tmp_path, tiny_data)
    outcome = space.run_expid(
        "--config", "../experiments", "--expid", "TWIN_MoS_tiny", "--seed", "1"
    )
    assert outcome.code == 0, outcome.stderr
    assert_same_run(space, undisturbed)
    assert (space.cwd / "experiments.csv").exists()
    for expid in EXPIDS:
        first, second = (without_timing(undisturbed.results[expid, seed]) for seed in SEEDS)
        assert first["metrics"] != second["metrics"]
        assert first["stage_log"] != second["stage_log"]


@pytest.mark.parametrize(
    "marker, how",
    [
        pytest.param("backbone epoch 1", signal.SIGKILL, id="killed"),
        pytest.param("joint epoch 1", signal.SIGINT, id="interrupted", marks=pytest.mark.slow),
        pytest.param("Stage experts", signal.SIGTERM, id="terminated", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_equals_an_undisturbed_one(
    marker: str,
    how: signal.Signals,
    undisturbed: Undisturbed,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    space = workspace(tmp_path, tiny_data)
    arguments = ("--expid", "TWIN_MoS_tiny", "--seed", "1")
    code, stderr = stop_after(marker, how, space, arguments)
    assert code == (130 if how == signal.SIGINT else -how), stderr
    assert "Traceback" not in stderr
    assert not space.file("TWIN_MoS_tiny", 1, "json").exists()
    assert not (space.cwd / "experiments.csv").exists()
    log_before = space.file("TWIN_MoS_tiny", 1, "log").read_text()
    assert (f"{how.name}: the state after step" in log_before) == (how != signal.SIGKILL)
    progress = space.file("TWIN_MoS_tiny", 1, "progress.json")
    known = json.loads(progress.read_text())
    progress.write_text(json.dumps(known | {"fit_seconds": known["fit_seconds"] + 1000}))

    outcome = space.run_expid(*arguments, "--resume")
    assert outcome.code == 0, outcome.stderr
    assert "resumed after" in outcome.stdout
    assert "Stage backbone: at most" not in outcome.stdout
    assert_same_run(space, undisturbed)
    seconds = json.loads(space.file("TWIN_MoS_tiny", 1, "json").read_text())["seconds"]
    assert 1000 < seconds["fit"] < seconds["total"]
    assert space.file("TWIN_MoS_tiny", 1, "log").read_text().startswith(log_before)
    names = {path.name for path in (space.checkpoints / "tiny").iterdir()}
    assert names == {f"TWIN_MoS_tiny_seed1.{suffix}" for suffix in ("model", "log", "json")}


def stop_after(
    marker: str, how: signal.Signals, space: Workspace, arguments: tuple[str, ...]
) -> tuple[int, str]:
    """Start a run and send it a signal once its log has ``marker`` and its progress is saved."""
    names = ("log", "resume", "progress.json")
    log, *saved = (space.file("TWIN_MoS_tiny", 1, suffix) for suffix in names)
    command = [sys.executable, str(ROOT / "run_expid.py"), "--config", str(space.config)]
    with subprocess.Popen(
        [*command, *arguments],
        cwd=space.cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (all(file.exists() for file in saved) and marker in log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, "no moment to stop it"
            time.sleep(0.005)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_resume_of_a_finished_run_changes_nothing(
    undisturbed: Undisturbed, tiny_data: Path, tmp_path: Path
) -> None:
    """And one that was started again later is not taken for finished."""
    before = snapshot(undisturbed.space.folder)
    again = workspace(tmp_path, tiny_data)
    params = load("TWIN_tiny", RunOptions(again.config, seed=1)).params
    again.file("TWIN_tiny", 1, "json").parent.mkdir(parents=True)
    old = undisturbed.results["TWIN_tiny", 1] | {"params": params, "status": "old"}
    again.file("TWIN_tiny", 1, "json").write_text(json.dumps(old))
    identity = json.dumps(params | code_of() | {"ranks": 1})
    save_atomically({"identity": identity}, again.file("TWIN_tiny", 1, "resume"))

    all_runs = (undisturbed.space, ("--expid", *EXPIDS, "--seed", "1", "2", "--resume"))
    one_run = (again, ("--expid", "TWIN_tiny", "--seed", "1", "--resume"))
    finished, unfinished = run_expid_often([all_runs, one_run])
    assert finished.code == 0, finished.stderr
    assert snapshot(undisturbed.space.folder) == before
    assert finished.stdout.count("finished already") == 4 and "Stage" not in finished.stdout
    assert undisturbed.outcome.stdout.endswith(finished.stdout.partition("\n\n")[2])
    assert unfinished.code == 0, unfinished.stderr
    assert "finished already" not in unfinished.stdout
    assert again.result("TWIN_tiny", 1)["status"] == "done"
