"""MiaSRec against its equations, sequence by sequence in numpy (float64)."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_zoo.baselines.miasrec import MiasRecBlock
from model_zoo.compat import reset_parameters
from model_zoo.history.history import History

from ...support.helpers import ragged_history
from ..layers.test_entmax import by_root

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12
SETTINGS = [
    dict(num_heads=2),
    dict(num_heads=3, num_layers=1, entmax_alpha=2.0, max_repeat=3, beta=0.5),
    dict(max_len=4, entmax_alpha=1.2, max_repeat=1, tau=1.0),
]


def norm(x: NDArray, w: dict[str, NDArray], name: str) -> NDArray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: NDArray, w: dict[str, NDArray], name: str) -> NDArray:
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)


def encode(x: list[NDArray], w: dict[str, NDArray], layer: str, H: int) -> list[NDArray]:
    """One transformer layer, query by query and head by head."""
    keys, values = ([linear(token, w, f"{layer}.{name}") for token in x] for name in ("W_k", "W_v"))
    outputs = []
    for token in x:
        heads = []
        for part in (slice(h * D // H, (h + 1) * D // H) for h in range(H)):
            query = linear(token, w, f"{layer}.W_q")[part]
            weights = [np.exp(query @ k[part] / math.sqrt(D / H)) for k in keys]
            mixed = sum(a * value[part] for a, value in zip(weights, values, strict=True))
            heads.append(mixed / sum(weights))
        mixed = linear(np.concatenate(heads), w, f"{layer}.W_o")
        y = norm(token + mixed, w, f"{layer}.attention_norm")
        inner = linear(y, w, f"{layer}.expand")
        inner = np.array([t * (1 + math.erf(t / math.sqrt(2))) / 2 for t in inner])
        outputs.append(norm(y + linear(inner, w, f"{layer}.contract"), w, f"{layer}.output_norm"))
    return outputs


def plain_score(block: MiasRecBlock, items: NDArray, names: NDArray, v: NDArray) -> NDArray:
    """The equations on one bare sequence, oldest item first; ``names`` tells items apart."""
    if not len(items):
        return np.zeros(2 * D + 1)
    w = {name: p.detach().numpy() for name, p in block.named_parameters()}
    items, names = items[::-1][: block.max_len], list(names[::-1][: block.max_len])
    e = [items.mean(0), *items]
    times = [1, *(min(names.count(name), block.max_repeat) for name in names)]
    x = []
    for i, (e_i, f) in enumerate(zip(e, times, strict=True)):
        x_i = e_i + w["positions.weight"][i] + w["frequencies.weight"][f - 1]
        x.append(norm(x_i, w, "input_norm"))
    for layer in range(len(block.encoder)):
        x = encode(x, w, f"encoder.{layer}", block.encoder[layer].num_heads)
    o = []
    for e_i, c_i in zip(e, x, strict=True):
        g = 1 / (1 + np.exp(-linear(np.concatenate([e_i, c_i]), w, "highway")))
        o.append(g * e_i + (1 - g) * c_i)
    p = by_root(np.array([w["importance.weight"][0] @ o_i for o_i in o]), block.entmax_alpha)
    z = np.array([o_i / np.linalg.norm(o_i) for o_i in o])
    cosine = z @ v / np.linalg.norm(v)
    best = max((i for i in range(len(z)) if p[i] > 0), key=lambda i: cosine[i])
    r = block.beta * cosine[best] + (1 - block.beta) * (p @ cosine)
    return np.concatenate([z[best], p @ z, [r / block.tau]])


def large_block(**setting: float) -> MiasRecBlock:
    """Weights larger than at the start, where the intents hardly differ."""
    torch.manual_seed(0)
    block = MiasRecBlock(D, dim_feedforward=10, **setting).double().eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return block


@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_the_equations(setting: dict) -> None:
    block = large_block(**setting)
    history = ragged_history(LENGTHS, L, D, num_rows=5)  # five items: most of them repeat
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    x_BLD, name_BL = history.embed_detached().numpy(), history.index_BL.numpy()
    out_BH = block(history, target_BD).detach()
    for b, length in enumerate(LENGTHS):
        kept = slice(L - length, None)
        plain = plain_score(block, x_BLD[b, kept], name_BL[b, kept], target_BD[b].numpy())
        np.testing.assert_allclose(out_BH[b].numpy(), plain, rtol=1e-9, atol=1e-9)
        alone = history.samples(torch.tensor([b])).last(
            max(1, length)
        )  # no batch mates, no padding
        out_1H = block(alone, target_BD[b : b + 1])
        torch.testing.assert_close(out_1H, out_BH[b : b + 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_gradients_are_finite_and_reach_every_parameter(alpha: float) -> None:
    torch.manual_seed(3)
    block = MiasRecBlock(D, num_heads=2, entmax_alpha=alpha)
    history = ragged_history(LENGTHS, L, D, num_rows=8, dtype=torch.float32)
    history.rows_UD.data[:2] = 0
    target_BD = torch.randn(len(LENGTHS), D, requires_grad=True)
    target_BD.data[3] = 0
    out_BH = block(history, target_BD)
    (out_BH * torch.randn_like(out_BH)).sum().backward()
    for name, parameter in block.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name
    assert torch.isfinite(history.rows_UD.grad).all() and torch.isfinite(target_BD.grad).all()


def test_padding_is_no_occurrence() -> None:
    index_BL = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1]])
    mask_BL = torch.arange(8)[None] > 0  # the first is padding
    counts = MiasRecBlock(2)._occurrences(History(torch.ones(4, 2), index_BL, mask_BL))
    assert counts.tolist() == [[0, 3, 1, 1, 2, 3, 2, 3]]


def test_starts_normal_and_bad_settings_are_explained() -> None:
    block = MiasRecBlock(64)
    reset_parameters(block)
    assert block.encoder[0].expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.encoder[0].expand.bias.any() and (block.input_norm.weight == 1).all()
    bad = dict(num_heads=4, max_repeat=0, max_len=0, entmax_alpha=0.9, beta=1.5, tau=0)
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"{name}={value}.*write"):
            MiasRecBlock(6, **{name: value})
