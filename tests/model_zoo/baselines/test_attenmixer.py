"""AttenMixer against its equations, sequence by sequence in numpy (float64)."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_zoo.baselines.attenmixer import AttenMixerBlock
from model_zoo.history.history import History

from ...support.helpers import ragged_history

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12


def softmax(x: NDArray) -> NDArray:
    return np.exp(x) / np.exp(x).sum()


def plain_score(block: AttenMixerBlock, items: NDArray, v: NDArray) -> NDArray:
    """The equations on one bare sequence, oldest item first, with a loop for everything."""
    if not len(items):
        return np.zeros(2 * D + 1)
    w = {name: p.detach().numpy() for name, p in block.named_parameters()}
    e = [x / np.linalg.norm(x) for x in items]
    K, H = len(block.level_queries), block.num_heads

    queries = np.zeros((K, D))
    for i in range(K):
        newest = [e[-1 - j] if j < len(e) else np.zeros(D) for j in range(i + 1)]
        weight, bias = w[f"level_queries.{i}.weight"], w[f"level_queries.{i}.bias"]
        queries[i] = weight @ np.concatenate(newest) + bias
    for feature in range(D):
        queries[:, feature] /= np.sqrt((queries[:, feature] ** 2).sum())

    heads = []
    for h in range(H):
        part = slice(h * D // H, (h + 1) * D // H)
        pooled = np.zeros(len(e))
        for i in range(K):
            q = (w["W_q.weight"] @ queries[i] + w["W_q.bias"])[part]
            keys = [(w["W_k.weight"] @ x + w["W_k.bias"])[part] for x in e]
            alpha = softmax(np.array([2 / (1 + np.exp(-q @ k)) for k in keys]))
            pooled += alpha**block.lp_pool
        attention = softmax(2 * pooled ** (1 / block.lp_pool))
        values = [(w["W_v.weight"] @ x + w["W_v.bias"])[part] for x in e]
        heads.append(sum(a * value for a, value in zip(attention, values, strict=True)))
    a = np.concatenate(heads)
    a = (a - a.mean()) / np.sqrt(a.var() + 1e-8) * w["norm.weight"] + w["norm.bias"]
    s = w["session.weight"] @ np.concatenate([a, e[-1]]) + w["session.bias"]
    s /= np.linalg.norm(s)
    return np.concatenate([s, s * v, [16 * (s @ v) / np.linalg.norm(v)]])


@pytest.mark.parametrize(
    "setting", [{}, dict(num_heads=3, last_k=4, lp_pool=1.0), dict(num_heads=2, lp_pool=64.0)]
)
def test_equals_the_equations(setting: dict) -> None:
    torch.manual_seed(0)
    block = AttenMixerBlock(D, **setting).double().eval()
    for parameter in block.parameters():  # larger than at the start, where attention is flat
        torch.nn.init.uniform_(parameter, -2, 2)
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    out_BH = block(history, target_BD).detach().numpy()
    assert out_BH.shape == (len(LENGTHS), block.output_dim)
    x_BLD = history.embed_detached().numpy()
    for b, length in enumerate(LENGTHS):
        plain = plain_score(block, x_BLD[b, L - length :], target_BD[b].numpy())
        np.testing.assert_allclose(out_BH[b], plain, rtol=1e-9, atol=1e-9)


def test_padding_and_batch_mates_do_not_matter() -> None:
    torch.manual_seed(1)
    block = AttenMixerBlock(D, num_heads=2).double().eval()
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    out_BH = block(history, target_BD)
    for b, length in enumerate(LENGTHS):
        alone = history.samples(torch.tensor([b])).last(max(1, length))
        out_1H = block(alone, target_BD[b : b + 1])
        torch.testing.assert_close(out_1H, out_BH[b : b + 1], rtol=1e-9, atol=1e-9)


def test_gradients_are_finite_and_reach_every_parameter() -> None:
    torch.manual_seed(2)
    block = AttenMixerBlock(D, num_heads=2, lp_pool=3.0).double()
    history = ragged_history(LENGTHS, L, D)
    history.rows_UD.data[:10] = 0  # items without a direction
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64, requires_grad=True)
    target_BD.data[3] = 0
    block(history, target_BD).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name
    assert torch.isfinite(history.rows_UD.grad).all() and torch.isfinite(target_BD.grad).all()

    block.eval()
    rows_UD = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    index_BL, mask_BL = torch.randint(5, (3, 4)), torch.tensor([[0] * 4, [0, 0, 0, 1], [1] * 4]) > 0
    torch.autograd.gradcheck(
        lambda rows, v: block(History(rows, index_BL, mask_BL), v),
        (rows_UD, torch.randn(3, D, dtype=torch.float64, requires_grad=True)),
    )


def test_dropout_acts_in_training_only() -> None:
    history = ragged_history([9, 9], 9, D, dtype=torch.float32)
    target_BD = torch.randn(2, D)
    for setting in (dict(dropout=0.5), dict(attention_dropout=0.5)):
        block = AttenMixerBlock(D, **{"dropout": 0.0, "attention_dropout": 0.0} | setting)
        assert not torch.equal(block(history, target_BD), block(history, target_BD))
        block.eval()
        assert torch.equal(block(history, target_BD), block(history, target_BD))


def test_starts_uniform_and_bad_settings_are_explained() -> None:
    block = AttenMixerBlock(64)
    block.init_weights()
    values = torch.cat([parameter.detach().flatten() for parameter in block.parameters()])
    assert values.abs().max() <= 1 / 8 and values.std().item() == pytest.approx(
        1 / 8 / 3**0.5, rel=0.02
    )
    assert block.norm.weight.abs().max() <= 1 / 8
    with pytest.raises(
        ValueError, match="num_heads=4 does not divide the width 6; write one of 1, 2"
    ):
        AttenMixerBlock(6, num_heads=4)
    with pytest.raises(ValueError, match=r"last_k=1.*write 2 or more"):
        AttenMixerBlock(6, last_k=1)
    with pytest.raises(ValueError, match="lp_pool=0"):
        AttenMixerBlock(6, lp_pool=0.0)
