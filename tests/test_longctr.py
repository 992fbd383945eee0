"""Both ways round: our models under LongCTR's own ``run_expid.py``, and LongCTR's models and
published configurations under ours.

Every test needs ``LONGCTR_DIR=DIR``, a checkout of LongCTR; it is copied, never changed.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import model_zoo
from engine.bench import inputs
from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.read import list_experiments, read_yaml

from .support.command_line import ROOT, Outcome, environment, run_script
from .support.longctr_client import (
    LONGCTR,
    SHIM,
    install_fuxictr,
    needs_longctr,
    write_config,
    write_data,
)

pytestmark = needs_longctr

OURS = (
    "TWIN_MoS",
    "SDIM_GShard",
    "TransAct_DSelectK",
    "Mamba4Rec_ExpertChoice",
    "MIRRN",
    "AttenMixer",
    "MiasRec",
)
SMALL = {"num_experts": 2, "dim_feedforward": 32, "dcn_hidden_units": [32, 16]}
SMALL |= {"epochs": 1, "max_len": 20}
ATTENTION = {"attention_dim": 16, "short_seq_len": 16}  # above the shortest history
MLP = {"dnn_hidden_units": [32, 16], "dnn_activations": "relu", "batch_norm": True}
THEIRS: dict[str, dict[str, Any]] = {
    "DIN": MLP,
    "SIM": MLP | ATTENTION | {"topk": 5},
    "ETA": MLP | ATTENTION | {"topk": 5},
    "SDIM": MLP | ATTENTION | {"num_hashes": 4},
    "MIRRN": MLP | ATTENTION | {"topk": 5},
    "TransAct": {"dcn_hidden_units": [32], "dim_feedforward": 32},
    "DCNv2": {"parallel_dnn_hidden_units": [32]},
    "DIEN": MLP,
    "FinalMLP": {},
    "TWIN": MLP | ATTENTION | {"topk": 5, "Kc_cross_features": 0},
}
PUBLISHED = sorted(file.parent for file in LONGCTR.glob("benchmark/**/model_config.yaml"))
RUN_HERE = """
import sys
from dataclasses import replace
from pathlib import Path
from engine.config.load import load
from engine.config.options import RunOptions
from engine.run.experiment import run

root, *jobs = sys.argv[1:]
for config, expid, zoo in zip(jobs[::3], jobs[1::3], jobs[2::3]):
    options = RunOptions(Path(config), model_zoo=Path(zoo) if zoo else None, home=Path(root))
    run(load(expid, options))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set with whole numbers."""
    return write_data(tmp_path_factory.mktemp("data"))


# ---------------------------------------------------------------- our models, LongCTR's runner


@pytest.fixture(scope="module")
def fuxictr_232(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version that LongCTR asks for, made to run on the packages of today."""
    folder = install_fuxictr("2.3.2", tmp_path_factory.mktemp("fuxictr_2.3.2"))
    (folder / "sitecustomize.py").write_text(SHIM)
    return folder


@pytest.fixture(scope="module")
def longctr_with_ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of LongCTR with ``model_zoo`` and the one line that names its models."""
    folder = tmp_path_factory.mktemp("checkout") / "LongCTR"
    shutil.copytree(LONGCTR, folder, ignore=shutil.ignore_patterns("benchmark", ".git"))
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "model_zoo", folder / "model_zoo", ignore=skip)
    with open(folder / "__init__.py", "a") as file:
        file.write("\nfrom model_zoo import *\n")
    return folder


@pytest.mark.parametrize("name", OURS)
def test_longctrs_runner_trains_our_model(
    name: str, data: Path, fuxictr_232: Path, longctr_with_ours: Path, tmp_path: Path
) -> None:
    own_data = shutil.copytree(data, tmp_path / "data" / data.name)  # feature_map.json is rewritten
    keys = read_yaml(ROOT / "config" / "model_config.yaml")[f"{name}_session_hopping_tiny"]
    small = {key: value for key, value in SMALL.items() if key in keys}
    experiment = keys | small | {"dataset_id": data.name}
    experiment |= {"embedding_initializer": "partial(nn.init.normal_, std=0.25)"}
    config = write_config(tmp_path / f"config_{name}", own_data, {name: experiment})
    done = subprocess.run(
        [sys.executable, "run_expid.py", "--config", str(config), "--expid", name],
        cwd=longctr_with_ours,
        env=environment() | {"PYTHONPATH": str(fuxictr_232)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    line = (longctr_with_ours / f"config_{name}.csv").read_text()
    assert f"[exp_id] {name}," in line
    for part in line.split("[val]")[1].split("[test]"):
        metrics = {key: float(value) for key, value in re.findall(r"(\w+): ([\d.]+)", part)}
        assert set(metrics) == {"gAUC", "AUC", "logloss"}
        assert all(0 < value < 2 for value in metrics.values())


# ---------------------------------------------------------------- LongCTR's models, our runner


def test_our_runner_trains_longctrs_models(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config", data, THEIRS)
    command = ("--config", str(config), "--model-zoo", str(LONGCTR), "--expid", *THEIRS)
    outcome = run_script("run_expid.py", *command, cwd=tmp_path, timeout=300)
    assert outcome.code == 0, outcome.stderr
    results = list((config / "checkpoints" / data.name).glob("*.json"))
    assert sorted(file.name.split("_seed")[0] for file in results) == sorted(THEIRS)
    for file in results:
        metrics = json.loads(file.read_text())["metrics"]["test"]
        assert 0 < metrics["AUC"] < 1 and 0 < metrics["gAUC"] < 1 and 0 < metrics["logloss"] < 2


# ---------------------------------------------------------------- published configurations


def name_of(folder: Path) -> str:
    return folder.name


def experiments(config: Path) -> dict[str, str]:
    """``expid -> model`` of a published folder, without a template, which names no data set."""
    entries = list_experiments(config).items()
    return {expid: model for expid, (model, dataset) in entries if dataset != "TBD"}


@pytest.mark.parametrize("config", PUBLISHED, ids=name_of)
def test_every_published_configuration_loads(config: Path, tmp_path: Path) -> None:
    for expid, model in experiments(config).items():
        options = RunOptions(config, model_zoo=LONGCTR, home=tmp_path)
        experiment = load(expid, options)
        params, model_class = experiment.params, experiment.model_class
        assert model_class.origin.__module__ == f"{model}.{model}"
        assert params["model_id"] == expid and params["epochs"] >= 1
        if model in ("TWIN", "MIRRN", "TransAct", "DIN", "SIM", "ETA"):
            model_class = load(expid, replace(options, model_zoo=None)).model_class
            assert model_class is model_zoo.get_model(model)


def published(model: str) -> tuple[Path, str]:
    """A published folder on MicroVideo1.7M_x2, and its first experiment."""
    config = next(c for c in PUBLISHED if c.name.startswith(f"{model}_microvideo1.7m_x2"))
    return config, next(iter(experiments(config)))


def run_here(root: Path, *jobs: str) -> Outcome:
    """``engine.run.experiment.run`` with ``root`` as the folder where relative paths start."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_HERE, str(root), *jobs],
        cwd=root,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_published_configurations_run_unchanged(tmp_path: Path) -> None:
    """Ours and LongCTR's, on generated data of the published description."""
    inputs.ensure_data(tmp_path / "data" / "MicroVideo1.7M_x2", inputs.SIZE, users=20)
    (twin, twin_id), (din, din_id) = published("TWIN"), published("DIN")
    outcome = run_here(tmp_path, str(twin), twin_id, "", str(din), din_id, str(LONGCTR))
    assert outcome.code == 0, outcome.stderr
    for expid, model in ((twin_id, "TWIN"), (din_id, "DIN")):
        (file,) = (tmp_path / "checkpoints" / "MicroVideo1.7M_x2").glob(f"{expid}_seed*.json")
        result = json.loads(file.read_text())
        assert result["model"] == model and 0 < result["metrics"]["test"]["AUC"] < 1
