"""DIN: a weight for each item, from a perceptron over item and target (Zhou et al., KDD 2018).

Shape suffixes: B samples, L history length, P = B * L positions, D item width, K width of a hidden
layer.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from fuxictr.pytorch.torch_utils import get_activation
from torch import Tensor, nn

from ..history.history import History
from ..history.rows import gather_rows
from ..layers.batch_norm import batch_moments
from ..layers.block import SequenceBlock
from ..layers.events import EventBias
from ..ops.dropout import Dropout
from ..ops.functional import masked_softmax
from ..ops.precision import at_least_float32, unrounded
from ..sequence_model import SequenceModel

HIDDEN_UNITS = [64]  # LongCTR's default
MOMENTUM, EPSILON = 0.01, 1e-9  # of Dice, as in FuxiCTR


class DINBlock(SequenceBlock):
    """The block of DIN: the sum of all items x, each weighted by ``MLP([t, x, t - x, t * x])``.

    Here t is the target. The first layer is linear in the item, so for one target it is the matrix
    ``W_x - W_- + W_* diag(t)`` and the bias ``(W_t + W_-) t + b``. This needs a quarter of the
    multiplications, and no vector of a pair is written out. The results are the same up to rounding.

    The block follows LongCTR. In training, however, Dice takes its statistics over real items only.
    Without history, the output is zero. Its width is D. With event features, the weight of an item is
    ``MLP(...) + sum_e b_e``, and it weights ``x + sum_e v_e``, with e the buckets of the event.

    Args:
        item_dim: D, width of an item.
        attention_hidden_units: widths of the hidden layers of the perceptron.
        attention_hidden_activations: their activation; ``Dice`` and FuxiCTR's names are possible.
        attention_output_activation: the activation of a weight, or None.
        attention_dropout: dropout rate of the hidden layers.
        din_use_softmax: normalise the weights by a softmax over the history.
    """

    def __init__(
        self,
        item_dim: int,
        *,
        attention_hidden_units: list[int] = HIDDEN_UNITS,
        attention_hidden_activations: str = "Dice",
        attention_output_activation: str | None = None,
        attention_dropout: float = 0.0,
        din_use_softmax: bool = False,
    ) -> None:
        super().__init__()
        if not attention_hidden_units:
            raise ValueError(
                "attention_hidden_units is empty; write at least one width, as in [64]"
            )
        name, layers = attention_hidden_activations, list[nn.Module]()
        for wide, units in pairwise([4 * item_dim, *attention_hidden_units]):
            dice = name.lower() == "dice"
            layers += [nn.Linear(wide, units), Dice(units) if dice else get_activation(name, units)]
            if attention_dropout:
                layers.append(Dropout(attention_dropout))
        layers.append(nn.Linear(attention_hidden_units[-1], 1))
        if attention_output_activation:
            layers.append(get_activation(attention_output_activation))
        self.mlp = nn.ModuleList(layers)
        self.softmax = din_use_softmax
        self.output_dim = item_dim
        self.events: EventBias | None = None
        # Dice needs all items at once, all other layers can take histories of similar lengths.
        self.dense = name.lower() != "dice"

    def read_events(self, sizes: list[int]) -> None:
        self.events = EventBias(self.output_dim, sizes)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        weight_BL = self._scores(history, target_BD)
        buckets = 0
        if self.events is not None:
            buckets = self.events.buckets
            weight_BL = weight_BL + self.events.biases(history)[..., 0]
        if self.softmax:
            weight_BL = masked_softmax(weight_BL, history.mask_BL)
        else:
            weight_BL = weight_BL.masked_fill(~history.mask_BL, 0.0)
        sum_B1D = history.weighted_sum(weight_BL[:, None], buckets)
        return (sum_B1D if self.events is None else self.events.fold(sum_B1D))[:, 0]

    def _scores(self, history: History, target_BD: Tensor) -> Tensor:
        """The perceptron's output for each item, ``(B, L)``; at padded positions it is arbitrary."""
        first = cast(nn.Linear, self.mlp[0])
        of_target, of_item, of_difference, of_product = first.weight.T.chunk(4)
        with unrounded(target_BD):
            # As D outer products, since their gradients are then products of matrices too.
            matrix_DBK = torch.baddbmm(
                (of_item - of_difference)[:, None], target_BD.T[:, :, None], of_product[:, None]
            )
            bias_BK = F.linear(target_BD, (of_target + of_difference).T, first.bias)
        x_BLD = gather_rows(history.rows_UD, history.index_BL)
        x_BLD = x_BLD.expand(target_BD.shape[0], -1, -1)
        x_BLK = torch.baddbmm(bias_BK[:, None], x_BLD, matrix_DBK.transpose(0, 1))
        x_PK, real_P = x_BLK.flatten(0, 1), history.mask_BL.flatten()
        for layer in self.mlp[1:]:
            if isinstance(layer, Dice):
                x_PK = layer(x_PK, real_P)
            elif getattr(layer, "out_features", None) == 1:  # in float32, as logits are
                with unrounded(x_PK):
                    x_PK = layer(at_least_float32(x_PK))
            else:
                x_PK = layer(x_PK)
        return x_PK.view(x_BLK.shape[:2])

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, weight in weights.items():
            name = name.removeprefix("attention_layers.attention_layer.").replace(".bn.", ".")
            if not name.endswith("num_batches_tracked"):
                renamed[name] = weight
        return renamed


class Dice(nn.Module):
    """DIN's activation ``x (p + alpha (1 - p))``, with p the sigmoid of the normalised x.

    Args:
        width: K.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x_PK: Tensor, real_P: Tensor) -> Tensor:
        """In training, normalise by mean and variance over all real positions of the batch, of all ranks."""
        mean_K, variance_K = self.running_mean, self.running_var
        if self.training:
            mean_K, variance_K = batch_moments(self, x_PK, real_P, MOMENTUM)
        scale_K = (variance_K + EPSILON).rsqrt()
        p_PK = torch.addcmul(-mean_K * scale_K, x_PK, scale_K).sigmoid()
        return x_PK * torch.addcmul(self.alpha, p_PK, 1 - self.alpha)


class DIN(SequenceModel):
    """DIN without experts."""

    block = DINBlock
