"""SIM against its equations, sample by sample over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, D item width.
"""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.backbones.sim import SIMBlock
from model_zoo.history.history import History
from model_zoo.history.item_dict import ItemDict
from model_zoo.registry import MIXTURES, variant

from ...support.helpers import build_model, ragged_history, random_batch, rows_of, tiny_params
from ..layers.test_transformer import assert_each_sample, with_inputs
from ..test_all_models import spread_embeddings
from .test_sdim import plain_attention

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12
HARD = dict(gsu_type="hard", search_feature="cate_id")


def plain_sim(block: SIMBlock, items_tD: Tensor, target_D: Tensor, setting: dict) -> Tensor:
    recent_tD = items_tD[1 - setting.get("short_seq_len", 50) :]
    short_D = plain_attention(block.short_attention, recent_tD, target_D)
    query_D = block.W_a.weight @ target_D
    scores = [query_D @ (block.W_b.weight @ item_D) for item_D in items_tD]
    found = sorted(range(len(scores)), key=lambda i: scores[i].item())[-setting["topk"] :]
    long_D = plain_attention(block.long_attention, items_tD[found], target_D)
    sum_D = sum((s * x_D for s, x_D in zip(scores, items_tD, strict=True)), 0 * target_D)
    return torch.cat([short_D, long_D, sum_D])


def make(lengths: list[int] = LENGTHS, **setting: int | str) -> tuple[SIMBlock, History, Tensor]:
    return with_inputs(lambda: SIMBlock(D, **setting), lengths, L, D)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "setting",
    [
        dict(topk=4, short_seq_len=4),
        dict(topk=2, num_heads=2, attention_dim=8),
        dict(topk=30, attention_dim=5),
    ],
    ids=str,
)
def test_equals_the_equations(setting: dict, training: bool) -> None:
    block, history, target_BD = make(**setting)
    assert block.output_dim == 2 * D + block.aux_dim == 3 * D
    plain = partial(plain_sim, block, setting=setting)
    assert_each_sample(block.train(training), history, target_BD, plain)


def test_the_search_learns_from_the_auxiliary_sum_only() -> None:
    block, history, target_BD = make(topk=3)
    out_BH = block(history, target_BD)
    for part, reached in ((out_BH[:, : 2 * D], False), (out_BH[:, 2 * D :], True)):
        gradient = torch.autograd.grad(
            part.sum(), block.W_b.weight, retain_graph=True, materialize_grads=True
        )[0]
        assert bool(gradient.any()) == reached


def test_longctrs_search_prefers_padding_to_negative_scores() -> None:
    block, _, target_BD = make([1], topk=2)
    negative = -(block.W_b.weight.T @ block.W_a(target_BD)[0])
    history = ragged_history([3], L, D)
    history.rows_UD.data[:] = negative.detach()
    assert block(history, target_BD)[:, D : 2 * D].any()
    block.longctr_compat = True
    assert not block(history, target_BD)[:, D : 2 * D].any()


@pytest.mark.parametrize("topk", [1, 3, 30])
def test_hard_search_reads_the_newest_items_that_match(topk: int) -> None:
    block, history, target_BD = make(topk=topk, **HARD)
    alike_BL = torch.rand(len(LENGTHS), L) < 0.4
    alike_BL[4] = False  # no item matches
    history.events = (alike_BL.long(),)
    found_BH = block(history, target_BD)
    assert found_BH.shape[1] == block.output_dim == 2 * D and block.aux_dim == 0
    x_BLD = history.rows_UD[history.index_BL]
    for b in range(len(LENGTHS)):
        items_tD = x_BLD[b, history.mask_BL[b] & alike_BL[b]][-topk:]
        wanted_D = plain_attention(block.long_attention, items_tD, target_BD[b])
        torch.testing.assert_close(found_BH[b, D:], wanted_D)
    assert found_BH[4, :D].any() and not found_BH[4, D:].any()


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("mixture", ["", *MIXTURES])
def test_the_loss_has_that_of_the_auxiliary_logit(mixture: str, tiny_data: Path) -> None:
    """As LongCTR's: ``alpha`` and ``beta`` weight both; predictions do not depend on it."""
    params = tiny_params(tiny_data, variant("SIM", mixture), alpha=0.5, beta=2.0, verbose=0)
    model = spread_embeddings(build_model(params)).train()
    batch = random_batch(model.feature_map, [20] * 32, L=20)
    found, labels = model(batch), model.get_labels(batch)
    main, aux = (
        F.binary_cross_entropy_with_logits(found[name], labels) for name in ("logit", "aux_logit")
    )
    wanted = 0.5 * aux + 2 * main + found["aux_loss"]
    torch.testing.assert_close(model.add_loss(found, labels), wanted)
    blocks = [m for m in model.encoder.modules() if isinstance(m, SIMBlock)]
    aux.backward()
    assert sum(block.W_b.weight.grad is not None for block in blocks) > bool(mixture)
    assert all(p.grad is None for p in model.classifier.dnn.parameters())
    assert "aux_logit" not in model.eval()(batch)


def hard_model(data: Path, name: str, **changes: object) -> torch.nn.Module:
    params = tiny_params(data, name, verbose=0, topk=3, gsu_type="hard", **changes)
    return spread_embeddings(build_model(params)).double().eval()


@pytest.mark.parametrize("name", ["SIM", "SIM_MoS"])
def test_hard_search_by_a_feature_of_the_data(name: str, tiny_data: Path) -> None:
    """Padding and batch mates change nothing, nor does the form of the batch."""
    model = hard_model(tiny_data, name, search_feature="cate_id")
    lengths = [0, 1, 20, 13, 8]
    batch = random_batch(model.feature_map, lengths, 20)
    together = model(batch)["logit"]
    plain = model((batch[0], dict(batch[1]), batch[2]))["logit"]
    torch.testing.assert_close(plain, together, rtol=1e-9, atol=1e-9)
    for b, length in enumerate(lengths):
        alone = model(rows_of(batch, [b], cut=20 - max(length, 1)))["logit"]
        torch.testing.assert_close(alone[0], together[b], rtol=1e-9, atol=1e-9)
    tables = {k: v.clone() for k, v in batch[1].tables.items()}
    tables["cate_id"] = torch.randint_like(tables["cate_id"], 1, 3)  # now other items match
    model.embedding_layer.embedding_layer.embedding_layers["cate_id"].weight.data.zero_()
    before = model(batch)["logit"]
    assert not torch.equal(
        model((batch[0], ItemDict(tables, batch[1].index), batch[2]))["logit"], before
    )


def test_missing_and_rare_values_are_never_found(tiny_data: Path) -> None:
    model = hard_model(tiny_data, "SIM", search_feature="cate_id")
    model.rare = 1
    batch = random_batch(model.feature_map, [20] * 8, 20)
    for value, found in ((0, 0), (1, 0), (2, 160)):
        columns, row_BL1, _ = model._positions(batch)
        columns |= {"cate_id": torch.full_like(columns["cate_id"], value)}
        assert model._event_columns(batch[1], columns, row_BL1)[-1].sum() == found


def test_bad_settings_are_explained(tiny_data: Path) -> None:
    with pytest.raises(ValueError, match="gsu_type='any' is unknown; write soft or hard"):
        SIMBlock(D, gsu_type="any")
    for setting in (dict(gsu_type="hard"), dict(search_feature="cate_id")):
        with pytest.raises(ValueError, match="write an item feature for the hard search, and none"):
            SIMBlock(D, **setting)
    with pytest.raises(ValueError, match="search_feature=image: write one of item_id, cate_id"):
        hard_model(tiny_data, "SIM", search_feature="image")
