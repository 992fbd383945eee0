"""MIRRN against its equations, sample by sample over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, K retrieved items, D item width, T hash
bits, F frequencies.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model_zoo.baselines.mirrn import FrequencyFilter, MIRRNBlock
from model_zoo.history.history import History

from ...support.helpers import build_model, ragged_history, tiny_params
from ..backbones.test_sdim import plain_attention
from ..layers.test_transformer import Fade, assert_same, plain_norm, randomize

LENGTHS = [0, 1, 2, 5, 16, 17, 24, 24, 9]
D, L = 6, 24
SETTINGS = [
    dict(topk=5, hash_bits=2),  # few bits: many items are equally near
    dict(topk=6, hash_bits=3, short_seq_len=4),
    dict(topk=1, hash_bits=1),
    dict(topk=30, hash_bits=32, num_heads=2, attention_dim=8, use_scale=False),
    dict(topk=4, hash_bits=3, max_len=20),  # longer histories are cut
]


def retrieve(items_tD: Tensor, query_D: Tensor, rotations_DT: Tensor, topk: int) -> list[int]:
    """The items with the most bits of the query, of equals the newest, in order of time."""

    def bits(x_D: Tensor) -> list[bool]:
        return [bool(x_D @ plane_D > 0) for plane_D in rotations_DT.T]

    wanted = bits(query_D)
    equal = [sum(a == b for a, b in zip(bits(x_D), wanted, strict=True)) for x_D in items_tD]
    return sorted(sorted(range(len(equal)), key=lambda i: (equal[i], i))[-topk:])


def plain_filter(frequency_filter: FrequencyFilter, x_KD: Tensor, fade: bool) -> Tensor:
    """The Fourier sums written out; of a real sequence only half of the frequencies is kept."""
    K, drop = len(x_KD), Fade() if fade else nn.Identity()
    frequency_F, place_K = torch.arange(K // 2 + 1), torch.arange(K)
    waves_FK = torch.exp(-2j * torch.pi * torch.outer(frequency_F, place_K).double() / K) / K**0.5
    spectrum_FD = waves_FK @ x_KD.to(waves_FK.dtype)
    spectrum_FD = spectrum_FD * torch.complex(*frequency_filter.weight_D2.unbind(1))
    is_own_mirror_F = (frequency_F == 0) | (2 * frequency_F == K)
    times_F1 = torch.where(is_own_mirror_F, 1, 2)[:, None]
    filtered_KD = (waves_FK.conj().T @ (times_F1 * spectrum_FD)).real
    return plain_norm(frequency_filter.norm, drop(filtered_KD) + x_KD, 1e-12)


def plain_mirrn(
    block: MIRRNBlock, items_tD: Tensor, target_D: Tensor, setting: dict, fade: bool = False
) -> Tensor:
    items_tD = items_tD[-setting.get("max_len", 1000) :]
    t, scale = len(items_tD), setting.get("use_scale", True)
    recent_tD = items_tD[-(setting.get("short_seq_len", 50) - 1) :]
    short_D = plain_attention(block.short_attention, recent_tD, target_D, scale)
    if not t:
        return torch.zeros(2 * D, dtype=target_D.dtype)
    interests = []
    queries = (target_D, items_tD[-16:].mean(0), items_tD.mean(0))
    for query_D, frequency_filter in zip(queries, block.filters, strict=True):
        found = retrieve(items_tD, query_D, block.rotations_DT, setting["topk"])
        x_KD = torch.stack([items_tD[i] + 0.02 * block.pos.weight[t - i] for i in found])
        interests.append(plain_filter(frequency_filter, x_KD, fade).mean(0))
    long_D = plain_attention(block.long_attention, torch.stack(interests), target_D, scale)
    return torch.cat([short_D, long_D])


def make(lengths: list[int] = LENGTHS, **setting: int | bool) -> tuple[MIRRNBlock, History, Tensor]:
    torch.manual_seed(0)
    block = randomize(MIRRNBlock(D, **setting))
    nn.init.normal_(block.pos.weight, std=20)  # so that an age counts
    target_BD = torch.randn(len(lengths), D, dtype=torch.float64, requires_grad=True)
    history = ragged_history(lengths, L, D)
    history.rows_UD.data[:5] = target_BD.data[-1] = 0  # on no side of a plane
    return block, history, target_BD


@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equals_the_equations(setting: dict, fade: bool) -> None:
    block, history, target_BD = make(**setting)
    for attention in (block.short_attention, block.long_attention):
        assert attention.num_heads == setting.get("num_heads", 1)
        assert attention.attention_dim == setting.get("attention_dim", 64)
    if fade:  # in the place of the dropout
        for frequency_filter in block.filters:
            frequency_filter.dropout = Fade()
    found_BH = block.train(fade)(history, target_BD)
    assert found_BH.shape == (len(LENGTHS), block.output_dim) and not found_BH[0].any()
    x_BLD = history.rows_UD[history.index_BL]
    wanted = [
        plain_mirrn(block, x_LD[mask_L], target_D, setting, fade)
        for x_LD, mask_L, target_D in zip(x_BLD, history.mask_BL, target_BD, strict=True)
    ]
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(found_BH, torch.stack(wanted), inputs)


def test_of_equally_near_items_the_newest_are_retrieved() -> None:
    block, _, target_BD = make([L], topk=3, hash_bits=4, short_seq_len=2)
    items_LD = torch.randn(D).expand(L, D).double().clone().requires_grad_()
    block.eval()(History.from_vectors(items_LD[None]), target_BD)[:, D:].sum().backward()
    assert items_LD.grad.any(1).nonzero().flatten().tolist() == [L - 3, L - 2, L - 1]
    ages = block.pos.weight.grad.any(1).nonzero().flatten().tolist()
    assert ages == [1, 2, 3]


@pytest.mark.parametrize("longest", [0, 9], ids=["by transform", "by product"])
@pytest.mark.parametrize("K", [1, 2, 5, 8])
def test_filter_equals_the_blocks_of_the_original(K: int, longest: int) -> None:
    """``einsum("blnd,ndd->blnd")`` reads the diagonals of its blocks, whatever else is in them."""
    torch.manual_seed(0)
    dim, blocks = 12, 4
    size = dim // blocks
    weight = torch.randn(blocks, size, size, 2, dtype=torch.float64)
    frequency_filter = randomize(FrequencyFilter(dim, longest)).eval()
    converted = MIRRNBlock.from_longctr({"MHFT_block.1.complex_weight": weight})
    frequency_filter.weight_D2.data = converted["filters.1.weight_D2"]
    x_BKD = torch.randn(3, K, dim, dtype=torch.float64)
    spectrum = torch.fft.rfft(x_BKD, dim=1, norm="ortho").unflatten(2, (blocks, size))
    mixed = torch.einsum("blnd,ndd->blnd", spectrum, torch.view_as_complex(weight)).flatten(2)
    wanted_BKD = torch.fft.irfft(mixed, n=K, dim=1, norm="ortho") + x_BKD
    wanted_BKD = plain_norm(frequency_filter.norm, wanted_BKD, 1e-12)
    found_BKD = frequency_filter(x_BKD, torch.ones(3, K, dtype=torch.bool))
    torch.testing.assert_close(found_BKD, wanted_BKD, rtol=1e-9, atol=1e-9)


def test_both_forms_of_the_filter_agree_on_ragged_lengths() -> None:
    torch.manual_seed(1)
    K, dim = 7, 5
    mask_BK = torch.arange(K) >= K - torch.tensor([7, 0, 3, 1, 2, 7])[:, None]
    x_BKD = torch.randn(6, K, dim, dtype=torch.float64, requires_grad=True)
    product = randomize(FrequencyFilter(dim, K)).eval()
    transform = FrequencyFilter(dim, 0).double().eval()
    transform.load_state_dict(product.state_dict())
    found = []
    for form in (product, transform):
        y_BKD = form(x_BKD, mask_BK)[mask_BK]
        found.append([y_BKD, *torch.autograd.grad(y_BKD.sin().sum(), [x_BKD, form.weight_D2])])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def test_longctrs_retrieval_counts_padding_as_items() -> None:
    """With a ``topk`` above the length it retrieves every column."""
    block, history, target_BD = make(topk=30, longctr_compat=True)
    x_BLD = history.rows_UD[history.index_BL] + 0.02 * block.pos.weight[1 : L + 1].flip(0)
    wanted = []
    for x_LD, target_D in zip(x_BLD, target_BD, strict=True):
        interests = [plain_filter(f, x_LD, False).mean(0) for f in block.filters]
        wanted.append(plain_attention(block.long_attention, torch.stack(interests), target_D))
    found_BD = block.eval()(history, target_BD)[:, D:]
    torch.testing.assert_close(found_BD, torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_hashes_are_drawn_anew_in_training_only() -> None:
    setting = dict(topk=4, hash_bits=8)
    fixed, history, target_BD = make(**setting)
    fresh, _, _ = make(**setting, reuse_hash=False)
    fresh.load_state_dict(fixed.state_dict())
    for frequency_filter in (*fixed.filters, *fresh.filters):
        assert frequency_filter.dropout.p == 0.1
        frequency_filter.dropout.p = 0.0
    wanted = fixed(history, target_BD)
    assert torch.equal(fixed(history, target_BD), wanted)
    one, two = fresh(history, target_BD), fresh(history, target_BD)
    assert not torch.equal(one[:, D:], two[:, D:])
    assert torch.equal(one[:, :D], wanted[:, :D]) and torch.equal(two[:, :D], wanted[:, :D])
    assert torch.equal(fresh.eval()(history, target_BD), wanted)
    assert torch.equal(fixed.eval()(history, target_BD), wanted)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropouts_act_in_training_only(rate: float) -> None:
    block, history, target_BD = make(topk=4, attention_dropout=rate)
    assert block.short_attention.dropout == block.long_attention.dropout == rate
    assert not torch.equal(block(history, target_BD), block(history, target_BD))
    block.eval()
    assert torch.equal(block(history, target_BD), block(history, target_BD))


def test_start_in_a_whole_model(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "MIRRN")
    one, two = (build_model(params, seed).encoder.global_block for seed in (0, 1))
    assert one.pos.weight.shape[0] == params["max_len"] + 1
    assert "rotations_DT" in one.state_dict()
    starts = [(one.rotations_DT, two.rotations_DT, 1.0), (one.pos.weight, two.pos.weight, 1.0)]
    starts += [
        (f.weight_D2, g.weight_D2, 0.02) for f, g in zip(one.filters, two.filters, strict=True)
    ]
    for a, b, std in starts:
        error = 5 / math.sqrt(a.numel())
        assert abs(a.mean()) < std * error and abs(a.std() / std - 1) < error
        assert (a - b).abs().mean() > 0.8 * std


def test_bad_settings_are_explained() -> None:
    for setting in (dict(topk=0), dict(hash_bits=0)):
        with pytest.raises(ValueError, match="is too small; write 1 or more"):
            MIRRNBlock(D, **setting)
    with pytest.raises(ValueError, match="short_seq_len=1 leaves no item"):
        MIRRNBlock(D, short_seq_len=1)
