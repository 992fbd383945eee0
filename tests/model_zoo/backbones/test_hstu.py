"""HSTU against equations 1 to 3 of its paper, position by position over the bare sequence (float64).

Shape suffixes: B samples, L padded length, t real items, D item width, A attention width, C head width.
"""

import pytest
import torch
from torch import Tensor

from model_zoo.backbones.hstu import HSTUBlock, HSTULayer
from model_zoo.history.history import History
from model_zoo.layers import block as block_module

from ...support.helpers import gather_always, ragged_history
from ..layers.test_transformer import assert_same, plain_norm, randomize

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, A, L = 6, 8, 12


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def plain_layer(layer: HSTULayer, x_tD: list[Tensor], buckets: list[list[int]]) -> list[Tensor]:
    """A layer over a sequence, the candidate last; an event has a list of buckets."""
    heads, C = layer.num_heads, A // layer.num_heads
    v, k, q, u = [], [], [], []
    for x_D in x_tD:
        z = layer.expand.weight @ plain_norm(layer.norm, x_D, 1e-12) + layer.expand.bias
        for part, piece in zip((v, k, q, u), silu(z).split(A), strict=True):
            part.append(piece)
    outputs = []
    for i, x_D in enumerate(x_tD):
        mixed_A = torch.zeros(A, dtype=torch.float64)
        for j in range(i + 1):
            distance = min(i - j, len(layer.distance_bias) - 1)
            bias, value_A = layer.distance_bias[distance, 0], v[j]
            for bucket in buckets[j]:
                bias = bias + layer.events.bias_HN[0, bucket]
                value_A = value_A + layer.events.value_ND[bucket].repeat(heads)
            weights = [
                silu(q[i][h * C : (h + 1) * C] @ k[j][h * C : (h + 1) * C] + bias)
                for h in range(heads)
            ]
            mixed_A = mixed_A + torch.stack(weights).repeat_interleave(C) * value_A / (i + 1)
        gated_A = plain_norm(layer.mixture_norm, mixed_A, 1e-12) * u[i]
        outputs.append(x_D + layer.contract.weight @ gated_A + layer.contract.bias)
    return outputs


def plain_hstu(block: HSTUBlock, history: History, target_BD: Tensor) -> Tensor:
    """The last output of each sample."""
    found = []
    for b, mask_L in enumerate(history.mask_BL):
        real = mask_L.nonzero()[:, 0].tolist()
        x_tD = [*history.rows_UD[history.index_BL[b, real]], target_BD[b]]
        buckets = [[int(column[b, j]) for column in history.events] for j in real]
        buckets.append([block.buckets + e for e in range(len(history.events))])  # the candidate's
        for layer in block.layers:
            x_tD = plain_layer(layer, x_tD, buckets)
        found.append(x_tD[-1])
    return torch.stack(found)


@pytest.mark.parametrize("where", ["in place", "gathered"])
@pytest.mark.parametrize(
    ("layers", "heads", "rows", "max_len"),
    [(1, 1, 50, 12), (1, 2, 300, 20), (2, 2, 50, 4), (3, 1, 300, 12)],
)
def test_equals_the_paper(
    layers: int, heads: int, rows: int, max_len: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few rows and with more rows than positions, and in groups of like lengths on a CPU."""
    monkeypatch.setattr(block_module, "LEAST", 2)
    if where == "gathered":
        gather_always(monkeypatch)
    torch.manual_seed(0)
    settings = {"num_layers": layers, "num_heads": heads, "max_len": max_len}
    block = randomize(HSTUBlock(D, attention_dim=A, **settings).eval())
    history = ragged_history(LENGTHS, L, D, rows)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64, requires_grad=True)
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(block(history, target_BD), plain_hstu(block, history, target_BD), inputs)


def test_the_scale_of_the_mixture_is_that_of_its_mean() -> None:
    """An item that is repeated weighs as once, so a short history of an expert is as good as a long one."""
    torch.manual_seed(0)
    block = randomize(HSTUBlock(D, num_layers=1, attention_dim=A).eval())
    torch.nn.init.zeros_(block.layers[0].distance_bias)
    target_1D = torch.randn(1, D, dtype=torch.float64)
    same = [History.from_vectors(target_1D[:, None].repeat(1, n, 1)) for n in (1, 3, 200)]
    outputs = torch.cat([block(history, target_1D) for history in same])
    torch.testing.assert_close(outputs, outputs[:1].expand(3, -1), rtol=1e-9, atol=1e-9)


def test_dropout_acts_in_training_only() -> None:
    block = HSTUBlock(D, attention_dim=A, dropout=0.5)
    history, target_1D = ragged_history([9], 9, D, dtype=torch.float32), torch.randn(1, D)
    assert not torch.equal(block(history, target_1D), block(history, target_1D))
    block.eval()
    assert torch.equal(block(history, target_1D), block(history, target_1D))


def test_bad_settings_are_explained() -> None:
    with pytest.raises(ValueError, match="num_layers=0 is too small; write 1 or more"):
        HSTUBlock(D, num_layers=0)
    with pytest.raises(ValueError, match="num_heads=3 does not divide the width 8"):
        HSTUBlock(D, attention_dim=A, num_heads=3)
