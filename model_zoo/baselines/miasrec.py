"""MiaSRec: several intents in a history, compared with the target (Choi et al., SIGIR 2024).

Shape suffixes: B samples, L history length, T = L + 1 tokens (the history, then its mean),
U rows of the history, D item width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..layers.block import SequenceBlock
from ..layers.entmax import entmax
from ..layers.transformer import EncoderLayer
from ..ops.dropout import Dropout
from ..ops.functional import check_sizes, unit_length
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class MiasRecBlock(SequenceBlock):
    """The block of MiaSRec: an intent of each item and of their mean, compared with the target.

    It follows the released code. Token 0 is the mean item, and token i is the i-th newest item. The
    equations are:

    - ``x_i = e_i + position_i + frequency(times the item occurs)``. A LayerNorm and a bidirectional
      post-norm transformer turn it into ``c_i``.
    - The highway is ``o_i = g e_i + (1 - g) c_i`` with ``g = sigmoid(W [e_i; c_i] + b)``.
    - The importance is ``p = entmax(w o_i)`` over the tokens, which is zero for some of them.
    - The intents are ``z_i = o_i / |o_i|`` where ``p_i > 0``. Their cosines with the target v are
      ``s_i = cos(z_i, v)``.

    The output is ``[z*, zbar, r / tau]``, of width 2 * D + 1. Here z* is the intent nearest to the
    target, ``zbar = sum p_i z_i`` and ``r = beta max s_i + (1 - beta) sum p_i s_i``. Without
    history, the output is zero.

    The block departs from the released code in these ways:

    - The mean over the intents is weighted by p. The released code gives all the same weight, so
      that the importance gets no gradient.
    - ``entmax_alpha`` is 1.5. The released code leaves it unset, and then no weight is zero.
    - Removed and padded intents are left out of the maximum. In the released code they take part,
      with cosine 0.
    - The mean is a token of its own. In the released code it shares the identity of item 1.
    - Importance and keys have no bias, and importance has no term in o_0. These would be constants
      over the positions. They cancel in p and in the attention, and so could get no gradient.
    - The target has no dropout, since there is only one.

    Args:
        item_dim: D, width of an item and of all vectors in the block.
        num_heads: H, number of heads of the transformer; must divide D.
        num_layers: number of layers of the transformer.
        dim_feedforward: width inside its feed-forward parts.
        dropout: dropout rate of the items, the transformer's input and the parts of its layers.
        attention_dropout: dropout rate of the attention weights.
        entmax_alpha: sparsity of the importance; 1 is softmax, 2 is sparsemax.
        beta: weight of the best intent in r; the mean intent has the rest.
        tau: temperature of r.
        max_repeat: an item that occurs more often counts as occurring this often.
        max_len: length of the longest history. Only the newest ``max_len`` items are read.
    """

    dense = unites_equal = True

    def __init__(
        self,
        item_dim: int,
        *,
        num_heads: int = 1,
        num_layers: int = 2,
        dim_feedforward: int = 256,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        entmax_alpha: float = 1.5,
        beta: float = 0.9,
        tau: float = 0.07,
        max_repeat: int = 2,
        max_len: int = 50,
    ) -> None:
        super().__init__()
        check_sizes(num_layers=num_layers, dim_feedforward=dim_feedforward)
        check_sizes(max_repeat=max_repeat, max_len=max_len, entmax_alpha=entmax_alpha)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta={beta}: write 0 (only the mean intent) to 1 (only the best)")
        check_sizes(0, tau=tau)
        self.entmax_alpha, self.beta, self.tau = entmax_alpha, beta, tau
        self.max_repeat, self.max_len = max_repeat, max_len
        self.positions = nn.Embedding(max_len + 1, item_dim)
        self.frequencies = nn.Embedding(max_repeat, item_dim)  # row 0 is for one occurrence
        self.input_norm = nn.LayerNorm(item_dim, eps=1e-12)
        self.dropout = Dropout(dropout)
        layer = (item_dim, num_heads, dim_feedforward, dropout, attention_dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(*layer, activation=F.gelu, eps=1e-12) for _ in range(num_layers)
        )
        self.highway = nn.Linear(2 * item_dim, item_dim)
        self.importance = nn.Linear(item_dim, 1, bias=False)
        self.output_dim = 2 * item_dim + 1

    def init_weights(self) -> None:
        """Draw weights and tables from N(0, 0.02). FuxiCTR sets biases to zero, then calls this."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        history = history.last(self.max_len)
        mask_BL = history.mask_BL
        e_BLD = self.dropout(history.embed()).masked_fill(~mask_BL[..., None], 0)
        length_B1 = mask_BL.sum(1, keepdim=True)
        mean_BD = e_BLD.sum(1) / length_B1.clamp(min=1)
        # The mean comes last, so that column T - 1 - i is token i. It is never masked, even if the
        # history is empty. So no row of the attention is fully masked.
        e_BTD = torch.cat([e_BLD, mean_BD[:, None]], dim=1)
        mask_BT = F.pad(mask_BL, (0, 1), value=True)

        token_T = torch.arange(len(history), -1, -1, device=mask_BL.device)
        count_BT = F.pad(self._occurrences(history), (0, 1), value=1)
        frequency_BTD = self.frequencies(count_BT.clamp(1, self.max_repeat) - 1)
        x_BTD = self.dropout(self.input_norm(e_BTD + self.positions(token_T) + frequency_BTD))
        for layer in self.encoder:
            x_BTD = layer(x_BTD, mask_BT)

        g_BTD = self.highway(torch.cat([e_BTD, x_BTD], dim=-1)).sigmoid()
        o_BTD = x_BTD + g_BTD * (e_BTD - x_BTD)
        with unrounded(target_BD):
            p_BT = entmax(self.importance(o_BTD).squeeze(-1), mask_BT, self.entmax_alpha)
            out_BH = self._meet(unit_length(o_BTD), p_BT, target_BD)
        return out_BH.masked_fill(length_B1 == 0, 0)

    def _meet(self, z_BTD: Tensor, p_BT: Tensor, target_BD: Tensor) -> Tensor:
        """The output ``[z*, zbar, r / tau]``, from all intents, their importance and the target."""
        cosine_BT = (z_BTD @ unit_length(target_BD)[..., None]).squeeze(-1)
        best_B1, index_B1 = cosine_BT.masked_fill(p_BT == 0, -torch.inf).max(1, keepdim=True)
        # torch.compile would compile take_along_dim again for each length, but not gather.
        z_BTD = z_BTD.expand(target_BD.shape[0], -1, -1)
        best_BD = z_BTD.gather(1, index_B1[..., None].expand(-1, 1, z_BTD.shape[-1])).squeeze(1)
        mean_BD = (p_BT[:, None, :] @ z_BTD).squeeze(1)
        mean_B1 = (p_BT * cosine_BT).sum(1, keepdim=True)
        r_B1 = self.beta * best_B1 + (1 - self.beta) * mean_B1
        return torch.cat([best_BD, mean_BD, r_B1 / self.tau], dim=-1)

    def _occurrences(self, history: History) -> Tensor:
        """How often the item of each position occurs in its history, ``(B, L)``; 0 at padding."""
        item_BL = history.index_BL.masked_fill(~history.mask_BL, -1)
        sorted_BL = item_BL.sort(1).values
        first_BL = torch.searchsorted(sorted_BL, item_BL)
        return (torch.searchsorted(sorted_BL, item_BL, right=True) - first_BL) * history.mask_BL


class MiasRec(SequenceModel):
    """MiaSRec as a CTR model."""

    block = MiasRecBlock
