"""The serving form of every model: its scores are those of training, for any user.

Shape suffixes: N candidates, L history length.
"""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.loader.random_batch import random_batch, random_events
from model_zoo.batch import Batch
from model_zoo.registry import BACKBONES
from model_zoo.sequence_model import SequenceModel
from model_zoo.serving import ServedModel, export_program, serving_inputs

from ..support.helpers import NEARLY_ALL, all_models, build_model, tiny_params
from .test_all_models import spread_embeddings
from .test_events import EVENT_COLS

L = 30
LENGTHS = [30, 12, 5, 1, 0]
ITEMS = 20  # so that histories repeat items
OPTIONS: dict[str, dict[str, Any]] = {
    "TWIN_MoS": {"match_features": True, "expert_match": True, "router_topk": 2},
    "SDIM_MoS": {"match_features": True, "expert_match": True, "l2_norm": True, "num_heads": 2},
    "SIM_MoS": {"gsu_type": "hard", "search_feature": "item_id"},
    "TWIN": {"use_qkvo": False},
    "SDIM": {"attention_dim": 8, "num_heads": 2},  # too narrow for products of weights to pay
    "Mamba4Rec_GShard": {"num_layers": 2, "hidden_size": 16},
    "TransAct_MoS": {"concat_max_pool": False, "transformer_layers": 2, "window_anchor": "end"},
    "MIRRN": {"longctr_compat": True, "topk": 80},
}


def built(name: str, data: Path, **changes: Any) -> SequenceModel:
    params = tiny_params(data, name, verbose=0, **changes)
    return spread_embeddings(build_model(params)).eval()


def one_user(model: SequenceModel, length: int, candidates: int = 6, seed: int = 0) -> Batch:
    """Samples of one user, whose history is random."""
    batch = random_batch(model.feature_map, [length] * candidates, L, ITEMS, seed)
    batch[1].index[:, :-1] = batch[1].index[:1, :-1].clone()
    if model.event_sizes:
        events = random_events(EVENT_COLS, batch[2]).items()
        batch[1].events = {name: bucket_BL[:1].expand_as(bucket_BL) for name, bucket_BL in events}
    return batch


def inputs(model: SequenceModel, batch: Batch) -> tuple[Any, ...]:
    context = model.context_features(batch[0])
    return serving_inputs(batch, torch.arange(len(batch[2])), context, L)


def scores(model: SequenceModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch)["y_pred"][:, 0]


def check(model: SequenceModel) -> None:
    model.double()
    served = ServedModel(model, L)
    for length in LENGTHS:
        batch = one_user(model, length)
        for name, table in batch[1].tables.items():
            batch[1].tables[name] = table.double() if table.is_floating_point() else table
        want, found = scores(model, batch), served(*inputs(model, batch))
        torch.testing.assert_close(found, want, rtol=0, atol=1e-10)
        assert len(want.unique()) > 1


@pytest.mark.parametrize("name", all_models(NEARLY_ALL))
def test_the_scores_are_those_of_training(name: str, tiny_data: Path) -> None:
    check(built(name, tiny_data))


@pytest.mark.parametrize("name", OPTIONS)
def test_with_other_hyper_parameters(name: str, tiny_data: Path) -> None:
    check(built(name, tiny_data, **OPTIONS[name]))


@pytest.mark.parametrize("name", [*BACKBONES, "TWIN_MoS", "HSTU_GShard"])
def test_with_features_of_events(name: str, tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, name, verbose=0) | {"event_cols": EVENT_COLS})
    for parameter_name, parameter in model.named_parameters():
        if "events" in parameter_name:
            torch.nn.init.normal_(parameter)
    check(spread_embeddings(model).eval())


def test_the_model_itself_is_left_as_it_is(tiny_data: Path) -> None:
    model = built("TWIN_MoS", tiny_data)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    ServedModel(model, L)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_of_one_candidate(tiny_data: Path) -> None:
    model = built("TWIN_MoS", tiny_data)
    batch = one_user(model, 9, candidates=1)
    found = ServedModel(model, L)(*inputs(model, batch))
    torch.testing.assert_close(found, scores(model, batch), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*all_models(), "SIM_MoS", "Mamba4Rec_MoS", "HSTU_MoS"])
def test_a_saved_program_scores_users_that_were_never_traced(name: str, tiny_data: Path) -> None:
    model = built(name, tiny_data, **({"match_features": True} if name == "SIM_MoS" else {}))
    file = io.BytesIO()
    torch.export.save(export_program(model, one_user(model, 20), L), file)
    file.seek(0)
    program = torch.export.load(file).module()
    for length, candidates in zip(LENGTHS, [2, 50, 3, 7, 5], strict=True):
        batch = one_user(model, length, candidates, seed=length + 1)
        found = program(*inputs(model, batch))
        torch.testing.assert_close(found, scores(model, batch), rtol=0, atol=1e-5)


def test_tracing_is_refused(tiny_data: Path) -> None:
    model = built("TWIN", tiny_data)
    batch_dict, items, mask = one_user(model, 9)
    with pytest.raises(
        RuntimeError, match=r"trace would keep sizes .* use `python -m engine.export"
    ):
        torch.jit.trace(lambda: model((batch_dict, dict(items), mask))["y_pred"], ())
