"""The encoder layer against its equations, head by head over the bare sequence (float64).

Shape suffixes: B samples, L padded length, t real positions, W width, C width of a head.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.history.history import History
from model_zoo.layers.transformer import EncoderLayer

from ...support.helpers import ragged_history

LENGTHS = [1, 2, 5, 9, 9]
W, L = 8, 9


class Fade(nn.Module):
    """In the place of a dropout: a factor per channel, from 0.3 up to 1, so that order matters."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0.3, 1, x.shape[-1], dtype=x.dtype)


def assert_same(found: Tensor, wanted: Tensor, inputs: Mapping[str, Tensor]) -> None:
    """Outputs are equal, and for a random weighting of them all gradients, none of which is zero."""
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(found)
    gradients = [
        torch.autograd.grad(
            (out * weights).sum(),
            list(inputs.values()),
            retain_graph=True,
            materialize_grads=True,
        )
        for out in (found, wanted)
    ]
    for name, a, b in zip(inputs, *gradients, strict=True):
        assert a.abs().sum() > 0, name
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def randomize(module: nn.Module, scale: float = 0.5) -> nn.Module:
    """In float64, every parameter random: biases and norms do not start at 0 and 1."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=scale)
    return module


def with_inputs(
    make_block: Callable[[], nn.Module], lengths: list[int], L: int, D: int
) -> tuple[Any, History, Tensor]:
    """A block of random parameters, histories of these lengths and targets; always the same ones."""
    torch.manual_seed(0)
    block = randomize(make_block())
    target_BD = torch.randn(len(lengths), D, dtype=torch.float64, requires_grad=True)
    return block, ragged_history(lengths, L, D), target_BD


def assert_each_sample(
    block: nn.Module,
    history: History,
    target_BD: Tensor,
    plain: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Outputs and gradients are those of ``plain(items, target)``; an empty history gives zeros."""
    found_BH = block(history, target_BD)
    assert found_BH.shape == (len(target_BD), block.output_dim) and not found_BH[0].any()
    x_BLD = history.rows_UD[history.index_BL]
    wanted = [
        plain(x_LD[mask_L], target_D)
        for x_LD, mask_L, target_D in zip(x_BLD, history.mask_BL, target_BD, strict=True)
    ]
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(found_BH, torch.stack(wanted), inputs)


def plain_norm(norm: nn.LayerNorm, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight + norm.bias
    )


def plain_layer(
    layer: EncoderLayer, x_tW: Tensor, act: Callable[[Tensor], Tensor], fade: bool, eps: float
) -> Tensor:
    """Vaswani et al.'s layer with the norms after the sums."""
    drop = Fade() if fade else nn.Identity()
    C = W // layer.num_heads
    mixed = []
    for x_W in x_tW:
        heads = []
        for h in range(layer.num_heads):
            part = slice(h * C, (h + 1) * C)
            query_C = layer.W_q.weight[part] @ x_W + layer.W_q.bias[part]
            keys = [layer.W_k.weight[part] @ other_W for other_W in x_tW]
            values = [layer.W_v.weight[part] @ o + layer.W_v.bias[part] for o in x_tW]
            scores = torch.stack([query_C @ key_C / C**0.5 for key_C in keys]).exp()
            heads.append(sum(s / scores.sum() * v for s, v in zip(scores, values, strict=True)))
        mixed.append(layer.W_o.weight @ torch.cat(heads) + layer.W_o.bias)
    y_tW = plain_norm(layer.attention_norm, x_tW + drop(torch.stack(mixed)), eps)
    hidden = drop(act(y_tW @ layer.expand.weight.T + layer.expand.bias))
    added_tW = drop(hidden @ layer.contract.weight.T + layer.contract.bias)
    return plain_norm(layer.output_norm, y_tW + added_tW, eps)


def random_inputs() -> tuple[Tensor, Tensor]:
    """Left padded, with noise in the padding."""
    x_BLW = torch.randn(len(LENGTHS), L, W, dtype=torch.float64, requires_grad=True)
    return x_BLW, torch.arange(L) >= L - torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize(
    ("heads", "setting"),
    [(1, {}), (2, {}), (4, dict(activation=F.gelu, eps=1e-2)), (8, dict(activation=torch.tanh))],
)
def test_equals_the_equations(heads: int, setting: dict, fade: bool) -> None:
    torch.manual_seed(0)
    layer = randomize(EncoderLayer(W, heads, 5, **setting))
    if fade:
        layer.dropout = layer.hidden_dropout = Fade()
    x_BLW, mask_BL = random_inputs()
    act = setting.get("activation", lambda x: x * (x > 0))
    rows = [
        plain_layer(layer, x_LW[mask_L], act, fade, setting.get("eps", 1e-5))
        for x_LW, mask_L in zip(x_BLW, mask_BL, strict=True)
    ]
    found = layer(x_BLW, mask_BL)[mask_BL]
    assert_same(found, torch.cat(rows), {"x": x_BLW} | dict(layer.named_parameters()))


@pytest.mark.parametrize("last", [1, 3, L, L + 4])
def test_the_newest_positions_are_those_of_the_whole_layer(last: int) -> None:
    torch.manual_seed(1)
    layer = randomize(EncoderLayer(W, 2, 5))
    x_BLW, mask_BL = random_inputs()
    found, whole = layer(x_BLW, mask_BL, last=last), layer(x_BLW, mask_BL)
    assert found.shape == (len(LENGTHS), min(last, L), W)
    assert_same(found, whole[:, -last:], {"x": x_BLW} | dict(layer.named_parameters()))


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "hidden_dropout"])
def test_a_dropout_acts_where_it_says_and_in_training_only(name: str) -> None:
    torch.manual_seed(2)
    layer, other = (EncoderLayer(W, 2, 5, **{name: rate}) for rate in (0.5, 1.0))
    x_BLW, mask_BL = torch.randn(3, L, W), torch.ones(3, L, dtype=torch.bool)
    assert not torch.equal(layer(x_BLW, mask_BL), layer(x_BLW, mask_BL))
    layer.eval()
    assert torch.equal(layer(x_BLW, mask_BL), layer(x_BLW, mask_BL))

    wanted = EncoderLayer(W, 2, 5)  # that without what a rate of 1 drops
    wanted.load_state_dict(other.state_dict())
    for linear in {
        "dropout": (wanted.W_o, wanted.contract),
        "attention_dropout": (wanted.W_o,),
        "hidden_dropout": (wanted.contract,),
    }[name]:
        nn.init.zeros_(linear.weight)
        if name == "dropout":
            nn.init.zeros_(linear.bias)
    torch.testing.assert_close(other(x_BLW, mask_BL), wanted(x_BLW, mask_BL))
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer(x_BLW, mask_BL), other.eval()(x_BLW, mask_BL))


@pytest.mark.parametrize("heads", [0, 3, 16])
def test_heads_that_do_not_divide_are_explained(heads: int) -> None:
    with pytest.raises(ValueError, match=f"num_heads={heads} does not divide.*, 8"):
        EncoderLayer(W, heads, 5)
