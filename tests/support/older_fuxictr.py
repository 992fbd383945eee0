"""Train models of the zoo under whatever FuxiCTR is on the path; one line of JSON for each.

    [PYTHONPATH=FOLDER] python older_fuxictr.py REPOSITORY DATA MODEL ...

DATA is in LongCTR's layout, with ``feature_map.json``. Batches are LongCTR's: sample columns through
``np.column_stack``, which makes them float64, items as plain tensors, histories padded on the left.

Shape suffixes: B samples of a batch, L history length, N samples.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuxictr
import numpy as np
import pandas as pd
import torch
from fuxictr.features import FeatureMap

REPOSITORY, DATA = (Path(argument) for argument in sys.argv[1:3])
sys.path.insert(0, str(REPOSITORY))  # before site-packages, where FuxiCTR has a model_zoo as well
import model_zoo  # noqa: E402

PARAMS: dict[str, Any] = {
    "gpu": -1, "task": "binary_classification", "optimizer": "adam", "loss": "binary_crossentropy",
    "metrics": ["AUC"], "monitor": "AUC", "monitor_mode": "max", "verbose": 0, "seed": 1,
    "learning_rate": 1e-3, "embedding_regularizer": 1e-5, "net_regularizer": 1e-6, "epochs": 1,
    "embedding_initializer": "partial(nn.init.normal_, std=0.1)",
    "embedding_dim": 8, "dnn_hidden_units": [32], "net_dropout": 0.1, "group_id": "user_index",
    "batch_size": 256, "max_len": 30, "topk": 5, "short_seq_len": 10, "num_experts": 3,
    "dim_feedforward": 32, "dcn_hidden_units": [32], "hidden_size": 16,
}  # fmt: skip


class Loader:
    """Batches of one split, in LongCTR's form; training is shuffled by torch's random state."""

    def __init__(self, split: str) -> None:
        samples = pd.read_parquet(DATA / f"{split}.parquet")
        self.names = list(samples.columns)
        self.samples_N = np.column_stack([samples[name].to_numpy() for name in self.names])
        self.histories = pd.read_parquet(DATA / "user_info.parquet")["full_item_seq"].values
        items = pd.read_parquet(DATA / "item_info.parquet").drop(columns="item_index")
        self.items = {n: torch.tensor(np.array(items[n].to_list())) for n in items.columns}
        self.shuffle = split == "train"

    def __len__(self) -> int:
        return -(-len(self.samples_N) // PARAMS["batch_size"])

    def __iter__(self) -> Iterator[tuple]:
        order_N = (torch.randperm if self.shuffle else torch.arange)(len(self.samples_N))
        for rows_B in order_N.split(PARAMS["batch_size"]):
            columns = torch.from_numpy(self.samples_N[rows_B.numpy()]).T
            batch_dict = dict(zip(self.names, columns, strict=True))
            user_B, length_B = (batch_dict[n].long().tolist() for n in ("user_index", "seq_len"))
            index_BL = torch.zeros(len(rows_B), min(max(length_B), PARAMS["max_len"])).long()
            for row_L, user, length in zip(index_BL, user_B, length_B, strict=True):
                kept = self.histories[user][:length][-len(row_L) :]
                row_L[len(row_L) - len(kept) :] = torch.from_numpy(kept.copy())
            target_B1 = batch_dict["item_index"].long()[:, None]
            index = torch.cat([index_BL, target_B1], dim=1).flatten()
            item_dict = {name: table[index] for name, table in self.items.items()}
            yield batch_dict, item_dict, (index_BL > 0).float()


def train(name: str) -> dict[str, Any]:
    """Train one model; its first weights as a hash, and its test AUC."""
    feature_map = FeatureMap(DATA.name, str(DATA))
    feature_map.load(str(DATA / "feature_map.json"), PARAMS)
    torch.manual_seed(PARAMS["seed"])
    params = PARAMS | {"model_id": name, "model_root": tempfile.mkdtemp()}
    model = getattr(model_zoo, name)(feature_map, **params)
    weights = [key.encode() + w.numpy().tobytes() for key, w in model.state_dict().items()]
    first = hashlib.sha256(b"".join(sorted(weights))).hexdigest()
    model.fit(Loader("train"), validation_data=Loader("valid"), **params)
    auc = model.evaluate(Loader("test"))["AUC"]
    return {"model": name, "fuxictr": fuxictr.__version__, "first": first, "auc": auc}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[3:]:
        print(json.dumps(train(name)))
