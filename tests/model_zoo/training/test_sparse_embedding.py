"""``sparse_embedding``: the same training as with dense tables, in every stage, file and optimizer.

The tables of the tiny data are small, and would stay dense: here every table counts as large.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import model_zoo
from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.config.models import build
from engine.config.validate import check
from engine.loader.random_batch import random_batch
from model_zoo.sequence_model import SequenceModel
from model_zoo.training import sparse_embedding
from model_zoo.training.loop import Trainer
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.sparse_embedding import RowAdam, sparse_tables
from model_zoo.training.steps import Stepper

from ...support.helpers import build_model, improving, killed_after, loader, tiny_params

SPARSE = {"sparse_embedding": True}
ITEM = "embedding_layer.embedding_layer.embedding_layers.item_id.weight"


@pytest.fixture(autouse=True)
def every_table_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_embedding, "SMALL_TABLE", 0)


@pytest.fixture
def params(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """SDIM: where models select items, rounding decides, and no two ways of summing agree for long."""
    return tiny_params(tiny_data, "SDIM", model_root=str(tmp_path), verbose=0)


def stepper_of(model: SequenceModel, max_gradient_norm: float = 10.0) -> Stepper:
    """As within a stage."""
    return Stepper(model.train(), build_optimizer(model), max_gradient_norm)


def losses(params: dict[str, Any], steps: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Of the first steps of training, and metrics of the validation data after them."""
    model = build_model(params)
    train, found = stepper_of(model), []
    batches = loader(params, shuffle=True, seed=1)
    while len(found) < steps:
        for batch in batches:
            found.append(train.step(batch, 1, 1))
    return torch.stack(found[:steps]), model.evaluate(loader(params, "valid"))


@pytest.mark.parametrize(
    ("batch_size", "max_len", "optimizer"),
    [
        (16, 10, "adam"),
        pytest.param(128, 50, "adam", marks=pytest.mark.slow),
        pytest.param(16, 10, "SGD", marks=pytest.mark.slow),
        pytest.param(16, 10, "Adagrad", marks=pytest.mark.slow),
    ],
)
def test_200_steps_agree_with_dense_tables(
    params: dict, batch_size: int, max_len: int, optimizer: str
) -> None:
    """A batch of 128 reads nine rows of ten, one of 16 samples and 10 items three of ten."""
    params |= {"batch_size": batch_size, "max_len": max_len, "optimizer": optimizer}
    expected, metrics = losses(params, 200)
    found, sparse_metrics = losses(params | SPARSE, 200)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert sparse_metrics["AUC"] == pytest.approx(metrics["AUC"], abs=5e-4)
    assert metrics["AUC"] != 0.5 and (found[0] - found[-20:].mean()).abs() > 1e-3


def test_a_run_ends_with_the_metrics_of_a_dense_one(params: dict) -> None:
    params |= {"attention_dropout": 0.1, "net_dropout": 0.1, "learning_rate": 3e-3}
    logs = []
    for changes in ({}, SPARSE):
        model = build_model(params | changes)
        model.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=3)
        logs.append(model.stage_log)
    assert [e["best"] for e in logs[0]] == [e["best"] for e in logs[1]]
    for dense, sparse in zip(*logs, strict=True):
        assert sparse["train_loss"] == pytest.approx(dense["train_loss"], rel=1e-3)
        assert sparse["AUC"] == pytest.approx(dense["AUC"], abs=5e-4)


def gradients(
    model: SequenceModel, batches: list[tuple], max_norm: float = 10.0
) -> dict[str, torch.Tensor]:
    """What the optimizer is given after some batches of one group."""
    given: dict[str, torch.Tensor] = {}
    model.accumulation_steps = len(batches)
    train = stepper_of(model, max_norm)
    train.optimizer.register_step_pre_hook(
        lambda *_: given.update(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    )
    for step, batch in enumerate(batches, start=1):
        train.step(batch, step, len(batches))
    return given


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("max_norm", [10.0, 1e-3])
def test_the_optimizer_gets_the_dense_gradient_in_rows(
    params: dict, batches: int, max_norm: float
) -> None:
    """Also where batches accumulate, and where the norm of all gradients exceeds the limit."""
    group = list(loader(params, batch_size=8))[:batches]
    dense = gradients(build_model(params), group, max_norm)
    sparse = gradients(build_model(params | SPARSE), group, max_norm)
    for name, gradient in dense.items():
        found = sparse[name]
        assert found.is_sparse == name.startswith("embedding_layer.embedding_layer.embedding_layer")
        if found.is_sparse:
            assert found.is_coalesced() and 0 < len(found.values()) < len(gradient)
            assert 0 not in found.indices(), "padding has a gradient"
            found = found.to_dense()
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("regularizer", [0.01, "l1(0.001)", "l1_l2(0.001,0.01)"])
def test_the_regularizer_acts_on_the_rows_of_the_batch(params: dict, regularizer) -> None:
    params |= {"embedding_regularizer": regularizer, "net_regularizer": 0.001}
    group = list(loader(params, batch_size=8))[:1]
    dense = gradients(build_model(params), group)
    sparse = gradients(build_model(params | SPARSE), group)
    rows = sparse[ITEM].indices()[0]
    torch.testing.assert_close(sparse[ITEM].values(), dense[ITEM][rows], rtol=1e-4, atol=1e-9)
    others = torch.ones(len(dense[ITEM]), dtype=torch.bool).index_fill(0, rows, False)
    assert dense[ITEM][others].any() and not sparse[ITEM].to_dense()[others].any()
    for name in dense:
        if not sparse[name].is_sparse:
            torch.testing.assert_close(sparse[name], dense[name], rtol=1e-4, atol=1e-9)


def test_features_that_share_a_table_and_features_of_several_values(tmp_path: Path) -> None:
    item = {"source": "item", "type": "categorical", "vocab_size": 30}
    several = item | {"type": "sequence", "max_len": 3}
    several["feature_encoder"] = "layers.MaskedAveragePooling()"
    columns = [
        item | {"name": "item_id", "vocab_size": 40},
        item | {"name": "maker"},
        item | {"name": "seller", "share_embedding": "maker"},
        several | {"name": "tags"},
        {"name": "image", "source": "item", "type": "embedding", "pretrain_dim": 6},
        {"name": "price", "source": "item", "type": "numeric"},
    ]
    dataset = {"dataset_id": "d", "data_root": "", "embedding_dim": 8, "feature_cols": columns}
    feature_map = build_feature_map(dataset | {"label_col": {"name": "is_click"}})
    models = []
    for sparse in (False, True):
        torch.manual_seed(0)
        options = dict(embedding_dim=8, sparse_embedding=sparse, model_root=str(tmp_path))
        models.append(model_zoo.SDIM(feature_map, metrics=["AUC"], verbose=0, **options))
    assert len(sparse_tables(models[1])) == 3  # items, makers and sellers, tags
    steps = [stepper_of(model) for model in models]
    for seed in range(30):
        batch = random_batch(feature_map, [3, 0, 5], 5, num_items=40, seed=seed)
        expected, found = (step.step(batch, 1, 1) for step in steps)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    for (name, a), b in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5, msg=name)


# ---------------------------------------------------------------- stages and files


@pytest.mark.parametrize("stop_after", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_resume_gives_the_same_numbers(params: dict, tmp_path: Path, stop_after: int) -> None:
    """A kill within a stage; to the last bit."""
    params |= SPARSE | {"batch_size": 24, "max_len": 20}

    def fit(model: SequenceModel, resume_file: Path) -> None:
        train = loader(params, shuffle=True, seed=5)
        model.fit(train, loader(params, "valid"), epochs=3, seed=5, resume_file=str(resume_file))

    whole = build_model(params)
    fit(whole, tmp_path / "whole")

    params["model_id"] = "killed"
    with killed_after(stop_after):
        fit(build_model(params), tmp_path / "killed")
    resumed = build_model(params, seed=99)
    fit(resumed, tmp_path / "killed")
    for name, value in whole.state_dict().items():
        assert resumed.state_dict()[name].equal(value), name


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_best_weights_are_what_was_evaluated(
    params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """A later epoch, that is no improvement, must not reach into the weights that are loaded back
    at the end of a stage, nor into those that the next stage starts from."""
    params |= {"model": "SDIM_MoS", "batch_size": 16, "max_len": 10, "early_stop_patience": 1}
    params |= {"backbone_warmup_epochs": 2.0, "expert_warmup_epochs": 0.0, "monitor": "AUC"}
    model = build_model(check(params, model_zoo.SDIM_MoS) | SPARSE)
    validation = loader(params, "valid")
    seen: list[torch.Tensor] = []
    scores = iter([0.5, 0.7, 0.6, 0.5, 0.7, 0.6])

    def predict() -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return torch.cat([model(batch)["y_pred"] for batch in validation])

    def evaluate(_) -> dict[str, float]:
        seen.append(predict())
        return {"AUC": next(scores)}

    def enter(stage: str) -> None:
        model.encoder.enter("backbone")
        seen.append(predict())
        model.encoder.enter(stage)

    monkeypatch.setattr(model, "evaluate", evaluate)
    monkeypatch.setattr(model, "enter", enter)
    options = {"resume_file": str(tmp_path / "state")} if resume else {}
    model.fit(loader(params, shuffle=True), validation, epochs=2, **options)
    start, _, best, worse, next_start, _, best_joint, worse_joint = seen
    torch.testing.assert_close(next_start, best, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(predict(), best_joint, rtol=1e-5, atol=1e-7)
    for a, b in ((start, best), (best, worse), (best_joint, worse_joint)):
        assert not a.allclose(b, atol=1e-3)


def test_checkpoints_are_those_of_dense_tables(params: dict) -> None:
    dense, sparse = build_model(params), build_model(params | SPARSE)
    batch = next(iter(loader(params, "valid")))
    for source, goal in ((sparse, dense), (dense, sparse)):
        source.fit(loader(params), loader(params, "valid"), epochs=1)
        weights = torch.load(source.checkpoint, weights_only=True)
        assert weights.keys() == goal.state_dict().keys()
        goal.load_weights(source.checkpoint)
        source.eval()
        goal.eval()
        assert goal(batch)["y_pred"].equal(source(batch)["y_pred"])


def test_a_frozen_stage_leaves_the_tables_alone(params: dict) -> None:
    params |= {"model": "SDIM_MoS", "router_topk": 2, "codebook_init": "random"}
    params |= {"backbone_warmup_epochs": 0.0, "expert_warmup_epochs": 1.0}
    model = improving(build_model(check(params, model_zoo.SDIM_MoS) | SPARSE))
    before = {n: p.clone() for n, p in model.named_parameters()}
    train = Trainer(model, loader(params), loader(params, "valid"), seed=0)
    stage = next(stage for stage in model.stages(1) if stage.name == "experts")
    train.run_stage(stage)
    assert not isinstance(train.optimizer, RowAdam)
    changed = {n for n, p in model.named_parameters() if not p.equal(before[n])}
    assert changed and not any(name.startswith("embedding_layer.") for name in changed)


# ---------------------------------------------------------------- the key


def test_small_tables_stay_dense(params: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_embedding, "SMALL_TABLE", 100)  # items are more, categories fewer
    model = build_model(params | SPARSE)
    tables = sparse_tables(model)
    assert [table.num_embeddings for table in tables] == [301]


@pytest.mark.parametrize("optimizer", ["AdamW", "NAdam", "RMSprop"])
def test_an_optimizer_that_needs_dense_gradients_is_refused(params: dict, optimizer: str) -> None:
    params |= SPARSE | {"optimizer": optimizer}
    with pytest.raises(UserError, match=f"sparse_embedding: optimizer '{optimizer}'.*write one of"):
        build(model_zoo.SDIM, build_feature_map(params), params, "expid")


@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_every_model_has_the_key(name: str) -> None:
    assert model_zoo.get_model(name).hyper_parameters()["sparse_embedding"] is bool


def test_the_value_is_checked(params: dict) -> None:
    with pytest.raises(UserError, match="sparse_embedding: is 'yes'; write True or False"):
        check(params | {"sparse_embedding": "yes"}, model_zoo.SDIM)
