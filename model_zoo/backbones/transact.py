"""TransAct: a transformer over (item, target) pairs (Xia et al., KDD 2023).

Shape suffixes: B samples, L history length, R positions read, D item width, W = 2 * D.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..heads import DCNv2Head
from ..history.history import History
from ..layers.block import SequenceBlock
from ..layers.transformer import EncoderLayer, PairEncoderLayer
from ..ops.functional import check_sizes
from ..sequence_model import SequenceModel


class TransActBlock(SequenceBlock):
    """The block of TransAct: an encoder over ``[item, target]`` pairs, read at the newest pairs.

    A maximum over all positions may be appended. The block follows LongCTR, and so has no positions and
    no time window. With event features, an item's half of a pair is ``x + sum_e v_e``, with e the
    buckets of the event. If a history is shorter than ``first_k_cols``, zeros take the place of the
    missing older outputs. Without history, the output is zero. Its width is ``(first_k_cols +
    concat_max_pool) * 2 * D``.

    Args:
        item_dim: D, width of an item.
        num_heads, transformer_layers, transformer_dropout, dim_feedforward: heads, layers, dropout
            rate and feed-forward width of the encoder.
        first_k_cols: how many of the newest positions are read.
        concat_max_pool: append the projected maximum over all positions. Without it, the last layer
            computes only the positions that are read.
        use_time_window_mask: must be False. LongCTR has this key, but its data lack the times.
        time_window_ms: is ignored, but LongCTR's configurations have this key.
        longctr_compat: without history, give the output for one padded position, as LongCTR does.
    """

    dense = True

    def __init__(
        self,
        item_dim: int,
        *,
        num_heads: int = 1,
        transformer_layers: int = 1,
        transformer_dropout: float = 0.0,
        dim_feedforward: int = 512,
        first_k_cols: int = 1,
        concat_max_pool: bool = True,
        use_time_window_mask: bool = False,
        time_window_ms: int = 86_400_000,
        longctr_compat: bool = False,
    ) -> None:
        super().__init__()
        if use_time_window_mask:
            raise ValueError("use_time_window_mask=True: the data have no times; write False")
        check_sizes(first_k_cols=first_k_cols, transformer_layers=transformer_layers)
        width = 2 * item_dim
        rates = (transformer_dropout,) * 3
        self.layers = nn.ModuleList(
            layer(width, num_heads, dim_feedforward, *rates)
            for layer in [PairEncoderLayer] + (transformer_layers - 1) * [EncoderLayer]
        )
        self.out_linear = nn.Linear(width, width) if concat_max_pool else None
        self.first_k_cols = first_k_cols
        self.longctr_compat = longctr_compat
        self.output_dim = (first_k_cols + concat_max_pool) * width

    def read_events(self, sizes: list[int]) -> None:
        cast(PairEncoderLayer, self.layers[0]).read_events(sizes)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        mask_BL = history.mask_BL
        empty_B1 = ~mask_BL.any(1, keepdim=True)
        # Attention needs a key in every row. An empty history gets its newest padded column.
        mask_BL = torch.cat([mask_BL[:, :-1], mask_BL[:, -1:] | empty_B1], dim=1)
        first, *others = self.layers
        read = [None] * len(others) + [self.first_k_cols if self.out_linear is None else None]
        x_BRW = first(history, target_BD, mask_BL, read[0])
        for layer, last in zip(others, read[1:], strict=True):
            x_BRW = layer(x_BRW, mask_BL, last)
        padding_BR1 = ~mask_BL[:, -x_BRW.shape[1] :, None]
        newest_BKW = x_BRW.masked_fill(padding_BR1, 0.0)[:, -self.first_k_cols :]
        newest_BKW = F.pad(newest_BKW, (0, 0, self.first_k_cols - newest_BKW.shape[1], 0))
        features = [newest_BKW.flatten(1)]
        if self.out_linear is not None:
            features.append(self.out_linear(x_BRW.masked_fill(padding_BR1, -1e9).amax(1)))
        out_BH = torch.cat(features, dim=-1)
        return out_BH if self.longctr_compat else out_BH.masked_fill(empty_B1, 0.0)

    def init_weights(self) -> None:
        """Initialise attention as torch does, and so LongCTR's model too; FuxiCTR calls this."""
        for layer in cast(Iterable[EncoderLayer], self.layers):
            for linear in (layer.W_q, layer.W_k, layer.W_v):
                # torch keeps the three as one matrix, whose Xavier bound this is.
                bound = (6 / (4 * linear.in_features)) ** 0.5
                nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.kaiming_uniform_(layer.W_o.weight, a=5**0.5)

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, weight in weights.items():
            for old, new in LONGCTR_NAMES.items():
                name = name.replace(old, new)
            if "in_proj" in name:
                for part, piece in zip("qkv", weight.chunk(3), strict=True):
                    if not name.endswith("bias") or part != "k":  # a key's bias changes nothing
                        renamed[name.replace("self_attn.in_proj_", f"W_{part}.")] = piece
            else:
                renamed[name] = weight
        return renamed


LONGCTR_NAMES = {
    "transformer_encoders.transformer_encoder.": "",
    "transformer_encoders.": "",
    "self_attn.out_proj.": "W_o.",
    "linear1.": "expand.",
    "linear2.": "contract.",
    "norm1.": "attention_norm.",
    "norm2.": "output_norm.",
}


class TransAct(SequenceModel):
    """TransAct without experts."""

    block = TransActBlock
    head = DCNv2Head
