"""Attention in the cheap form equals the plain form, in outputs and gradients (float64)."""

import pytest
import torch
from torch import Tensor

from model_zoo.layers.attention import TargetAttention, TopKTargetAttention
from model_zoo.ops.functional import masked_softmax

from ...support.helpers import ragged_history

LENGTHS = [0, 1, 3, 12, 12, 7]


def plain_attention(
    attention: TargetAttention, x_BLD: Tensor, mask_BL: Tensor, target_BD: Tensor, topk: int | None
) -> Tensor:
    """Project everything, head by head and sample by sample, as the papers write it."""
    outputs = []
    C = attention.W_q.out_features // attention.num_heads
    for b in range(len(x_BLD)):
        x_tD = x_BLD[b][mask_BL[b]]
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * C, (h + 1) * C)
            query = attention.W_q(target_BD[b])[part]
            key, value = attention.W_k(x_tD)[:, part], attention.W_v(x_tD)[:, part]
            scores = key @ query / C**0.5
            chosen = torch.arange(len(x_tD))
            if topk is not None and len(x_tD) > topk:
                chosen = scores.topk(topk).indices
            heads.append(scores[chosen].softmax(0) @ value[chosen])
        outputs.append(attention.W_o(torch.cat(heads)))
    return torch.stack(outputs)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("topk", [None, 1, 4, 12, 50])
def test_equals_plain_form(heads: int, topk: int | None) -> None:
    D, A, L = 6, 8, 12
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64, requires_grad=True)
    if topk is None:
        attention = TargetAttention(D, A, heads).double()
    else:
        attention = TopKTargetAttention(D, A, heads, topk=topk).double()
    inputs = [history.rows_UD, target_BD, *attention.parameters()]

    fast = attention(history, target_BD)
    x_BLD = history.rows_UD[history.index_BL]
    plain = plain_attention(attention, x_BLD, history.mask_BL, target_BD, topk)
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)
    assert torch.equal(fast[0], torch.zeros(D, dtype=torch.float64))  # empty history
    weights = torch.randn_like(fast)
    for a, b in zip(
        torch.autograd.grad((fast * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)  # six weights are dropped alike twice in one of 64 draws
    attention = TopKTargetAttention(4, 4, 1, 0.5, topk=3)
    history = ragged_history([9, 9], 9, 4, dtype=torch.float32)
    target = torch.randn(2, 4)
    assert not torch.equal(attention(history, target), attention(history, target))
    attention.eval()
    assert torch.equal(attention(history, target), attention(history, target))


def test_masked_softmax_of_an_empty_row_is_zero_with_zero_gradient() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    mask = torch.tensor([[False, False, False], [True, False, True]])
    weights = masked_softmax(scores, mask)
    assert torch.equal(weights[0], torch.zeros(3)) and weights[1, 1] == 0
    weights.square().sum().backward()
    assert torch.equal(scores.grad[0], torch.zeros(3)) and torch.isfinite(scores.grad).all()


def test_bad_settings_are_explained() -> None:
    with pytest.raises(ValueError, match="not divisible by num_heads=3"):
        TargetAttention(4, 8, 3)
    with pytest.raises(ValueError, match="topk=0"):
        TopKTargetAttention(4, 8, topk=0)
