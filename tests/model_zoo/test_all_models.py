"""Every model of the zoo, through the same checks: a new model is tested by existing."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import model_zoo
from model_zoo.registry import CONTROLS, MIXTURES, variant

from ..support.helpers import (
    NEARLY_ALL,
    all_models,
    build_model,
    loader,
    random_batch,
    rows_of,
    tiny_params,
)

LENGTHS = [0, 1, 4, 20, 20, 13, 8]


@pytest.fixture
def params(name: str, tiny_data: Path, tmp_path: Path) -> dict:
    return tiny_params(tiny_data, name, model_root=str(tmp_path), verbose=0)


def scores(model: torch.nn.Module, batch: tuple) -> torch.Tensor:
    with torch.no_grad():
        return model(batch)["logit"].flatten()


def spread_embeddings(model: torch.nn.Module) -> torch.nn.Module:
    """FuxiCTR starts embeddings near zero, where nothing differs: draw them larger."""
    for module in model.embedding_layer.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.3)
    return model


@pytest.mark.parametrize("name", all_models(NEARLY_ALL))
def test_trains_a_step_and_every_parameter_gets_gradient(params: dict) -> None:
    if "router_topk" in params:
        params["router_topk"] = 2  # with k = 1, eq. 2 gives h no gradient: see test_routers.py
    model = spread_embeddings(build_model(params)).train()
    batch = random_batch(model.feature_map, [60] * 128, L=60)
    loss = model.add_loss(model(batch), model.get_labels(batch))
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_loss_falls_on_a_learnable_toy_set(params: dict) -> None:
    model = build_model(params).train()
    batch = random_batch(model.feature_map, [20] * 64, L=20)
    batch[0]["is_click"] = (batch[0]["item_index"] % 2).float()  # the target decides
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    losses = []
    for _ in range(40):
        loss = model.add_loss(model(batch), model.get_labels(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    assert sorted(losses[-5:])[2] < 0.3 < 0.6 < losses[0]


@pytest.mark.parametrize("name", all_models())
def test_evaluation_is_deterministic_and_updates_nothing(params: dict) -> None:
    model = build_model(params)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = model.evaluate(loader(params, "test"))
    assert model.evaluate(loader(params, "test")) == first
    model.after_step()
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", all_models())
def test_checkpoint_round_trip(params: dict, tmp_path: Path) -> None:
    model, other = build_model(params, seed=1).eval(), build_model(params, seed=2).eval()
    batch = random_batch(model.feature_map, LENGTHS, L=20)
    assert not torch.equal(scores(model, batch), scores(other, batch))
    model.save_weights(str(tmp_path / "weights"))
    other.load_weights(str(tmp_path / "weights"))
    assert torch.equal(scores(model, batch), scores(other, batch))


@pytest.mark.parametrize("name", all_models())
@pytest.mark.parametrize("L", [20, 60])
def test_padding_and_batch_mates_do_not_matter(params: dict, L: int) -> None:
    model = spread_embeddings(build_model(params)).double().eval()
    lengths = [min(n, L) for n in (*LENGTHS, L)]
    batch = random_batch(model.feature_map, lengths, L)
    together = scores(model, batch)
    assert len(together.unique()) == len(together)
    for b, length in enumerate(lengths):
        alone = scores(model, rows_of(batch, [b], cut=L - max(length, 1)))
        torch.testing.assert_close(alone[0], together[b], rtol=1e-9, atol=1e-9)
    # Other items behind the mask change nothing.
    batch_dict, items, mask = batch
    index = items.index.clone()
    index[:, :-1][mask == 0] = 7
    noisy = (batch_dict, type(items)(items.tables, index), mask)
    torch.testing.assert_close(scores(model, noisy), together, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", all_models())
@pytest.mark.parametrize(("lengths", "L"), [([0], 1), ([1], 1), ([0, 0, 0], 3), ([1, 0], 1)])
def test_smallest_batches(params: dict, lengths: list[int], L: int) -> None:
    model = build_model(params).eval()
    assert torch.isfinite(scores(model, random_batch(model.feature_map, lengths, L))).all()


@pytest.mark.parametrize("name", all_models(["TWIN_MoS", "TransAct", "MIRRN"]))
def test_max_len_1(params: dict) -> None:
    """Position tables, windows and top-k of a single item; trains and evaluates."""
    params["max_len"] = 1
    model = build_model(params)
    model.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=0.2)
    metrics = model.evaluate(loader(params, "test"))
    assert 0 <= metrics["AUC"] <= 1 and len(model.stage_log) >= 1


@pytest.mark.parametrize("mixture", ["", *MIXTURES, *CONTROLS])
@pytest.mark.parametrize("backbone", ["TWIN", "SDIM", "TransAct"])
def test_longctr_compat_is_invariant_too(backbone: str, mixture: str, tiny_data: Path) -> None:
    """LongCTR's short mask must not depend on how far a subsequence is padded."""
    short = {} if backbone == "TransAct" else {"short_seq_len": 10}
    params = tiny_params(tiny_data, variant(backbone, mixture), longctr_compat=True, **short)
    model = spread_embeddings(build_model(params)).double().eval()
    batch = random_batch(model.feature_map, [1, 5, 60, 30, 12], L=60)
    together = scores(model, batch)
    for b, length in enumerate([1, 5, 60, 30, 12]):
        alone = scores(model, rows_of(batch, [b], cut=60 - length))
        torch.testing.assert_close(alone[0], together[b], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", all_models())
def test_plain_longctr_batch_gives_the_same_scores_and_gradients(params: dict) -> None:
    """A plain dictionary of rows, as LongCTR's loader makes it, and nothing of it is changed."""
    if "router_topk" in params:
        params["router_topk"] = 2
    model = spread_embeddings(build_model(params)).eval()
    batch_dict, items, mask = random_batch(model.feature_map, LENGTHS, L=20)
    plain = {name: items[name] for name in items}
    copies = {name: rows.clone() for name, rows in plain.items()}
    gradients = []
    for batch in ((batch_dict, items, mask), (batch_dict, plain, mask)):
        model.zero_grad(set_to_none=True)
        y_pred = model(batch)["y_pred"]
        F.binary_cross_entropy(y_pred, model.get_labels(batch)).backward()
        gradients.append([y_pred.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        if a is not None or b is not None:  # an expert that no sample reads has none
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert list(plain) == list(copies) and all(plain[k].equal(copies[k]) for k in plain)
