"""What the two whole runs of ``epoch`` start from: the same files, hyper-parameters and samples.

Hyper-parameters are those of LongCTR's best published run at length 200. Changed is what would make
two runs differ by chance (dropout is off, SDIM's hashes are fixed, samples are shuffled once, in the
file), and ours takes LongCTR's first weights and its short window (``longctr_compat``). LongCTR's
loader runs in the training process: with worker processes it took a fifth longer on two cores.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ..common.errors import UserError
from ..common.files import write_yaml
from ..config.read import DATA_FILES, dataset_part
from ..datasets import SEED, layout, synthetic
from ..datasets.card import SPLITS
from . import longctr
from .process import ROOT

MODELS = ("TWIN", "SDIM", "TransAct")
DATASET = "session_hopping"  # its feature columns are those of all sizes
BATCH = {"small": 2048}  # of the published 8192 it would make 8 steps
# The most training samples, so that LongCTR's run takes minutes at most.
ROWS = {
    "small": {"TWIN": 32_768, "TransAct": 8_192},
    "micro": {"TWIN": 32_768, "SDIM": 65_536, "TransAct": 4_096},
}
FIRST_SEED = 2024  # of the first round; each round has one of its own


@dataclass(frozen=True)
class Setup:
    """Two experiments for each round, in one configuration directory.

    Attributes:
        folder: for everything that the runs write.
        keys: the hyper-parameters that both share.
        samples: by split.
    """

    folder: Path
    model: str
    keys: dict[str, Any]
    samples: dict[str, int]

    @property
    def config(self) -> Path:
        """The configuration directory; LongCTR names its line of results by that."""
        return self.folder / "config"

    def expid(self, side: str, round_number: int) -> str:
        """Of the side ``longctr`` or ``ours``."""
        return f"{self.model}_{side}_{round_number}"

    def initial(self, round_number: int) -> Path:
        """The file of LongCTR's first weights."""
        return self.folder / f"initial_{round_number}.model"

    def result(self, round_number: int) -> dict[str, Any]:
        """The JSON of a finished run of ours."""
        name = f"{self.expid('ours', round_number)}_seed{FIRST_SEED + round_number}.json"
        return json.loads((self.folder / "checkpoints" / DATASET / name).read_text())


def ensure_data(folder: Path, size: str, users: int | None) -> None:
    """Generate the data set of a size unless the folder is there.

    In a process of its own: the memory it needs would count as that of every process started later.
    """
    if folder.exists() and any(folder.iterdir()):
        return
    shape = synthetic.SIZES[size]
    shape = replace(shape, users=users or shape.users)
    print(f"generating {size}, {shape.users:,} users, into {folder} ...", flush=True)
    process = multiprocessing.get_context("spawn").Process(target=_generate, args=(shape, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise UserError(f"{folder}: generating stopped with exit code {process.exitcode}")


def _generate(shape: synthetic.Size, folder: Path) -> None:
    layout.write(synthetic.generate(shape, SEED), folder)


def prepare(
    data: Path,
    folder: Path,
    size: str,
    model: str,
    rounds: int,
    *,
    rows: int | None = None,
    batch: int | None = None,
    length: int | None = None,
    rival: bool = True,
) -> Setup:
    """Write samples and configuration of one model.

    Args:
        data: the data set.
        folder: of the setup; new.
        rounds: how many pairs of experiments.
        rows: the most training samples; validation and test have an eighth of that at most.
        batch, length: in place of ``batch_size`` and ``max_len``.
        rival: whether ours starts from LongCTR's weights.
    """
    rows = rows or ROWS[size].get(model)
    own_data = folder / "data" / DATASET
    own_data.mkdir(parents=True)
    samples = {}
    for split in SPLITS:
        table = pl.read_parquet(data / f"{split}.parquet")
        if split == "train":
            table = table.sample(fraction=1, shuffle=True, seed=SEED)
        if rows is not None:
            table = table.head(rows if split == "train" else -(-rows // 8))
        table.write_parquet(own_data / f"{split}.parquet")
        samples[split] = len(table)
    for name in ("user_info", "item_info"):
        (own_data / f"{name}.parquet").symlink_to((data / f"{name}.parquet").resolve())
    keys = _hyper_parameters(size, model, folder, batch, length)
    setup = Setup(folder, model, keys, samples)
    experiments = {}
    for i in range(rounds):
        theirs = keys | {"seed": FIRST_SEED + i}
        ours = theirs | {"longctr_compat": True}
        if rival:
            ours["backbone_checkpoint"] = str(setup.initial(i))
        experiments |= {setup.expid("longctr", i): theirs, setup.expid("ours", i): ours}
    setup.config.mkdir()
    write_yaml(setup.config / "model_config.yaml", experiments)
    write_yaml(setup.config / "dataset_config.yaml", {DATASET: _dataset(data, own_data)})
    return setup


def _hyper_parameters(
    size: str, model: str, folder: Path, batch: int | None, length: int | None
) -> dict[str, Any]:
    """Those of a shipped experiment, without what is left to chance."""
    keys = longctr.published(model)
    keys |= {key: 0.0 for key in keys if key.endswith("dropout")}
    keys |= {"dataset_id": DATASET, "model_root": f"{folder / 'checkpoints'}/"}
    keys |= {"epochs": 1, "shuffle": False}
    if "reuse_hash" in keys:
        keys["reuse_hash"] = True
    batch = batch or BATCH.get(size)
    if batch is not None:
        keys["batch_size"] = batch
    if length is not None:
        keys["max_len"] = length
    return keys


def _dataset(data: Path, own_data: Path) -> dict[str, Any]:
    """The data set's description, with the sizes that FuxiCTR's feature processor asks for."""
    described = {}
    for entry in json.loads((data / "feature_map.json").read_text())["features"]:
        described |= entry
    dataset = dataset_part(ROOT / "config", DATASET, DATASET)
    dataset["feature_cols"] = [
        column
        | {
            k: v
            for k, v in described[column["name"]].items()
            if k in ("vocab_size", "pretrain_dim")
        }
        for column in dataset["feature_cols"]
    ]
    files = {key: str(own_data / Path(dataset[key]).name) for key in DATA_FILES}
    return dataset | files | {"data_root": f"{own_data.parent}/"}


def require_rival(checkout: str, models: Sequence[str], length: int | None) -> None:
    """See to it that LongCTR can run here at all.

    Raises:
        UserError: the folder is no checkout, or histories are too short for its models.
    """
    for file in ("run_expid.py", *(f"{model}/{model}.py" for model in models)):
        longctr.find(checkout, file)
    if length is not None and set(models) - {"TransAct"}:
        longctr.require_length(length)
