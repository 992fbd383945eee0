"""Mamba4Rec against its recurrence, item by item over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, D item width, W width inside, E inner
channels, N state size, R rank of the step.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model_zoo.backbones.mamba4rec import Mamba4RecBlock, MambaLayer
from model_zoo.history.history import History
from model_zoo.layers.mamba import Mamba

from ...support.helpers import build_model, tiny_params
from ..layers.test_transformer import Fade, assert_same, plain_norm, with_inputs

LENGTHS = [0, 1, 2, 3, 5, 12, 12, 7]
D, L = 6, 12
EPS = 1e-12
SETTINGS = [
    dict(),
    dict(num_layers=2, d_state=5, dt_init="mamba_ssm"),
    dict(num_layers=3, d_state=3, d_conv=3, expand=1, hidden_size=4),
    dict(hidden_size=20, d_state=4, expand=3),  # a step of rank 2
    dict(num_layers=2, hidden_size=6, d_state=1, d_conv=1),
]


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def plain_mamba(mamba: Mamba, x_tW: Tensor, N: int) -> Tensor:
    """The recurrence of the Mamba paper on one sequence, a position and a state at a time."""
    E, W = mamba.in_proj.out_features // 2, x_tW.shape[1]
    R = math.ceil(W / 16)
    A_EN = -mamba.A_log.exp()
    pieces: list[Tensor] = []  # of the convolution: the items so far
    h_EN = x_tW.new_zeros(E, N)
    outputs = []
    for x_W in x_tW:
        inner = mamba.in_proj.weight @ x_W
        pieces.append(inner[:E])
        z_E = inner[E:]
        u_E = mamba.conv1d.bias
        for back in range(min(mamba.conv1d.kernel_size[0], len(pieces))):
            u_E = u_E + mamba.conv1d.weight[:, 0, -1 - back] * pieces[-1 - back]
        u_E = silu(u_E)
        selected = mamba.x_proj.weight @ u_E
        dt_R, B_N, C_N = selected[:R], selected[R : R + N], selected[R + N :]
        delta_E = (1 + (mamba.dt_proj.weight @ dt_R + mamba.dt_proj.bias).exp()).log()
        decayed = [(delta_E * A_EN[:, n]).exp() * h_EN[:, n] for n in range(N)]
        h_EN = torch.stack([decayed[n] + delta_E * B_N[n] * u_E for n in range(N)], dim=1)
        y_E = h_EN @ C_N + mamba.D * u_E
        outputs.append(mamba.out_proj.weight @ (y_E * silu(z_E)))
    return torch.stack(outputs)


def plain_mamba4rec(
    block: Mamba4RecBlock, items_tD: Tensor, target_D: Tensor, N: int, fade: bool
) -> Tensor:
    """Without padding: every layer at every item, and the state of the last."""
    drop = Fade() if fade else nn.Identity()
    if isinstance(block.project, nn.Linear):
        items_tD = items_tD @ block.project.weight.T
        target_D = block.project.weight @ target_D
    if not len(items_tD):
        return target_D.new_zeros(2 * len(target_D))
    x_tW = plain_norm(block.norm, drop(items_tD), EPS)
    for layer in block.layers:
        h_tW = drop(plain_mamba(layer.mamba, x_tW, N))
        if len(block.layers) > 1:
            h_tW = h_tW + x_tW
        h_tW = plain_norm(layer.norm, h_tW, EPS)
        hidden = h_tW @ layer.w_1.weight.T + layer.w_1.bias
        hidden = drop(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
        added_tW = drop(hidden @ layer.w_2.weight.T + layer.w_2.bias)
        x_tW = plain_norm(layer.ffn_norm, added_tW + h_tW, EPS)
    return torch.cat([x_tW[-1], x_tW[-1] * target_D])


def make(setting: dict) -> tuple[Mamba4RecBlock, History, Tensor]:
    return with_inputs(lambda: Mamba4RecBlock(D, **setting), LENGTHS, L, D)


@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equals_the_equations(setting: dict, fade: bool) -> None:
    block, history, target_BD = make(setting)
    W = setting.get("hidden_size", D)
    assert len(block.layers) == setting.get("num_layers", 1)
    assert {layer.mamba.conv1d.weight.shape for layer in block.layers} == {
        (W * setting.get("expand", 2), 1, setting.get("d_conv", 4))
    }
    if fade:  # in the place of all dropouts
        for module in (block, *block.layers):
            module.dropout = Fade()
    found_BH = block.train(fade)(history, target_BD)
    assert found_BH.shape == (len(LENGTHS), block.output_dim) == (len(LENGTHS), 2 * W)
    assert not found_BH[0].any()  # without history
    x_BLD = history.rows_UD[history.index_BL]
    wanted = [
        plain_mamba4rec(block, x_LD[mask_L], target_D, setting.get("d_state", 32), fade)
        for x_LD, mask_L, target_D in zip(x_BLD, history.mask_BL, target_BD, strict=True)
    ]
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(found_BH, torch.stack(wanted), inputs)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_padding_is_exact(setting: dict) -> None:
    """A history alone and without padding, also of one item, gives the same."""
    block, history, target_BD = make(setting)
    found_BH = block.eval()(history, target_BD)
    for b, length in enumerate(LENGTHS):
        bare = history.samples(torch.tensor([b])).last(max(1, length))
        wanted_1H = block(bare, target_BD[b : b + 1])
        torch.testing.assert_close(found_BH[b : b + 1], wanted_1H, rtol=1e-9, atol=1e-9)


def test_norms_see_the_smallest_embeddings() -> None:
    """FuxiCTR starts them at 1e-4: an epsilon larger than 1e-12 would leave little of them."""
    block, history, target_BD = make({})
    large_BH = block.eval()(history, target_BD)
    history = History(history.rows_UD.detach() * 1e-4, history.index_BL, history.mask_BL)
    small_BH = block(history, target_BD)
    torch.testing.assert_close(small_BH, large_BH, rtol=1e-3, atol=1e-3)
    x_BLD = history.rows_UD[history.index_BL]
    wanted_H = plain_mamba4rec(block, x_BLD[-1, -LENGTHS[-1] :], target_BD[-1], 32, False)
    torch.testing.assert_close(small_BH[-1], wanted_H, rtol=1e-10, atol=1e-10)


def test_dropout_acts_in_training_only() -> None:
    block, history, target_BD = make(dict(dropout=0.5, num_layers=2))
    assert [module.dropout.p for module in (block, *block.layers)] == [0.5] * 3
    assert not torch.equal(block(history, target_BD), block(history, target_BD))
    block.eval()
    assert torch.equal(block(history, target_BD), block(history, target_BD))


def assert_std(x: Tensor, std: float) -> None:
    """Centred with that standard deviation, up to 5 standard errors."""
    error = 5 / math.sqrt(x.numel())
    assert abs(x.mean()) < std * error and abs(x.std() / std - 1) < error


@pytest.mark.parametrize("dt_init", ["mamba4rec", "mamba_ssm"])
@pytest.mark.parametrize("name", ["Mamba4Rec", "Mamba4Rec_MoS"])
def test_the_official_start_survives_a_whole_model(
    name: str, dt_init: str, tiny_data: Path
) -> None:
    params = tiny_params(tiny_data, name, dt_init=dt_init, num_layers=2)
    layers = [m for m in build_model(params).modules() if isinstance(m, MambaLayer)]
    assert len(layers) == 2 * (1 if name == "Mamba4Rec" else 1 + 2 * params["num_experts"])
    N, rank = params["d_state"], math.ceil(params["hidden_size"] / 16)
    steps = []
    for layer in layers:
        mamba, bound = layer.mamba, params["d_conv"] ** -0.5
        for linear in (mamba.in_proj, mamba.x_proj, mamba.out_proj, layer.w_1, layer.w_2):
            assert_std(linear.weight, 0.02)
            assert linear.bias is None or not linear.bias.any()
        for weight in (mamba.conv1d.weight, mamba.conv1d.bias):
            assert 0.9 * bound < weight.abs().max() <= bound
            assert_std(weight, bound / math.sqrt(3))
        assert (mamba.D == 1).all()
        assert torch.equal(mamba.A_log, torch.arange(1, N + 1).log().expand_as(mamba.A_log))
        if dt_init == "mamba4rec":
            assert_std(mamba.dt_proj.weight, 0.02)
            assert not mamba.dt_proj.bias.any()
        else:
            bound = rank**-0.5
            assert 0.9 * bound < mamba.dt_proj.weight.abs().max() <= bound
            assert_std(mamba.dt_proj.weight, bound / math.sqrt(3))
            steps.append((1 + mamba.dt_proj.bias.exp()).log())
    assert not Mamba(8).dt_proj.bias.any()  # alone it starts like that too
    if steps:  # log-uniform from 0.001 to 0.1
        step = torch.cat(steps)
        assert 0.999e-3 < step.min() < 1.2e-3 and 0.08 < step.max() < 0.1001
        assert_std(step.log10() + 2, 2 / math.sqrt(12))


def test_bad_settings_are_explained() -> None:
    for setting in (dict(num_layers=0), dict(d_state=0), dict(d_conv=0), dict(expand=0)):
        with pytest.raises(
            ValueError, match=f"{next(iter(setting))}=0 is too small; write 1 or more"
        ):
            Mamba4RecBlock(D, **setting)
    with pytest.raises(
        ValueError, match="dt_init='other' is unknown; write mamba4rec or mamba_ssm"
    ):
        Mamba4RecBlock(D, dt_init="other")
