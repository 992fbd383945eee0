"""Classifier heads: a head turns all features of a sample into its logit.

Parameters have the names that LongCTR gives them, so that its checkpoints load.

Shape suffixes: B samples, F width of all features.
"""

import torch
from fuxictr.pytorch.layers import CrossNetV2, MLP_Block
from torch import Tensor, nn

from .ops.precision import at_least_float32, unrounded

MLP_UNITS, DEEP_UNITS = [512, 128, 64], [256, 128, 64]  # LongCTR's defaults
NO_UNITS: list[int] = []


class MLPHead(nn.Module):
    """A multi-layer perceptron with one output.

    Args:
        input_dim: F.
        aux_dim: width of the input of a second perceptron, for an auxiliary logit; 0 if there is none.
        dnn_hidden_units, dnn_activations, net_dropout, batch_norm: have their meaning in FuxiCTR.
    """

    def __init__(
        self,
        input_dim: int,
        aux_dim: int = 0,
        *,
        dnn_hidden_units: list[int] = MLP_UNITS,
        dnn_activations: str = "ReLU",
        net_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        inner = dict(dropout_rates=net_dropout, batch_norm=batch_norm)
        units = list(dnn_hidden_units)
        if aux_dim:
            self.dnn_aux = MLP_Block(aux_dim, units, dnn_activations, output_dim=1, **inner)
        self.dnn = MLP_Block(input_dim, units, dnn_activations, output_dim=1, **inner)

    def forward(self, features_BF: Tensor) -> Tensor:
        """The logit ``(B, 1)``."""
        return to_logit(self.dnn, features_BF)

    def auxiliary(self, features_BF: Tensor) -> Tensor:
        """The auxiliary logit ``(B, 1)``."""
        return to_logit(self.dnn_aux, features_BF)


class DCNv2Head(nn.Module):
    """TransAct's head: a cross network beside a perceptron (DCN V2), then a perceptron on both.

    Args:
        input_dim: F.
        dcn_cross_layers: number of layers of the cross network.
        dcn_hidden_units: widths of the layers of the perceptron beside it.
        mlp_hidden_units: widths of the hidden layers of the last perceptron.
        hidden_activations, net_dropout, batch_norm: have their meaning in FuxiCTR.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        dcn_cross_layers: int = 3,
        dcn_hidden_units: list[int] = DEEP_UNITS,
        mlp_hidden_units: list[int] = NO_UNITS,
        hidden_activations: str = "ReLU",
        net_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if not dcn_hidden_units:
            raise ValueError("dcn_hidden_units is empty; write at least one width, as in [128, 64]")
        self.crossnet = CrossNetV2(input_dim, dcn_cross_layers)
        inner = dict(dropout_rates=net_dropout, batch_norm=batch_norm)
        deep, last = list(dcn_hidden_units), list(mlp_hidden_units)
        self.parallel_dnn = MLP_Block(input_dim, deep, hidden_activations, **inner)
        self.mlp = MLP_Block(input_dim + deep[-1], last, hidden_activations, output_dim=1)

    def forward(self, features_BF: Tensor) -> Tensor:
        """The logit ``(B, 1)``."""
        crossed = self.crossnet(features_BF)
        return to_logit(self.mlp, torch.cat([crossed, self.parallel_dnn(features_BF)], dim=-1))


def to_logit(block: MLP_Block, x_BF: Tensor) -> Tensor:
    """Compute ``block(x_BF)``, with the last layer in float32 even under bf16.

    A logit of 8 significant bits would often tie with others.
    """
    *layers, last = block.mlp
    for layer in layers:
        x_BF = layer(x_BF)
    with unrounded(x_BF):
        return last(at_least_float32(x_BF))
