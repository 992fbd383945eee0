"""``embedding_initializer``: how tables start, in every model; a text is never evaluated as code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuxictr.features import FeatureMap
from torch import Tensor

import model_zoo
from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from model_zoo.training import sparse_embedding
from model_zoo.training.initializer import DRAWS, FUXICTR_START, parse_initializer

from ...support.helpers import all_models, build_model, tiny_params

WIDE = "partial(nn.init.normal_, std=0.25)"
TABLES = "embedding_layer.embedding_layer.embedding_layers."


def tables(params: dict[str, Any]) -> dict[str, Tensor]:
    """The embedding tables that a model starts with."""
    weights = build_model(params).state_dict()
    return {name: weight for name, weight in weights.items() if name.startswith(TABLES)}


@pytest.mark.parametrize("name", all_models())
def test_every_model_starts_as_the_key_says(name: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name)
    default, wide = tables(params), tables(params | {"embedding_initializer": WIDE})
    assert len(default) == 2  # items and categories; vectors have no table
    for table, weight in wide.items():
        assert not weight[0].any(), "padding"
        assert weight[1:].std().item() == pytest.approx(0.25, rel=0.2)
        torch.testing.assert_close(weight, default[table] * 2500)  # the same draw
    own = build_model(params).state_dict()
    other = build_model(params | {"embedding_initializer": WIDE}).state_dict()
    assert all(weight.equal(other[key]) for key, weight in own.items() if key not in wide)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_name_alone_is_torchs_function(draw: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "SDIM")
    params["embedding_initializer"] = f"nn.init.{draw}"
    for name, weight in tables(params).items():
        torch.manual_seed(5)
        expected = getattr(torch.nn.init, draw)(torch.empty_like(weight[1:]))
        assert weight[1:].std().item() == pytest.approx(expected.std().item(), rel=0.2), name
        assert not weight[0].any()


def test_parsing_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    parse_initializer(WIDE)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch was_run')",
        "partial(nn.init.normal_, std=__import__('os').system('touch was_run'))",
        "nn.init.normal_(open('was_run', 'w'))",
        "partial(open, file='was_run', mode='w')",
        "nn.init.normal_.__globals__",
        "nn.init.zeros_",
        "normal_",
        "partial(nn.init.normal_, 0, 0.25)",
        "partial(nn.init.normal_, sd=0.25)",
        "partial(nn.init.normal_, std=-1)",
        "partial(nn.init.normal_, std=1e999)",
        "partial(nn.init.normal_, std='wide')",
        "partial(nn.init.normal_, **{'std': 0.25})",
        "partial()",
        "(" * 300,
        "-" * 100_000 + "1",
        "",
    ],
)
def test_any_other_text_is_refused_and_not_run(
    text: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"embedding_initializer: is .*; write partial\(nn\.init\."):
        tiny_params(tiny_data, "TWIN", embedding_initializer=text)
    with pytest.raises(ValueError, match="embedding_initializer: is"):  # a model by itself, too
        build_model(tiny_params(tiny_data, "TWIN") | {"embedding_initializer": text})
    assert not list(tmp_path.iterdir())


def test_sparse_tables_and_checkpoints(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sparse tables start as dense ones do; where a checkpoint gives the start, it wins."""
    monkeypatch.setattr(sparse_embedding, "SMALL_TABLE", 0)
    params = tiny_params(tiny_data, "SDIM", embedding_initializer=WIDE)
    dense, sparse = tables(params), tables(params | {"sparse_embedding": True})
    assert all(weight.equal(sparse[name]) for name, weight in dense.items())
    build_model(params, seed=3).save_weights(str(tmp_path / "trained.model"))
    start = {"backbone_checkpoint": str(tmp_path / "trained.model")}
    started = tables(params | start | {"embedding_initializer": FUXICTR_START})
    trained = build_model(params, seed=3).state_dict()
    assert all(weight.equal(trained[name]) for name, weight in started.items())


@pytest.mark.parametrize("usage", ["init", "sum"])
def test_pretrained_vectors_stay(usage: str, tmp_path: Path) -> None:
    """Only the ids that are added to them are drawn."""
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    np.savez(tmp_path / "vectors.npz", key=np.arange(5).astype(str), value=vectors)
    words = {str(word): word + 1 for word in range(5)}
    (tmp_path / "feature_vocab.json").write_text(json.dumps({"item": words, "text": words}))
    spec = {"source": "item", "type": "categorical", "vocab_size": 7, "padding_idx": 0}
    vector = {"oov_idx": 6, "freeze_emb": True, "pretrained_emb": "vectors.npz", "pretrain_dim": 8}
    feature_map = FeatureMap("d", str(tmp_path))
    feature_map.features = {"item": spec, "text": spec | vector | {"pretrain_usage": usage}}
    feature_map.labels = ["is_click"]
    feature_map.default_emb_dim = 8
    options: dict[str, Any] = dict(metrics=["AUC"], verbose=0, model_root=str(tmp_path))
    options |= dict(embedding_dim=8, embedding_initializer="partial(nn.init.normal_, std=2.)")
    weights = model_zoo.SDIM(feature_map, **options).state_dict()
    found = weights[f"{TABLES}text.pretrain_embedding.weight"]
    torch.testing.assert_close(found[1:6], torch.from_numpy(vectors))
    assert not found[0].any() and weights[f"{TABLES}item.weight"].std() > 1
    if usage == "sum":
        assert weights[f"{TABLES}text.id_embedding.weight"][1:6].std() > 1


def test_features_that_share_a_table(tmp_path: Path) -> None:
    item = {"source": "item", "type": "categorical", "vocab_size": 300}
    columns = [item | {"name": "maker"}, item | {"name": "seller", "share_embedding": "maker"}]
    columns += [{"name": "price", "source": "item", "type": "numeric"}]
    dataset = {"dataset_id": "d", "data_root": "", "embedding_dim": 8, "feature_cols": columns}
    feature_map = build_feature_map(dataset | {"label_col": {"name": "is_click"}})
    options: dict[str, Any] = dict(metrics=["AUC"], verbose=0, model_root=str(tmp_path))
    model = model_zoo.SDIM(feature_map, embedding_dim=8, embedding_initializer=WIDE, **options)
    layers = model.embedding_layer.embedding_layer.embedding_layers
    assert layers["maker"] is layers["seller"]
    assert layers["maker"].weight.std().item() == pytest.approx(0.25, rel=0.1)
