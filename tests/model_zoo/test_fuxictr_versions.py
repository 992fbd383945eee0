"""The zoo under FuxiCTR's own entry points, and under the versions 2.3.2, 2.3.9 and the installed one."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from fuxictr.features import FeatureMap
from fuxictr.utils import load_config

import model_zoo

from ..support.command_line import ROOT, environment
from ..support.helpers import CONFIG, all_models, random_batch
from ..support.longctr_client import install_fuxictr

MODELS = (
    "TWIN",
    "TWIN_MoS",
    "SDIM_GShard",
    "TransAct_DSelectK",
    "Mamba4Rec_ExpertChoice",
    "MIRRN",
    "AttenMixer",
    "MiasRec",
)
OLDER = ("2.3.2", "2.3.9")


@pytest.mark.parametrize("name", all_models())
def test_fuxictrs_own_functions_build_it(name: str, tiny_data: Path, tmp_path: Path) -> None:
    """As FuxiCTR's ``run_expid.py`` does: ``load_config``, ``FeatureMap.load``, ``getattr``."""
    params = load_config(str(CONFIG), f"{name}_session_hopping_tiny")
    params |= {"gpu": -1, "model_root": str(tmp_path)}
    feature_map = FeatureMap(params["dataset_id"], str(tiny_data))
    feature_map.load(str(tiny_data / "feature_map.json"), params)
    model = getattr(model_zoo, params["model"])(feature_map, **params).eval()
    batch_dict, items, mask = random_batch(feature_map, [20, 3, 0], L=20)
    with torch.no_grad():
        y_pred = model((batch_dict, dict(items), mask))["y_pred"]
    assert y_pred.shape == (3, 1) and ((y_pred > 0) & (y_pred < 1)).all()
    assert model.get_group_id((batch_dict, items, mask)).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data with a feature of the samples themselves."""
    folder = tmp_path_factory.mktemp("data") / tiny_data.name
    shutil.copytree(tiny_data, folder)
    for split in ("train", "valid", "test"):
        samples = pl.read_parquet(folder / f"{split}.parquet")
        hour = (pl.col("user_index") * 7 + pl.col("item_index")) % 24 + 1
        samples.with_columns(hour=hour).write_parquet(folder / f"{split}.parquet")
    schema = json.loads((folder / "feature_map.json").read_text())
    spec = {"source": "context", "type": "categorical", "padding_idx": 0, "vocab_size": 25}
    schema["features"].append({"hour": spec})
    (folder / "feature_map.json").write_text(json.dumps(schema))
    return folder


def train(data: Path, fuxictr: Path | None) -> list[dict[str, Any]]:
    """``older_fuxictr.py`` for all models, in one process; ``fuxictr`` is put on its path."""
    script = ROOT / "tests" / "support" / "older_fuxictr.py"
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT), str(data), *MODELS],
        env=environment() | ({"PYTHONPATH": str(fuxictr)} if fuxictr else {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def installed(data: Path) -> list[dict[str, Any]]:
    """What the installed version gives."""
    results = train(data, None)
    assert [result["model"] for result in results] == list(MODELS)
    assert {result["fuxictr"] for result in results} == {version("fuxictr")}
    return results


@pytest.mark.slow
@pytest.mark.parametrize("older", OLDER)
def test_another_version_gives_the_same_weights_and_auc(
    older: str, data: Path, installed: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = install_fuxictr(older, tmp_path / "fuxictr")
    for result, expected in zip(train(data, folder), installed, strict=True):
        name = result["model"]
        assert result["fuxictr"] == older
        assert result["first"] == expected["first"], f"first weights of {name}"
        assert result["auc"] == pytest.approx(expected["auc"], abs=1e-6), f"AUC of {name}"
