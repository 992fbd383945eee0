"""SDIM against its equations, sample by sample over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, D item width, H hashes, T bits per hash.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_zoo.backbones.sdim import SDIMBlock, hashes
from model_zoo.history.history import History
from model_zoo.layers.attention import TargetAttention

from ...support.helpers import build_model, tiny_params
from ..layers.test_transformer import assert_same, with_inputs

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12


def plain_attention(
    attention: TargetAttention, items_tD: Tensor, target_D: Tensor, use_scale: bool = True
) -> Tensor:
    """Attention of the target over some items, all of them projected; zero without items."""
    if not len(items_tD):
        return torch.zeros_like(target_D)
    query, keys, values = target_D, items_tD, items_tD
    if attention.use_qkvo:
        query = attention.W_q.weight @ target_D
        keys, values = items_tD @ attention.W_k.weight.T, items_tD @ attention.W_v.weight.T
    heads = []
    for query_C, keys_tC, values_tC in zip(
        *(x.chunk(attention.num_heads, -1) for x in (query, keys, values)), strict=True
    ):
        scale = math.sqrt(len(query_C)) if use_scale else 1.0
        scores = [(query_C @ key_C / scale).exp() for key_C in keys_tC]
        heads.append(sum(s / sum(scores) * v for s, v in zip(scores, values_tC, strict=True)))
    mixed = torch.cat(heads)
    return attention.W_o.weight @ mixed if attention.use_qkvo else mixed


def collides(item_D: Tensor, target_D: Tensor, rotation_DT: Tensor) -> bool:
    """Every bit is the same."""
    return all((item_D @ r_D > 0) == (target_D @ r_D > 0) for r_D in rotation_DT.T)


def plain_long(
    items_tD: Tensor, target_D: Tensor, rotations_DHT: Tensor, l2_norm: bool
) -> tuple[Tensor, int]:
    """Mean over the hashes of the sums of the colliding items, and the number of collisions."""
    sums, count = [], 0
    for rotation_DT in rotations_DHT.unbind(1):
        found = [item_D for item_D in items_tD if collides(item_D, target_D, rotation_DT)]
        total_D = sum(found, torch.zeros_like(target_D))
        length = total_D.square().sum().sqrt() if found else 1.0
        sums.append(total_D / length if l2_norm else total_D)
        count += len(found)
    return sum(sums) / len(sums), count


def plain_sdim(block: SDIMBlock, history: History, target_BD: Tensor, setting: dict) -> Tensor:
    """``[long, short]`` of each sample; the short length counts the target."""
    recent, scale = 1 - setting["short_seq_len"], setting.get("use_scale", True)
    x_BLD = history.rows_UD[history.index_BL]
    outputs, total = [], 0
    for x_LD, mask_L, target_D in zip(x_BLD, history.mask_BL, target_BD, strict=True):
        items_tD = x_LD[mask_L]
        long_D, count = plain_long(items_tD, target_D, block.rotations_DHT, setting["l2_norm"])
        short_D = plain_attention(block.short_attention, items_tD[recent:], target_D, scale)
        outputs.append(torch.cat([long_D, short_D]))
        total += count
    assert 0 < total < history.mask_BL.sum() * block.rotations_DHT.shape[1]
    return torch.stack(outputs)


def make(lengths: list[int] = LENGTHS, **setting: int | bool) -> tuple[SDIMBlock, History, Tensor]:
    return with_inputs(lambda: SDIMBlock(D, **setting), lengths, L, D)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("l2_norm", [False, True])
@pytest.mark.parametrize(
    "setting",
    [
        dict(short_seq_len=5, num_hashes=1, hash_bits=1),
        dict(short_seq_len=50, num_hashes=7, hash_bits=2, num_heads=2, attention_dim=8),
        dict(short_seq_len=3, num_hashes=16, hash_bits=4, use_scale=False),
        dict(short_seq_len=5, num_hashes=3, hash_bits=3, use_qkvo=False),
        dict(short_seq_len=5, num_hashes=3, hash_bits=3, use_qkvo=False, num_heads=2),
        dict(short_seq_len=13, hash_bits=2, use_qkvo=False, num_heads=3, use_scale=False),
    ],
    ids=str,
)
def test_equals_the_equations(setting: dict, l2_norm: bool, training: bool) -> None:
    setting = setting | dict(l2_norm=l2_norm)
    block, history, target_BD = make(**setting)
    assert block.short_attention.num_heads == setting.get("num_heads", 1)
    found_BH = block.train(training)(history, target_BD)
    assert found_BH.shape == (len(LENGTHS), block.output_dim) and not found_BH[0].any()
    wanted_BH = plain_sdim(block, history, target_BD, setting)
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(found_BH, wanted_BH, inputs)


@pytest.mark.parametrize("l2_norm", [False, True])
def test_gradient_of_the_long_part_reaches_colliding_items_only(l2_norm: bool) -> None:
    block, history, target_BD = make([10], num_hashes=1, hash_bits=2, l2_norm=l2_norm)
    history = History(history.rows_UD, torch.arange(L)[None], history.mask_BL)
    (block(history, target_BD)[:, :D] * torch.randn(D)).sum().backward()
    rotation_DT = block.rotations_DHT[:, 0]
    hit = [collides(item_D, target_BD[0], rotation_DT) for item_D in history.rows_UD[2:L]]
    reached = history.rows_UD.grad.any(1).tolist()
    assert 0 < sum(hit) < 10 and not target_BD.grad.any()
    assert reached == [False, False, *hit] + [False] * (len(reached) - L)


def test_gradient_is_bounded_where_items_are_zero() -> None:
    block, history, target_BD = make([10], num_hashes=1, hash_bits=1, l2_norm=True)
    history.rows_UD.data.zero_()
    block(history, target_BD).sum().backward()
    assert history.rows_UD.grad.abs().max() < 1e3


def test_collisions_are_as_likely_as_the_paper_says() -> None:
    """(1 - a / pi)^T for an angle a; in training, and with hashes that are not reused."""
    torch.manual_seed(0)
    angles = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64) * math.pi
    items_tD = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.arange(1, 6)[:, None]
    target_1D = torch.tensor([[5.0, 0.0]], dtype=torch.float64)
    for reuse_hash in (False, True):
        block = SDIMBlock(2, num_hashes=20_000, hash_bits=3, reuse_hash=reuse_hash).double()
        for i, item_D in enumerate(items_tD):
            found_D = block(History.from_vectors(item_D.view(1, 1, 2)), target_1D)[0, :2]
            share = found_D.norm() / item_D.norm()
            wanted = (1 - angles[i].item() / math.pi) ** 3
            assert share.item() == pytest.approx(wanted, abs=0.015)


def test_hashes_are_drawn_anew_in_training_only() -> None:
    setting = dict(num_hashes=4, hash_bits=3)
    fixed, history, target_BD = make(**setting, reuse_hash=True)
    fresh, _, _ = make(**setting, reuse_hash=False)
    fresh.load_state_dict(fixed.state_dict())
    wanted = fixed(history, target_BD)
    one, two = fresh(history, target_BD), fresh(history, target_BD)
    assert not torch.equal(one[:, :D], two[:, :D])
    assert torch.equal(one[:, D:], wanted[:, D:]) and torch.equal(two[:, D:], wanted[:, D:])
    assert torch.equal(fresh.eval()(history, target_BD), wanted)
    assert torch.equal(fixed(history, target_BD), wanted)
    assert torch.equal(fixed.eval()(history, target_BD), wanted)


def test_each_expert_has_rotations_of_its_own(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "SDIM_MoS", num_hashes=4, hash_bits=3)
    blocks = [m for m in build_model(params).modules() if isinstance(m, SDIMBlock)]
    assert len(blocks) == 1 + 2 * params["num_experts"]
    for i, block in enumerate(blocks):
        rotations = block.rotations_DHT
        assert rotations.shape[1:] == (4, 3) and "rotations_DHT" in block.state_dict()
        assert abs(rotations.mean()) < 0.3 and rotations.std().item() == pytest.approx(1, abs=0.2)
        for other in blocks[:i]:
            assert (rotations - other.rotations_DHT).abs().mean() > 0.8
    other = build_model(params, seed=1).encoder.global_block
    assert (blocks[0].rotations_DHT - other.rotations_DHT).abs().mean() > 0.8


def test_hashes_are_bits_and_zero_is_negative() -> None:
    rotated = torch.tensor([[0.0, -1.0, 2.0], [1.0, 1e-9, -3.0], [-1.0, -0.0, 0.0]])
    assert hashes(rotated, torch.eye(3)[:, None]).tolist() == [[4], [3], [0]]
    for bits in (31, 32, 62):  # the most bits of four bytes, and more
        found = hashes(torch.ones(1), torch.ones(1, 1, bits))
        assert found.item() == 2**bits - 1 and (found.dtype == torch.int32) == (bits == 31)


def test_longctrs_short_mask_is_one_position_older() -> None:
    """Of a window that it masks in full it takes the plain mean, padding (zero) included."""
    block, history, target_BD = make(short_seq_len=5, longctr_compat=True)
    x_BLD = history.rows_UD[history.index_BL] * history.mask_BL[:, :, None]
    wanted = []
    for x_LD, mask_L, target_D in zip(x_BLD, history.mask_BL, target_BD, strict=True):
        window_SD, shifted_S = x_LD[-4:], mask_L[-5:-1]
        if not shifted_S.any():
            target_D, shifted_S = 0 * target_D, ~shifted_S
        wanted.append(plain_attention(block.short_attention, window_SD[shifted_S], target_D))
    torch.testing.assert_close(block(history, target_BD)[:, D:], torch.stack(wanted))


def test_attention_dropout_acts_in_training_only() -> None:
    block, history, target_BD = make(attention_dropout=0.5)
    assert not torch.equal(block(history, target_BD), block(history, target_BD))
    block.eval()
    assert torch.equal(block(history, target_BD), block(history, target_BD))


def test_bad_settings_are_explained() -> None:
    for setting in (dict(num_hashes=0), dict(hash_bits=0), dict(hash_bits=63)):
        with pytest.raises(ValueError, match=r"(num_hashes|hash_bits)=.*write 1"):
            SDIMBlock(D, **setting)
    with pytest.raises(ValueError, match=r"short_seq_len=1 leaves no item"):
        SDIMBlock(D, short_seq_len=1)
