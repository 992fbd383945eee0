"""TransAct against torch's own transformer on the bare sequence (float64).

Shape suffixes: B samples, L padded length, t real items, D item width, W = 2 * D, H output width.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from model_zoo.backbones.transact import TransActBlock
from model_zoo.layers.transformer import EncoderLayer

from ...support.helpers import build_model, ragged_history, tiny_params
from ..layers.test_transformer import assert_same, randomize

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 4, 12
W = 2 * D
FFN = 10  # dim_feedforward


def encode(block: TransActBlock, x_tW: Tensor) -> Tensor:
    """``nn.TransformerEncoder`` with the weights of the block, and keys with a bias, in its mode."""
    heads, depth = block.layers[0].num_heads, len(block.layers)
    layer = nn.TransformerEncoderLayer(W, heads, FFN, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).double()
    weights = {}
    for i, ours in enumerate(block.layers):
        own = {
            "self_attn.in_proj_weight": torch.cat(
                [ours.W_q.weight, ours.W_k.weight, ours.W_v.weight]
            ),
            "self_attn.in_proj_bias": torch.cat(
                [ours.W_q.bias, torch.randn(W, dtype=torch.float64), ours.W_v.bias]
            ),
        }
        for name, module in {
            "self_attn.out_proj": ours.W_o,
            "linear1": ours.expand,
            "linear2": ours.contract,
            "norm1": ours.attention_norm,
            "norm2": ours.output_norm,
        }.items():
            own |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
        weights |= {f"layers.{i}.{name}": weight for name, weight in own.items()}
    return functional_call(encoder.train(block.training), weights, (x_tW[None],), strict=True)[0]


def plain_transact(block: TransActBlock, items_tD: Tensor, target_D: Tensor) -> Tensor:
    """The newest positions, zeros before the first item, and the projected maximum."""
    if not len(items_tD):
        return target_D.new_zeros(block.output_dim)
    y_tW = encode(block, torch.stack([torch.cat([item_D, target_D]) for item_D in items_tD]))
    missing = max(0, block.first_k_cols - len(y_tW))
    features = [y_tW.new_zeros(missing * W), y_tW[-block.first_k_cols :].flatten()]
    if block.out_linear is not None:
        features.append(block.out_linear.weight @ y_tW.max(0).values + block.out_linear.bias)
    return torch.cat(features)


def make_block(**setting: int | bool) -> TransActBlock:
    torch.manual_seed(0)
    return randomize(TransActBlock(D, dim_feedforward=FFN, **setting))


def random_target(samples: int = len(LENGTHS)) -> Tensor:
    return torch.randn(samples, D, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("layers", "heads", "first_k_cols"), [(1, 1, 1), (1, 2, 3), (2, 2, 2), (3, 1, 1), (2, 4, 15)]
)
def test_equals_torch(
    layers: int, heads: int, first_k_cols: int, pool: bool, training: bool
) -> None:
    setting = dict(num_heads=heads, transformer_layers=layers, first_k_cols=first_k_cols)
    block = make_block(**setting, concat_max_pool=pool).train(training)
    history, target_BD = ragged_history(LENGTHS, L, D), random_target()
    x_BLD = history.rows_UD[history.index_BL]
    wanted = [
        plain_transact(block, x_BLD[b, L - length :], target_BD[b])
        for b, length in enumerate(LENGTHS)
    ]
    found_BH = block(history, target_BD)
    assert found_BH.shape == (len(LENGTHS), (first_k_cols + pool) * W)
    assert [layer.num_heads for layer in block.layers] == [heads] * layers
    assert not found_BH[0].any()  # without history
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    assert_same(found_BH, torch.stack(wanted), inputs)
    with torch.no_grad():  # in evaluation torch has another implementation for this
        for b, length in enumerate(LENGTHS):
            wanted_H = plain_transact(block, x_BLD[b, L - length :], target_BD[b])
            torch.testing.assert_close(found_BH[b], wanted_H, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first_k_cols", [1, 4])
def test_the_pool_adds_its_columns_and_changes_no_other(first_k_cols: int) -> None:
    block = make_block(transformer_layers=2, first_k_cols=first_k_cols)
    bare = make_block(transformer_layers=2, first_k_cols=first_k_cols, concat_max_pool=False)
    bare.load_state_dict(
        {k: v for k, v in block.state_dict().items() if not k.startswith("out_linear")}
    )
    history, target_BD = ragged_history(LENGTHS, L, D), random_target()
    newest_BH = block(history, target_BD)[:, : first_k_cols * W]
    inputs = {"rows": history.rows_UD, "target": target_BD}
    assert_same(bare(history, target_BD), newest_BH, inputs)


@pytest.mark.parametrize("pool", [False, True])
def test_a_batch_narrower_than_the_columns_that_are_read(pool: bool) -> None:
    block = make_block(first_k_cols=5, concat_max_pool=pool)
    history, target_BD = ragged_history([2, 0, 1], 2, D), random_target(3)
    x_BLD = history.rows_UD[history.index_BL]
    wanted = [
        plain_transact(block, x_BLD[b, 2 - n :], target_BD[b]) for b, n in enumerate((2, 0, 1))
    ]
    torch.testing.assert_close(block(history, target_BD), torch.stack(wanted))


@pytest.mark.parametrize("pool", [False, True])
def test_longctrs_empty_history_is_one_padded_position(pool: bool) -> None:
    setting = dict(transformer_layers=2, first_k_cols=3, concat_max_pool=pool)
    block, compat = make_block(**setting), make_block(**setting, longctr_compat=True)
    history, target_BD = ragged_history(LENGTHS, L, D), random_target()
    found_BH, ours_BH = compat(history, target_BD), block(history, target_BD)
    assert torch.equal(found_BH[1:], ours_BH[1:])
    newest_1D = history.rows_UD[history.index_BL[0, -1:]]
    wanted_H = plain_transact(block, newest_1D, target_BD[0])
    torch.testing.assert_close(found_BH[0], wanted_H, rtol=1e-9, atol=1e-9)
    assert wanted_H[-W:].abs().min() > 0 and not wanted_H[: 2 * W].any()


@pytest.mark.parametrize("name", ["TransAct", "TransAct_MoS"])
def test_attention_starts_as_torchs_in_a_whole_model(name: str, tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, name))
    layers = [m for m in model.modules() if isinstance(m, EncoderLayer)]
    assert len(layers) > 1 or name == "TransAct"
    for layer in layers:
        width = layer.W_q.in_features
        torchs = nn.MultiheadAttention(width, 1)
        inputs = torch.cat([layer.W_q.weight, layer.W_k.weight, layer.W_v.weight])
        for ours, theirs, bound in (
            (inputs, torchs.in_proj_weight, (6 / (4 * width)) ** 0.5),
            (layer.W_o.weight, torchs.out_proj.weight, width**-0.5),
        ):
            assert 0.97 * bound < ours.abs().max() <= bound
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
        for linear in (layer.expand, layer.contract):  # FuxiCTR's
            std = (2 / sum(linear.weight.shape)) ** 0.5
            assert linear.weight.std().item() == pytest.approx(std, rel=0.05)
        for linear in (layer.W_q, layer.W_v, layer.W_o, layer.expand, layer.contract):
            assert not linear.bias.any()
        for norm in (layer.attention_norm, layer.output_norm):
            assert (norm.weight == 1).all() and not norm.bias.any()


def test_transformer_dropout_acts_in_training_only() -> None:
    block = TransActBlock(D, transformer_dropout=0.5)
    for layer in block.layers:
        rates = (layer.dropout.p, layer.hidden_dropout.p, layer.attention_dropout)
        assert rates == (0.5, 0.5, 0.5)
    history, target_BD = ragged_history([9], 9, D, dtype=torch.float32), torch.randn(1, D)
    assert not torch.equal(block(history, target_BD), block(history, target_BD))
    block.eval()
    assert torch.equal(block(history, target_BD), block(history, target_BD))


def test_bad_settings_are_explained() -> None:
    for setting in (dict(first_k_cols=0), dict(transformer_layers=0)):
        with pytest.raises(ValueError, match="is too small; write 1 or more"):
            TransActBlock(D, **setting)
    with pytest.raises(ValueError, match="the data have no times"):
        TransActBlock(D, use_time_window_mask=True)
    with pytest.raises(ValueError, match="num_heads=3 does not divide"):
        TransActBlock(D, num_heads=3)
