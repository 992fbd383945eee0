"""LongCTR's trained TWIN, SDIM, TransAct, DIN, SIM, ETA and MIRRN load into ours, and then predict the same.

Every test needs ``LONGCTR_DIR=DIR``, a checkout of LongCTR.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.config.feature_map import build_feature_map
from engine.config.models import find_model
from model_zoo.batch import Batch
from model_zoo.sequence_model import SequenceModel

from .support.helpers import build_model, random_batch, tiny_params
from .support.longctr_client import LONGCTR, needs_longctr, spread_embeddings

pytestmark = [needs_longctr, pytest.mark.filterwarnings("ignore:.*nested")]

L, SHORT = 24, 8  # LongCTR crashes where the longest history is below its short window
LENGTHS = [24, 24, 23, 16, 9, 8, 7, 6, 3, 2, 1, 0, 0, 1, 12, 24]
TOLERANCE, VISIBLE = 1e-5, 1e-3
CASES: dict[str, dict[str, Any]] = {
    "TWIN": {"model": "TWIN"},
    "TWIN-2-heads-batch-norm": {"model": "TWIN", "num_heads": 2, "batch_norm": True},
    "TWIN-topk-above-length": {"model": "TWIN", "topk": 100},
    "SDIM": {"model": "SDIM", "l2_norm": False},
    "SDIM-l2-2-heads-batch-norm": {"model": "SDIM", "num_heads": 2, "batch_norm": True},
    "SDIM-no-projections": {"model": "SDIM", "use_qkvo": False, "use_scale": False, "num_heads": 2},
    "SDIM-new-hashes": {"model": "SDIM", "reuse_hash": False},
    "TransAct": {"model": "TransAct", "num_heads": 1},
    "TransAct-2-layers-2-heads": {"model": "TransAct", "transformer_layers": 2, "first_k_cols": 2},
    "TransAct-no-pool-batch-norm": {
        "model": "TransAct", "concat_max_pool": False, "batch_norm": True, "first_k_cols": 3,
        "mlp_hidden_units": [16],
    },
    "DIN": {"model": "DIN", "attention_hidden_activations": "Dice"},
    "DIN-softmax-2-layers": {
        "model": "DIN", "din_use_softmax": True, "attention_hidden_units": [24, 12], "batch_norm": True,
        "attention_output_activation": "Sigmoid",
    },
    "SIM": {"model": "SIM"},
    "SIM-2-heads-batch-norm": {"model": "SIM", "num_heads": 2, "batch_norm": True, "beta": 0.5},
    "SIM-topk-above-length": {"model": "SIM", "topk": 100},
    "ETA": {"model": "ETA"},
    "ETA-few-bits": {"model": "ETA", "hash_bits": 2, "num_heads": 2, "batch_norm": True},
    "ETA-topk-above-length": {"model": "ETA", "topk": 100, "use_scale": False},
    "ETA-new-hashes": {"model": "ETA", "reuse_hash": False},
    "MIRRN": {"model": "MIRRN"},
    "MIRRN-topk-above-length": {"model": "MIRRN", "topk": 100, "num_heads": 2, "batch_norm": True},
    "MIRRN-few-bits": {"model": "MIRRN", "hash_bits": 2, "topk": 7},
    "MIRRN-new-hashes": {"model": "MIRRN", "reuse_hash": False},
}  # fmt: skip


class Trained:
    """LongCTR's own model after a few steps on random data, and its checkpoint."""

    def __init__(self, data: Path, folder: Path, model: str, **keys: Any) -> None:
        changes = {
            "net_dropout": 0.1,
            "learning_rate": 2e-3,
            "model_root": str(folder),
            "verbose": 0,
        }
        short = {} if model in ("TransAct", "DIN") else {"short_seq_len": SHORT}
        topk = {"topk": 6} if model in ("TWIN", "SIM", "ETA", "MIRRN") else {}
        self.data, self.keys = data, changes | short | topk | keys
        params = self.params(model)
        self.model: nn.Module = find_model(model, LONGCTR).origin(
            build_feature_map(params), **params
        )
        torch.manual_seed(3)
        spread_embeddings(self.model)
        self.model._batch_index, self.model._max_gradient_norm = 0, 10.0
        self.model.train()
        for seed in range(6):
            self.model.train_step(plain(self.batch(LENGTHS * 4, seed)))
        self.model.eval()
        self.name = model
        self.checkpoint = str(folder / "longctr.model")
        self.model.save_weights(self.checkpoint)

    def params(self, model: str, **changes: Any) -> dict[str, Any]:
        """Parameters of a model of this backbone; the samples have a feature of their own too."""
        params = tiny_params(self.data, model, **(self.keys | changes))
        hour = {"name": "hour", "type": "categorical", "source": "context", "vocab_size": 25}
        params["feature_cols"] = [*params["feature_cols"], hour]
        return params

    def ours(self, model: str | None = None, **changes: Any) -> SequenceModel:
        """Our model of that name, by default the vanilla one, from the checkpoint."""
        changes = {"backbone_checkpoint": self.checkpoint, "longctr_compat": True} | changes
        if self.name == "DIN":  # it has no short window
            del changes["longctr_compat"]
        return build_model(self.params(model or self.name, **changes), seed=9).eval()

    def batch(self, lengths: list[int], seed: int = 50) -> Batch:
        """A random batch of those lengths."""
        batch = random_batch(self.model.feature_map, lengths, L, seed=seed)
        hour = torch.randint(1, 25, (len(lengths),), generator=torch.Generator().manual_seed(seed))
        batch[0]["hour"] = hour
        image = next(name for name in batch[1].tables if name.startswith("image"))
        batch[1].tables[image] *= 0.3  # a cross network multiplies: larger ones saturate it
        return batch


@pytest.fixture
def trained(request: pytest.FixtureRequest, tiny_data: Path, tmp_path: Path) -> Trained:
    return Trained(tiny_data, tmp_path, **CASES[request.param])


def cases(*left_out: str) -> pytest.MarkDecorator:
    """Runs a test for each case but those."""
    return pytest.mark.parametrize(
        "trained", [c for c in CASES if c not in left_out], indirect=True
    )


def plain(batch: Batch) -> Batch:
    """As LongCTR's loader makes it; LongCTR writes into the dictionary of the items."""
    batch_dict, items, mask = batch
    return batch_dict, dict(items), mask


def predict(model: nn.Module, batch: Batch) -> Tensor:
    """Predictions ``(B,)``; random hashes are drawn from the same state."""
    torch.manual_seed(7)
    with torch.no_grad():
        return model(batch)["y_pred"].flatten()


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@cases()
def test_the_trained_model_predicts_the_same(trained: Trained) -> None:
    batch, without_history = trained.batch(LENGTHS), trained.batch([0] * len(LENGTHS))
    model = trained.ours()
    theirs = predict(trained.model, plain(batch))
    assert difference(theirs, predict(trained.model, plain(without_history))) > VISIBLE
    assert difference(predict(model, batch), theirs) <= TOLERANCE
    assert difference(predict(model, plain(batch)), theirs) <= TOLERANCE


# In evaluation LongCTR draws new hashes, and of items with equally near hashes MIRRN and ETA take any.
@cases(
    "SDIM-new-hashes", "MIRRN-new-hashes", "MIRRN", "MIRRN-few-bits", "ETA-new-hashes", "ETA",
    "ETA-few-bits",
)  # fmt: skip
def test_of_full_histories_the_right_masks_predict_the_same(trained: Trained) -> None:
    batch = trained.batch([L] * 16)
    model = trained.ours(longctr_compat=False)
    assert difference(predict(model, batch), predict(trained.model, plain(batch))) <= TOLERANCE


@cases("DIN", "DIN-softmax-2-layers")
def test_where_longctrs_mask_is_wrong_the_right_one_differs(trained: Trained) -> None:
    """Of TransAct this is the empty history, of the others one shorter than the short window."""
    batch = trained.batch([0] * 6 if trained.name == "TransAct" else [2, 3, 4, 5, 6, 7])
    ours, theirs = trained.ours(longctr_compat=False), trained.model
    assert difference(predict(ours, batch), predict(theirs, plain(batch))) > VISIBLE


@pytest.mark.parametrize("name", ["TWIN_MoS", "SDIM_MoS", "TransAct_MoS", "SIM_MoS", "TWIN_GShard"])
def test_it_starts_a_variant(name: str, tiny_data: Path, tmp_path: Path) -> None:
    trained = Trained(tiny_data, tmp_path, name.split("_")[0])
    model = trained.ours(name)
    assert [stage.name for stage in model.stages(1.0)] == ["experts", "joint"]
    alphas = {key: 0.0 for key in trained.params(name) if key.startswith("alpha_")}
    assert alphas
    batch = trained.batch(LENGTHS)
    without_experts = predict(trained.ours(name, **alphas), batch)
    assert difference(without_experts, predict(trained.ours(), batch)) == 0
    assert difference(predict(model, batch), without_experts) > VISIBLE
