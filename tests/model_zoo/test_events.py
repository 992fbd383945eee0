"""Features of events: every fast form against vectors that are written out, in float64.

Shape suffixes: B samples, L history length, H queries, N buckets, D item width.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.loader.random_batch import random_events
from model_zoo.backbones.din import DINBlock
from model_zoo.backbones.eta import ETABlock
from model_zoo.backbones.hstu import HSTUBlock
from model_zoo.backbones.mamba4rec import Mamba4RecBlock
from model_zoo.backbones.sdim import SDIMBlock, hashes
from model_zoo.backbones.sim import SIMBlock
from model_zoo.backbones.transact import TransActBlock
from model_zoo.backbones.twin import TWINBlock
from model_zoo.history import history as history_module
from model_zoo.history.history import History
from model_zoo.layers.attention import TargetAttention
from model_zoo.layers.block import SequenceBlock
from model_zoo.layers.events import EventBias
from model_zoo.moe.mos import MoS
from model_zoo.registry import BACKBONES, BASELINES

from ..support.helpers import (
    all_models,
    build_model,
    gather_always,
    ragged_history,
    random_batch,
    rows_of,
    tiny_params,
)
from .backbones.test_hstu import plain_hstu

D, L = 6, 11
LENGTHS = [0, 1, 3, 11, 11, 7]
SIZES = [3, 4]
N = sum(SIZES)
EVENT_COLS = [{"name": "action", "vocab_size": 4}, {"name": "time_gap", "vocab_size": 20}]


def eventful() -> tuple[History, Tensor]:
    """A history with random buckets, noise in the padding included, and targets."""
    torch.manual_seed(3)
    items = ragged_history(LENGTHS, L, D)
    events = [
        sum(SIZES[:e]) + torch.randint(size, (len(LENGTHS), L)) for e, size in enumerate(SIZES)
    ]
    history = History(items.rows_UD, items.index_BL, items.mask_BL, events)
    return history, torch.randn(len(LENGTHS), D, dtype=torch.float64, requires_grad=True)


def drawn(block: SequenceBlock) -> SequenceBlock:
    """The block in float64, with tables of events that are not zero."""
    block.double().eval().read_events(SIZES)
    for name, parameter in block.double().named_parameters():
        if "events" in name:
            torch.nn.init.normal_(parameter)
    return block


def vectors(history: History, value_ND: Tensor) -> Tensor:
    """``x + sum_e v_e`` at every position."""
    x_BLD = history.rows_UD[history.index_BL]
    for bucket_BL in history.events:
        x_BLD = x_BLD + value_ND[bucket_BL]
    return x_BLD


def biases(history: History, events: EventBias) -> Tensor:
    """``sum_e b_e`` of each query at every position, ``(H, B, L)``."""
    return sum(events.bias_HN[:, bucket_BL] for bucket_BL in history.events)


def plain_attention(
    attention: TargetAttention, history: History, target_BD: Tensor, columns: int, topk: int | None
) -> Tensor:
    """Attention over the newest ``columns`` items, head by head and sample by sample."""
    x_BLD, bias_HBL = history.embed(), biases(history, attention.events)
    valued_BLD = vectors(history, attention.events.value_ND)
    C, outputs = attention.attention_dim // attention.num_heads, []
    for b, mask_L in enumerate(history.mask_BL):
        read = mask_L.nonzero()[:, 0]
        read = read[read >= L - columns]
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * C, (h + 1) * C)
            query = attention.W_q(target_BD[b])[part]
            scores = attention.W_k(x_BLD[b, read])[:, part] @ query / C**0.5
            scores = scores + bias_HBL[h, b, read]
            best = scores.topk(min(topk or L, len(read))).indices
            value = attention.W_v(valued_BLD[b, read])[:, part]
            heads.append(scores[best].softmax(0) @ value[best])
        outputs.append(attention.W_o(torch.cat(heads)))
    return torch.stack(outputs)


def plain_twin(block: TWINBlock, history: History, target_BD: Tensor) -> Tensor:
    short = plain_attention(block.short_attention, history, target_BD, 4, None)
    return torch.cat([short, plain_attention(block.long_attention, history, target_BD, L, 3)], -1)


def plain_sdim(block: SDIMBlock, history: History, target_BD: Tensor) -> Tensor:
    short_BD = plain_attention(block.short_attention, history, target_BD, 4, None)
    x_BLD, rotations = history.embed(), block.rotations_DHT
    weight_BLH = (hashes(x_BLD, rotations) == hashes(target_BD, rotations)[:, None]).double()
    weight_BLH = weight_BLH * history.mask_BL[..., None]
    sums_BHD = torch.einsum("blh,bld->bhd", weight_BLH, vectors(history, block.events.value_ND))
    return torch.cat(
        [(F.normalize(sums_BHD, dim=-1) if block.l2_norm else sums_BHD).mean(1), short_BD], -1
    )


def plain_din(block: DINBlock, history: History, target_BD: Tensor) -> Tensor:
    x_BLD = history.embed()
    t_BLD = target_BD[:, None].expand_as(x_BLD)
    hidden = torch.cat([t_BLD, x_BLD, t_BLD - x_BLD, t_BLD * x_BLD], dim=-1).flatten(0, 1)
    for layer in block.mlp:
        hidden = layer(hidden)
    weight_BL = hidden.view(len(t_BLD), L) + biases(history, block.events)[0]
    weight_BL = weight_BL * history.mask_BL
    return torch.einsum("bl,bld->bd", weight_BL, vectors(history, block.events.value_ND))


def plain_sim(block: SIMBlock, history: History, target_BD: Tensor) -> Tensor:
    scores_BL = (block.W_b(history.embed()) @ block.W_a(target_BD)[:, :, None])[..., 0]
    scores_BL = scores_BL + biases(history, block.search_events)[0]
    valued_BLD = vectors(history, block.search_events.value_ND)
    aux_BD = torch.einsum("bl,bld->bd", scores_BL * history.mask_BL, valued_BLD)
    return torch.cat([*plain_parts(block, history, target_BD, scores_BL), aux_BD], -1)


def plain_eta(block: ETABlock, history: History, target_BD: Tensor) -> Tensor:
    sides = [x @ block.rotations_DT > 0 for x in (history.embed(), target_BD[:, None])]
    near_BL = (sides[0] == sides[1]).double().sum(-1) + 0.01 * torch.arange(L)  # newer ones first
    return torch.cat(plain_parts(block, history, target_BD, near_BL), -1)


def plain_parts(
    block: SIMBlock | ETABlock, history: History, target_BD: Tensor, scores_BL: Tensor
) -> list[Tensor]:
    """Attention over the newest items, and over the three with the best scores."""
    best_BL = scores_BL.masked_fill(~history.mask_BL, -torch.inf).argsort().argsort() >= L - 3
    found = history.with_mask(history.mask_BL & best_BL)
    return [
        plain_attention(block.short_attention, history, target_BD, 4, None),
        plain_attention(block.long_attention, found, target_BD, L, None),
    ]


def written_out(block: SequenceBlock, history: History, target_BD: Tensor) -> Tensor:
    """A block without events over vectors that have the events' added."""
    events = block.events if isinstance(block, Mamba4RecBlock) else block.layers[0].events
    other = History.from_vectors(vectors(history, events.value_ND)).with_mask(history.mask_BL)
    owner = block if isinstance(block, Mamba4RecBlock) else block.layers[0]
    owner.events = None
    out_BH = block(other, target_BD)
    owner.events = events
    return out_BH


SHORT = {"attention_dim": 8, "num_heads": 2, "short_seq_len": 5}
BLOCKS = {
    "TWIN": lambda: (TWINBlock(D, topk=3, **SHORT), plain_twin),
    "SDIM": lambda: (SDIMBlock(D, num_hashes=3, hash_bits=1, l2_norm=True, **SHORT), plain_sdim),
    "SDIM, sums": lambda: (SDIMBlock(D, num_hashes=9, hash_bits=2, **SHORT), plain_sdim),
    "SDIM, many hashes": lambda: (
        SDIMBlock(D, num_hashes=9, hash_bits=1, l2_norm=True, **SHORT),
        plain_sdim,
    ),
    "TransAct": lambda: (TransActBlock(D, num_heads=2), written_out),
    "TransAct, last pairs": lambda: (
        TransActBlock(D, num_heads=2, first_k_cols=2, concat_max_pool=False),
        written_out,
    ),
    "TransAct, two layers": lambda: (TransActBlock(D, transformer_layers=2), written_out),
    "Mamba4Rec": lambda: (Mamba4RecBlock(D, dropout=0.0), written_out),
    "HSTU": lambda: (HSTUBlock(D, num_layers=1, attention_dim=8, num_heads=2), plain_hstu),
    "HSTU, two layers": lambda: (HSTUBlock(D, attention_dim=8), plain_hstu),
    "DIN": lambda: (DINBlock(D, attention_hidden_activations="Tanh"), plain_din),
    "SIM": lambda: (SIMBlock(D, topk=3, **SHORT), plain_sim),
    "ETA": lambda: (ETABlock(D, topk=3, hash_bits=4, **SHORT), plain_eta),
}


@pytest.mark.parametrize("where", ["in place", "gathered"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_equals_its_plain_form(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "gathered":
        gather_always(monkeypatch)
    torch.manual_seed(1)
    block, plain = BLOCKS[name]()
    drawn(block)
    found = []
    for form in (block, lambda *inputs: plain(block, *inputs)):
        history, target_BD = eventful()
        inputs = [history.rows_UD, target_BD, *block.parameters()]
        out_BH = form(history, target_BD)
        gradients = torch.autograd.grad(out_BH.sin().sum(), inputs, allow_unused=True)
        found.append([out_BH, *gradients])
    assert found[0][0][3:].abs().min() > 0
    for own, wanted in zip(*found, strict=True):
        if wanted is not None or own is not None:  # the hash has no gradient
            torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-10)


def test_mamba_adds_vectors_after_its_projection() -> None:
    block = drawn(Mamba4RecBlock(D, hidden_size=D, dropout=0.0))
    with torch.no_grad():
        before_ND = block.events.value_ND.clone()
        block.events.value_ND.copy_(block.project(before_ND))
    history, target_BD = eventful()
    found = block(history, target_BD)
    block.events.value_ND = torch.nn.Parameter(before_ND)
    wanted = written_out(block, history, target_BD)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("H", [2, 7])
@pytest.mark.parametrize("few", [4, 0])
def test_reading_buckets_equals_reading_ones(
    H: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, attention and sums of a history against a history of ``[item, ones]``."""
    monkeypatch.setattr(history_module, "FEW_QUERIES", few)
    history, _ = eventful()
    ones_BLN = sum(F.one_hot(bucket_BL, N) for bucket_BL in history.events).double()
    query_BHD = torch.randn(len(LENGTHS), H, D + N, dtype=torch.float64, requires_grad=True)
    weights_BHL = torch.rand(len(LENGTHS), H, L, dtype=torch.float64) * history.mask_BL[:, None]
    weights_BHL.requires_grad_()
    found = []
    for plain in (False, True):
        own, buckets = history, N
        if plain:
            x_BLD = torch.cat([history.rows_UD[history.index_BL], ones_BLN], -1)
            own, buckets = History.from_vectors(x_BLD).with_mask(history.mask_BL), 0
        outputs = [
            *own.attend(query_BHD),
            own.attend(query_BHD, topk=4)[0],
            own.weighted_sum(weights_BHL, buckets),
        ]
        inputs = [history.rows_UD, query_BHD, weights_BHL]
        gradients = torch.autograd.grad(sum(y.sin().sum() for y in outputs), inputs)
        found.append([*outputs, own.scores(query_BHD), *gradients])
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-9, atol=1e-11)


def test_buckets_move_with_their_positions() -> None:
    """The only bucket of a position is its own number, so that a moved one tells where it was."""
    items = ragged_history(LENGTHS, L, D)
    place_BL = torch.arange(len(LENGTHS) * L).view(-1, L)
    history = History(items.rows_UD, items.index_BL, items.mask_BL, [place_BL])
    index_BK = torch.randint(L, (len(LENGTHS), 5))
    moved = [
        history.take(index_BK, torch.ones(len(LENGTHS), 5, dtype=torch.bool)),
        history.samples(torch.tensor([4, 2])),
        history.last(3),
        *history.split([2, 4], [3, 9]),
        history.packed()[0],
        history.with_mask(~history.mask_BL),
        history.contiguous(),
    ]
    for one in moved:
        assert torch.equal(one.index_BL, items.index_BL.flatten()[one.events[0]])
    assert torch.equal(moved[0].events[0], place_BL.gather(1, index_BK))
    assert torch.equal(moved[5].events[0][0], place_BL[history.mask_BL])


@pytest.mark.parametrize("anchor", ["start", "end"])
def test_a_window_has_the_bucket_of_its_newest_item(anchor: str) -> None:
    items = ragged_history(LENGTHS, L, D)
    place_BL = torch.arange(L).expand(len(LENGTHS), -1)
    windows = History(items.rows_UD, items.index_BL, items.mask_BL, [place_BL]).windows(
        4, 3, anchor
    )
    for b, length in enumerate(LENGTHS):
        count = (
            0
            if not length
            else 1 + max(0, -(-(length - 4) // 3) if anchor == "end" else (length - 4) // 3)
        )
        if anchor == "end":
            wanted = [L - 1 - 3 * (count - 1 - t) for t in range(count)]
        else:
            wanted = [L - length + min(length, 4 + 3 * t) - 1 for t in range(count)]
        found = windows.events[0][b][windows.mask_BL[b]]
        assert found.tolist() == wanted
    assert torch.equal(windows.drop_hidden_windows().events[0], windows.events[0])


@pytest.mark.parametrize("name", BACKBONES)
def test_experts_read_the_buckets_of_their_own_items(name: str) -> None:
    """MoS, whose branches send compacted subsequences, against experts that are called one by one."""
    torch.manual_seed(1)
    mixture = MoS(
        lambda: drawn(BLOCKS[name]()[0]), D, codebook_dim=4, window_size=3, window_stride=2
    )
    mixture.double().eval()
    history, target_BD = eventful()
    wanted_BH = (1 - sum(mixture.fusion.values())) * mixture.global_block(history, target_BD)
    for branch_name, alpha in mixture.fusion.items():
        branch, sequence = mixture.branches[branch_name], mixture.sequence(branch_name, history)
        routed, x_BTD = branch.router.route(sequence), sequence.embed()
        for b, length in enumerate(LENGTHS):
            for e, expert in enumerate(branch.experts):
                if not (length and routed.gates_BE[b, e]):
                    continue
                real = sequence.mask_BL[b].nonzero()[:, 0]
                own = real[routed.sent_RE[routed.row_BT[b, real], e].bool()]
                one = History.from_vectors(x_BTD[b : b + 1, own])
                one.events = tuple(column[b : b + 1, own] for column in sequence.events)
                out_1H = expert(one, target_BD[b : b + 1])
                wanted_BH = wanted_BH.index_add(
                    0, torch.tensor([b]), alpha * routed.gates_BE[b, e] * out_1H
                )
    found_BH, _ = mixture(history, target_BD)
    torch.testing.assert_close(found_BH, wanted_BH, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", all_models())
def test_a_model_with_events(name: str, tiny_data: Path) -> None:
    """It starts as without; then padding, batch mates and events behind the mask change nothing."""
    params = tiny_params(tiny_data, name, verbose=0)
    without = build_model(params).double().eval()
    model = build_model(params | {"event_cols": EVENT_COLS}).double().eval()
    lengths = [0, 1, 4, 20, 20, 13, 8]
    batch = random_batch(model.feature_map, lengths, 25)
    batch[1].events = random_events(EVENT_COLS, batch[2])
    with torch.no_grad():
        together = model(batch)["logit"]
        assert torch.equal(together, without(batch)["logit"])
        for parameter_name, parameter in model.named_parameters():
            if "events" in parameter_name:
                torch.nn.init.normal_(parameter)
        changed = model(batch)["logit"]
        assert torch.equal(changed, together) == (name in BASELINES)
        for b, length in enumerate(lengths):
            alone = model(rows_of(batch, [b], cut=25 - max(length, 1)))["logit"]
            torch.testing.assert_close(alone[0], changed[b], rtol=1e-9, atol=1e-9)
        for bucket_BL in batch[1].events.values():
            bucket_BL[batch[2] == 0] = 1
        torch.testing.assert_close(model(batch)["logit"], changed, rtol=1e-9, atol=1e-9)


def test_a_batch_without_the_events_is_rejected(tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, "TWIN", verbose=0) | {"event_cols": EVENT_COLS})
    with pytest.raises(ValueError, match="event_cols: the batch has no 'action'; leave it out"):
        model(random_batch(model.feature_map, [3, 2], 3))
