"""What the tests with LongCTR and with other FuxiCTR versions share.

``LONGCTR_DIR=DIR`` in the environment names a checkout of LongCTR, which is never changed.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from engine.config.read import read_yaml
from engine.datasets import synthetic
from engine.datasets.prepared import layout

from .command_line import ROOT

sys.dont_write_bytecode = True  # nothing is left in the checkout that models are imported from
LONGCTR = Path(os.environ.get("LONGCTR_DIR") or "nowhere").resolve()
needs_longctr = pytest.mark.skipif(
    not (LONGCTR / "longctr_dataloader.py").is_file(),
    reason="LONGCTR_DIR does not name a checkout of LongCTR",
)

DATASET = "longctr_small"
META = {name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len")}
SIZE = synthetic.Size(users=60, items=300, impressions=20, min_length=12, max_length=60)

SHIM = '''"""fuxictr 2.3.2 and keras_preprocessing on numpy 2 and scikit-learn 1.5 or newer."""
import numpy as np
import sklearn.metrics

np.Inf = np.inf  # fuxictr/pytorch/models/rank_model.py, fit
np.unicode_ = np.str_  # keras_preprocessing/sequence.py, pad_sequences
current = sklearn.metrics.log_loss


def log_loss(y_true, y_pred, *, eps=0.0, **kwargs):  # fuxictr/metrics.py passes eps=1e-7
    return current(y_true, np.clip(y_pred, eps, 1 - eps), **kwargs)


sklearn.metrics.log_loss = log_loss
'''


def install_fuxictr(version: str, folder: Path) -> Path:
    """That version in a folder for ``PYTHONPATH``. If pip cannot get it, the test is skipped, or
    fails where the environment says ``REQUIRE_ALL_VERSIONS``."""
    give_up = pytest.fail if os.environ.get("REQUIRE_ALL_VERSIONS") else pytest.skip
    packages = (f"fuxictr=={version}", "keras_preprocessing", "six")
    options = ("--quiet", "--no-deps", "--no-compile", "--retries", "1", "--target", str(folder))
    command = [sys.executable, "-m", "pip", "install", *options, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        give_up(f"pip cannot install fuxictr {version}: no answer in 120 s")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        give_up(f"pip cannot install fuxictr {version}: {''.join(reason)}")
    return folder


def write_data(root: Path) -> Path:
    """A small data set, as every data set is written."""
    layout.write(synthetic.generate(SIZE, seed=1), root / DATASET)
    return root / DATASET


def write_config(folder: Path, data: Path, models: dict[str, dict[str, Any]]) -> Path:
    """A configuration directory in LongCTR's form: each model by its name, with some keys."""
    base = read_yaml(ROOT / "config" / "model_config.yaml")["Base"]
    base |= {"dataset_id": data.name, "model_root": str(folder / "checkpoints")}
    base |= {"batch_size": 256, "max_len": 50, "embedding_dim": 8, "epochs": 1}
    names = ("train_data", "valid_data", "test_data", "user_info", "item_info")
    paths = {name: str(data / f"{name.removesuffix('_data')}.parquet") for name in names}
    columns = [
        {"name": name, "active": True, "dtype": "int"}
        | {key: value for key, value in spec.items() if key not in ("padding_idx", "pretrain_dim")}
        for name, spec in (META | synthetic.features(SIZE)).items()
    ]
    dataset = paths | {
        "data_root": str(data.parent),
        "data_format": "parquet",
        "rebuild_dataset": False,
        "feature_cols": columns,
        "label_col": {"name": "is_click", "dtype": "float"},
    }
    experiments = {name: {"model": name} | keys for name, keys in models.items()}
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(yaml.safe_dump({"Base": base} | experiments))
    (folder / "dataset_config.yaml").write_text(yaml.safe_dump({data.name: dataset}))
    return folder


def spread_embeddings(model: nn.Module, std: float = 0.3) -> None:
    """FuxiCTR starts embeddings near zero, where nothing differs: draw them larger, but keep
    padding zero."""
    for module in model.embedding_layer.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            with torch.no_grad():
                module.weight[0] = 0.0
