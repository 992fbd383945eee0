"""ETA against its equations, sample by sample over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, D item width.
"""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_zoo.backbones.eta import ETABlock
from model_zoo.history.history import History

from ...support.helpers import build_model, tiny_params
from ..baselines.test_mirrn import retrieve
from ..layers.test_transformer import assert_each_sample, with_inputs
from .test_sdim import plain_attention

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12


def plain_eta(block: ETABlock, items_tD: Tensor, target_D: Tensor, setting: dict) -> Tensor:
    recent_tD, scale = (
        items_tD[1 - setting.get("short_seq_len", 50) :],
        setting.get("use_scale", True),
    )
    short_D = plain_attention(block.short_attention, recent_tD, target_D, scale)
    found = retrieve(items_tD, target_D, block.rotations_DT, block.topk) if len(items_tD) else []
    long_D = plain_attention(block.long_attention, items_tD[found], target_D, scale)
    return torch.cat([short_D, long_D])


def make(lengths: list[int] = LENGTHS, **setting: int | bool) -> tuple[ETABlock, History, Tensor]:
    block, history, target_BD = with_inputs(lambda: ETABlock(D, **setting), lengths, L, D)
    history.rows_UD.data[:5] = 0  # on no side of a plane
    return block, history, target_BD


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "setting",
    [
        dict(topk=4, hash_bits=2, short_seq_len=4),  # few bits: many items are equally near
        dict(topk=2, hash_bits=1, num_heads=2, attention_dim=8),
        dict(topk=5, hash_bits=32, use_scale=False, use_qkvo=False),
        dict(topk=30, hash_bits=4),
    ],
    ids=str,
)
def test_equals_the_equations(setting: dict, training: bool) -> None:
    block, history, target_BD = make(**setting)
    plain = partial(plain_eta, block, setting=setting)
    assert_each_sample(block.train(training), history, target_BD, plain)


def test_of_equally_near_items_the_newest_are_read() -> None:
    block, _, target_BD = make([L], topk=3, short_seq_len=2)
    items_LD = torch.randn(D).expand(L, D).double().clone().requires_grad_()
    block(History.from_vectors(items_LD[None]), target_BD)[:, D:].sum().backward()
    assert items_LD.grad.any(1).nonzero().flatten().tolist() == [L - 3, L - 2, L - 1]


def test_hashes_are_drawn_anew_in_training_only() -> None:
    setting = dict(topk=3, hash_bits=6)
    fixed, history, target_BD = make(**setting)
    fresh, _, _ = make(**setting, reuse_hash=False)
    fresh.load_state_dict(fixed.state_dict())
    outputs = [fresh(history, target_BD) for _ in range(4)]
    assert len({out_BH[:, D:].sum().item() for out_BH in outputs}) > 1
    assert torch.equal(fresh.eval()(history, target_BD), fixed(history, target_BD))


def test_each_expert_has_hashes_of_its_own(tiny_data: Path) -> None:
    """They follow from the seed."""
    one, same, other = (
        [
            module.rotations_DT
            for module in build_model(tiny_params(tiny_data, "ETA_MoS"), seed=seed).modules()
            if isinstance(module, ETABlock)
        ]
        for seed in (0, 0, 1)
    )
    assert len(one) == 11 and len({float(x.sum()) for x in (*one, *other)}) == 22
    assert all(map(torch.equal, one, same))


def test_bad_settings_are_explained() -> None:
    for setting in (dict(topk=0), dict(hash_bits=0)):
        with pytest.raises(ValueError, match=r"(topk|hash_bits)=0 is too small; write 1 or more"):
            ETABlock(D, **setting)
