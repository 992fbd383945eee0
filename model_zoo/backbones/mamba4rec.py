"""Mamba4Rec: a selective state space model over a history (Liu et al., 2024).

Shape suffixes: B samples, L history length, R positions read, D item width, W width inside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History, Segments
from ..layers.block import SequenceBlock
from ..layers.events import EventInput
from ..layers.mamba import Mamba, newest
from ..ops.dropout import Dropout
from ..ops.functional import check_sizes
from ..ops.packed_scan import can_fuse
from ..sequence_model import SequenceModel

NORM_EPS = 1e-12


class Mamba4RecBlock(SequenceBlock):
    """The block of Mamba4Rec: Mamba layers over the history, whose newest state h is read.

    The original scores an item by its inner product with h. Here the head gets ``[h, h * target]``,
    of width 2 * W. Without history, both halves are zero. The last layer computes only what h
    needs. With event features, the input of a position is ``LayerNorm(project(x) + sum_e v_e)``.

    Args:
        item_dim: D, width of an item.
        hidden_size: W, the width to which items and target are projected. By default they are not
            projected, and W is D.
        num_layers: number of Mamba layers. A single layer has no residual around its mixer, as in
            the original.
        dropout: rate of all dropouts.
        d_state, d_conv, expand, dt_init: see ``Mamba``.
    """

    dense = True

    def __init__(
        self,
        item_dim: int,
        *,
        hidden_size: int | None = None,
        num_layers: int = 1,
        dropout: float = 0.2,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: str = "mamba4rec",
    ) -> None:
        super().__init__()
        check_sizes(num_layers=num_layers)
        width = hidden_size or item_dim
        self.project = nn.Linear(item_dim, width, bias=False) if hidden_size else nn.Identity()
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        mamba = (width, d_state, d_conv, expand, dt_init)
        self.layers = nn.ModuleList(
            MambaLayer(Mamba(*mamba), width, dropout, residual=num_layers > 1)
            for _ in range(num_layers)
        )
        self.output_dim = 2 * width
        self.events: EventInput | None = None

    def read_events(self, sizes: list[int]) -> None:
        self.events = EventInput(self.output_dim // 2, sizes)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        has_history_B1 = history.mask_BL[:, -1:]
        history, real = self._without_padding(history)
        if not len(history):
            return target_BD.new_zeros(len(target_BD), self.output_dim)
        x_BLW = history.project(self.project)
        if self.events is not None:
            x_BLW = x_BLW + self.events(history)
        x_BLW = self.norm(self.dropout(x_BLW))
        for layer in self.layers[:-1]:
            x_BLW = layer(x_BLW, real)
        h_BW = self.layers[-1](x_BLW, real, last=True)[:, 0]
        h_BW = h_BW.masked_fill(~has_history_B1, 0.0)
        met_BW = h_BW * self.project(target_BD)
        return torch.cat([h_BW.expand_as(met_BW), met_BW], dim=-1)

    def _without_padding(self, history: History) -> tuple[History, Tensor | Segments]:
        """The history, packed if packing pays, and its mask or ``Segments``.

        Packing pays if the kernels for packed histories can run and only newest states are needed.
        It pays even if ``mamba_ssm`` is installed, because its kernels compute all states.
        """
        if torch.compiler.is_compiling() or len(self.layers) > 1:
            return history, history.mask_BL  # a compiler must not trace what can_fuse tries
        if not can_fuse(history.mask_BL.device):
            return history, history.mask_BL
        return history.packed()


class MambaLayer(nn.Module):
    """A Mamba mixer and a feed-forward network, each followed by dropout and LayerNorm.

    Args:
        mamba: the mixer.
        width: W.
        dropout: dropout rate.
        residual: add the mixer's input to its output. The feed-forward network always does so.
    """

    def __init__(self, mamba: Mamba, width: int, dropout: float, residual: bool) -> None:
        super().__init__()
        self.mamba = mamba
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.w_1 = nn.Linear(width, 4 * width)
        self.w_2 = nn.Linear(4 * width, width)
        self.ffn_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = Dropout(dropout)
        self.residual = residual

    def init_weights(self) -> None:
        """Initialise the linear layers as the official code does; FuxiCTR calls this."""
        for linear in (self.w_1, self.w_2):
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, x_BLW: Tensor, real: Tensor | Segments, last: bool = False) -> Tensor:
        """The layer's output ``(B, R, W)`` at all positions, or with ``last`` at the newest only.

        ``real`` is as in ``Mamba.forward``.
        """
        h_BRW = self.dropout(self.mamba(x_BLW, real, last))
        if self.residual:
            h_BRW = h_BRW + (newest(x_BLW, real) if last else x_BLW)
        h_BRW = self.norm(h_BRW)
        hidden = self.dropout(F.gelu(self.w_1(h_BRW)))
        return self.ffn_norm(self.dropout(self.w_2(hidden)) + h_BRW)


class Mamba4Rec(SequenceModel):
    """Mamba4Rec without experts."""

    block = Mamba4RecBlock
