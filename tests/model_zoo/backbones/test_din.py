"""DIN against its equations, pair by pair over the bare history (float64).

Shape suffixes: B samples, L padded length, t real items, P real items of a batch, D item width, K
width of a hidden layer.
"""

import pytest
import torch
from fuxictr.pytorch import layers as fuxictr
from torch import Tensor, nn

from model_zoo.backbones.din import Dice, DINBlock
from model_zoo.history.history import History

from ..layers.test_transformer import assert_same, with_inputs

LENGTHS = [0, 1, 2, 5, 12, 12, 7]
D, L = 6, 12
SETTINGS = [
    dict(attention_hidden_units=[5], attention_hidden_activations="ReLU"),
    dict(attention_hidden_units=[7, 4], attention_hidden_activations="PReLU", din_use_softmax=True),
    dict(attention_hidden_units=[5, 3], attention_hidden_activations="Dice", din_use_softmax=True),
    dict(attention_output_activation="Sigmoid"),
]


def plain_din(block: DINBlock, history: History, target_BD: Tensor) -> Tensor:
    """All real pairs written out; Dice is FuxiCTR's, which sees no padding here."""
    x_BLD = history.rows_UD[history.index_BL]
    x_PD = x_BLD[history.mask_BL]
    t_PD = target_BD[history.mask_BL.nonzero()[:, 0]]
    hidden_PK = torch.cat([t_PD, x_PD, t_PD - x_PD, t_PD * x_PD], dim=1)
    for layer in block.mlp:
        if isinstance(layer, Dice):
            theirs = fuxictr.Dice(len(layer.alpha)).double().train(block.training)
            theirs.alpha = layer.alpha
            layer = theirs
        hidden_PK = layer(hidden_PK)
    outputs, weights = [], iter(hidden_PK.split(history.mask_BL.sum(1).tolist()))
    for x_LD, mask_L, weight_t1 in zip(x_BLD, history.mask_BL, weights, strict=True):
        weight_t1 = weight_t1.softmax(0) if block.softmax else weight_t1
        outputs.append((weight_t1 * x_LD[mask_L]).sum(0))
    return torch.stack(outputs)


def make(lengths: list[int] = LENGTHS, **setting: object) -> tuple[DINBlock, History, Tensor]:
    return with_inputs(lambda: DINBlock(D, **setting), lengths, L, D)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equals_the_equations(setting: dict, training: bool) -> None:
    block, history, target_BD = make(**setting)
    block.train(training)
    inputs = {"rows": history.rows_UD, "target": target_BD} | dict(block.named_parameters())
    if block.softmax:  # which cancels the bias of the last layer
        inputs.popitem()
    found_BH = block(history, target_BD)
    assert found_BH.shape == (len(LENGTHS), block.output_dim) and not found_BH[0].any()
    assert_same(found_BH, plain_din(block, history, target_BD), inputs)


def test_groups_of_similar_lengths_change_nothing() -> None:
    torch.manual_seed(1)
    lengths = torch.randint(0, L + 1, (200,)).tolist()
    block, history, target_BD = make(lengths, **SETTINGS[0])
    assert block.dense and not make(**SETTINGS[2])[0].dense
    found_BH = block(history, target_BD)
    torch.testing.assert_close(found_BH, block.forward(history, target_BD))


@pytest.mark.parametrize("length", [0, 1, 4])
def test_dice_learns_from_real_items_as_fuxictrs_does_from_all(length: int) -> None:
    """A batch of one item has no variance, and one without items has no mean: they teach nothing."""
    dice, theirs = Dice(3).double(), fuxictr.Dice(3).double()
    x_PK, real_P = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) < length
    out_PK = dice(x_PK, real_P)
    assert out_PK.isfinite().all()
    if length > 1:
        torch.testing.assert_close(out_PK[:length], theirs(x_PK[:length]))
    torch.testing.assert_close(dice.running_mean, theirs.bn.running_mean)
    torch.testing.assert_close(dice.running_var, theirs.bn.running_var)
    torch.testing.assert_close(dice.eval()(x_PK, real_P), theirs.eval()(x_PK))


def test_dropout_acts_in_training_only() -> None:
    block, history, target_BD = make(attention_dropout=0.5)
    assert sum(isinstance(layer, nn.Dropout) for layer in block.mlp) == 1
    assert not torch.equal(block(history, target_BD), block(history, target_BD))
    block.eval()
    assert torch.equal(block(history, target_BD), block(history, target_BD))


def test_bad_settings_are_explained() -> None:
    with pytest.raises(ValueError, match=r"attention_hidden_units is empty; write at least one"):
        DINBlock(D, attention_hidden_units=[])
