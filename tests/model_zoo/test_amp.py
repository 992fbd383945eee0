"""``amp: bf16`` against plain float32: the same choices, and losses and ranks that agree."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import model_zoo
from engine.common.errors import UserError
from model_zoo.layers.mamba import Mamba
from model_zoo.ops.precision import all_digits, bf16_products, unrounded
from model_zoo.registry import MIXTURES, mixture_of
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.metrics import evaluate_metrics
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.steps import Stepper

from ..support.helpers import (
    EACH_PART_ONCE,
    all_models,
    build_model,
    codebooks,
    loader,
    ragged_history,
    random_batch,
    rows_of,
    tiny_params,
)
from .test_all_models import spread_embeddings

LENGTHS = [0, 1, 4, 20, 60, 33, 8, 60, 2, 50, 17]
CPU = torch.device("cpu")
ROUTED = [name for name in model_zoo.MODELS if mixture_of(name) in MIXTURES]


def stepper_of(model: SequenceModel) -> Stepper:
    return Stepper(model.train(), build_optimizer(model))


@pytest.mark.parametrize("name", all_models())
def test_trains_and_scores_near_float32(name: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name, verbose=0)
    model = spread_embeddings(build_model(params | {"amp": "bf16"}))
    batch = random_batch(model.feature_map, LENGTHS, L=60)
    for step in range(3):
        torch.manual_seed(step)
        stepper_of(model).step(batch, step=1, steps=1)
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    model.eval()
    rounded, loss = outputs(model, batch)
    model.amp = None
    plain, plain_loss = outputs(model, batch)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, plain)
    assert (rounded - plain).abs().max() < 0.1 * plain.std()
    assert abs(loss - plain_loss) < 5e-3 * plain_loss


def test_dice_trains_in_bf16_too(tiny_data: Path) -> None:
    keys = {"attention_hidden_activations": "Dice", "amp": "bf16"}
    model = build_model(tiny_params(tiny_data, "DIN", verbose=0) | keys)
    stepper_of(model).step(random_batch(model.feature_map, LENGTHS, L=60), step=1, steps=1)
    assert torch.isfinite(
        outputs(model.eval(), random_batch(model.feature_map, LENGTHS, L=60))[0]
    ).all()


@torch.no_grad()
def outputs(model: SequenceModel, batch: tuple) -> tuple[Tensor, float]:
    out = model(batch)
    return out["logit"].flatten(), float(model.add_loss(out, model.get_labels(batch)))


@pytest.mark.parametrize(
    "name", ["Mamba4Rec", "TransAct_MoS", "TWIN_ExpertChoice", "SDIM", "MIRRN"]
)
def test_padding_and_batch_mates_change_roundings_only(name: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name, verbose=0, amp="bf16")
    model = spread_embeddings(build_model(params)).eval()
    batch = random_batch(model.feature_map, LENGTHS, L=60)
    together = outputs(model, batch)[0]
    for b, length in enumerate(LENGTHS):
        alone = outputs(model, rows_of(batch, [b], cut=60 - max(1, length)))[0]
        assert (alone[0] - together[b]).abs() < 0.05 * together.std(), length


@pytest.mark.parametrize("name", all_models(["TWIN"], EACH_PART_ONCE))
def test_200_steps_agree(name: str, tiny_data: Path) -> None:
    """Losses at the weights of each step of a float32 run, and ranks at its end.

    At equal weights, for two runs part by more than that whatever differs between them: with
    weights changed by one part in a million, 200 steps change a loss by several parts in a hundred.
    """
    params = tiny_params(tiny_data, name, verbose=0)
    model = build_model(params)
    stepper = stepper_of(model)
    losses: dict[str | None, list[float]] = {None: [], "bf16": []}
    train = loader(params, shuffle=True, seed=1)
    for step in range(200):
        if step % len(train) == 0:
            batches = iter(train)
        batch = next(batches)
        if step % 5 == 0:
            model.eval()
            for model.amp in losses:
                losses[model.amp].append(outputs(model, batch)[1])
            model.amp = None
            model.train()
        stepper.step(batch, step=1, steps=1)
    plain, rounded = (torch.tensor(found).mean() for found in losses.values())
    assert 0 < (rounded - plain).abs() < 1e-3 * plain
    model.eval()
    auc = []
    for model.amp in losses:
        found = [
            (model.get_labels(batch).flatten(), outputs(model, batch)[0])
            for split in ("train", "valid", "test")
            for batch in loader(params, split)
        ]
        labels, logits = (torch.cat(part).numpy() for part in zip(*found, strict=True))
        auc.append(evaluate_metrics(labels, logits, ["AUC"])["AUC"])
    assert abs(auc[0] - auc[1]) < 1e-3


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("topk", [1, 2])
def test_routing_is_that_of_float32(
    name: str, topk: int, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tiny_params(tiny_data, name, verbose=0, router_topk=topk)
    model = spread_embeddings(build_model(params)).train()
    batch = random_batch(model.feature_map, LENGTHS, L=60)
    found: list[list[Tensor]] = [[], []]
    for amp in (False, True):
        torch.manual_seed(0)  # GShard's second choice
        history, _ = model.embed_items(batch)
        with bf16_products(CPU, enabled=amp), monkeypatch.context() as patch:
            for branch_name, branch in model.branches.items():
                real = branch.router.route

                def watch(sequence, real=real, seen=found[amp]):
                    routed = real(sequence)
                    seen.extend((routed.gates_BE, routed.sent_RE))
                    return routed

                patch.setattr(branch.router, "route", watch)
                branch.plan(model.encoder.sequence(branch_name, history))
        model.forget_observed()
    assert found[0] and all(map(torch.equal, *found))


def test_codebooks_move_as_in_float32(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "TWIN_MoS", verbose=0)
    codes = []
    for amp in (None, "bf16"):
        model = spread_embeddings(build_model(params | {"amp": amp}))
        before = [codebook.codes_EC.clone() for codebook in codebooks(model)]
        batch = random_batch(model.feature_map, LENGTHS, L=60)
        torch.manual_seed(0)
        stepper_of(model).step(batch, step=1, steps=1)
        codes.append([codebook.codes_EC for codebook in codebooks(model)])
        assert not any(map(torch.equal, before, codes[-1]))
    assert all(map(torch.equal, *codes))


@pytest.mark.parametrize("queries", [1, 16])  # read in place, and from a gather
def test_what_one_query_reads_is_not_rounded(queries: int) -> None:
    history = ragged_history([0, 1, 5, 9], 9, 32, dtype=torch.float32)
    query_BHD = torch.randn(4, queries, 32)
    plain = (
        *history.attend(query_BHD),
        history.scores(query_BHD),
        history.weighted_sum(query_BHD[..., :9]),
    )
    with bf16_products(CPU, enabled=True):
        inside = (*history.attend(query_BHD), history.scores(query_BHD))
        inside += (history.weighted_sum(query_BHD[..., :9]),)
        half = history.attend(query_BHD.bfloat16())[0]
    assert all(map(torch.equal, plain, inside))
    assert half.dtype == torch.float32


@pytest.mark.parametrize("name", ["SDIM", "MIRRN"])
def test_hashes_are_those_of_float32(name: str, tiny_data: Path) -> None:
    model = spread_embeddings(build_model(tiny_params(tiny_data, name, verbose=0))).eval()
    history, target_BD = model.embed_items(random_batch(model.feature_map, LENGTHS, L=60))
    block = model.encoder.global_block
    seen: list[Tensor] = []
    watched = "_long_interest" if name == "SDIM" else "_refine"
    real = getattr(block, watched)

    def watch(history, choice, *rest):
        seen.append(block._collisions(history, choice) if name == "SDIM" else choice)
        return real(history, choice, *rest)

    setattr(block, watched, watch)
    for amp in (False, True):
        with torch.no_grad(), bf16_products(CPU, enabled=amp):
            block(history, target_BD)
    half = len(seen) // 2
    assert half and all(map(torch.equal, seen[:half], seen[half:]))


@pytest.mark.parametrize("last", [False, True])
def test_scan_states_are_float32(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From rounded inputs: the scan within the mixer gives what it gives in float32."""
    mamba = Mamba(16).eval()
    seen = []
    real = model_zoo.layers.mamba.selective_scan

    def watch(*inputs, last):
        with unrounded(inputs[0]):
            plain = real(*(x.float() for x in inputs), last=last)
        assert not torch.is_autocast_enabled("cpu")
        seen.append((real(*inputs, last=last), plain))
        return seen[-1][0]

    monkeypatch.setattr(model_zoo.layers.mamba, "selective_scan", watch)
    with torch.no_grad(), bf16_products(CPU, enabled=True):
        mamba(torch.randn(3, 70, 16), torch.ones(3, 70, dtype=torch.bool), last)
    inside, plain = seen[0]
    torch.testing.assert_close(inside, plain.to(inside.dtype), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_tf32_is_for_cuda_alone_and_put_back() -> None:
    cuda = torch.device("cuda")
    x = SimpleNamespace(device=cuda)
    setting = torch.get_float32_matmul_precision
    assert setting() == "highest"
    with bf16_products(cuda, enabled=True):
        assert setting() == "high"
        with all_digits(x):
            assert setting() == "highest"
        with unrounded(x):
            assert setting() == "high"
    assert setting() == "highest"
    with bf16_products(cuda, enabled=False), bf16_products(CPU, enabled=True):
        assert setting() == "highest"
    with pytest.raises(KeyError), bf16_products(cuda, enabled=True):
        raise KeyError
    assert setting() == "highest"


@pytest.mark.parametrize("value", ["fp16", "float16", "BF16", "none", ""])
def test_other_values_are_refused(value: str, tiny_data: Path) -> None:
    with pytest.raises(UserError, match=f"amp: is {value!r}; write bf16 or null"):
        tiny_params(tiny_data, "TWIN", amp=value)
    params = tiny_params(tiny_data, "TWIN", verbose=0)
    with pytest.raises(ValueError, match="write bf16"):
        build_model(params | {"amp": value})
