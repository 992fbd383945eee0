"""AttenMixer: multi-level queries of the newest items over a history (Zhang et al., WSDM 2023).

Shape suffixes: B samples, L history length, K levels, H heads, D item width, C = D / H head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..layers.block import SequenceBlock
from ..ops.dropout import Dropout
from ..ops.functional import check_heads, check_sizes, masked_softmax, unit_length
from ..ops.precision import at_least_float32
from ..sequence_model import SequenceModel

COSINE_SCALE = 16.0  # the released code scores an item by 16 cos(s, item)


class AttenMixerBlock(SequenceBlock):
    """The block of AttenMixer: the session vector ``s`` of a history, compared with the target.

    It follows the released code, which concatenates the newest items of a level. The paper pools
    them without order. The equations, for items e_1 to e_l from oldest to newest, are:

    - All items are L2-normalised. Level i reads the newest i items:
      ``q_i = Linear_i([e_l; ...; e_(l-i+1)])``, with zeros where the history is shorter. Each
      feature of the K queries is L2-normalised over the levels.
    - For each head and level, ``2 sigmoid(q k)`` goes through a softmax over the items. The Lp norm
      over the levels is doubled and goes through a second softmax.
    - ``a = LayerNorm(sum of weighted values)`` and ``s = Linear([a; e_l])``, L2-normalised.

    The output is ``[s, s * v, 16 cos(s, v)]`` for a target v, of width 2 * D + 1. The original
    ranks all items instead. The target is never a query. Without history, the output is zero.

    The released code mixes up positions and lets outputs depend on padding. Therefore the block
    departs from it in three ways. Padding is masked in both softmaxes, not only in the second. A
    head is a slice of the features, while the released code reshapes across positions. Levels count
    back from the newest item.

    For hundreds of items, both softmaxes are nearly flat, since their inputs are bounded. The model
    then sees little more than the mean of the history and its newest item.

    Args:
        item_dim: D, width of an item and of all vectors in the block.
        num_heads: H, number of heads; must divide D.
        last_k: K, number of levels.
        lp_pool: p of the norm over the levels. 1 gives their sum, a large value their maximum.
        dropout: dropout rate of the items.
        attention_dropout: dropout rate of the attention weights.
    """

    dense = True

    def __init__(
        self,
        item_dim: int,
        *,
        num_heads: int = 1,
        last_k: int = 7,
        lp_pool: float = 4.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_heads(item_dim, num_heads)
        if last_k < 2:
            raise ValueError(f"last_k={last_k}: norms over levels need several; write 2 or more")
        check_sizes(lp_pool=lp_pool)  # below 1 it would be the p of no norm
        self.num_heads = num_heads
        self.lp_pool = lp_pool
        self.level_queries = nn.ModuleList(
            nn.Linear(level * item_dim, item_dim) for level in range(1, last_k + 1)
        )
        self.W_q = nn.Linear(item_dim, item_dim)
        self.W_k = nn.Linear(item_dim, item_dim)
        self.W_v = nn.Linear(item_dim, item_dim)
        self.norm = nn.LayerNorm(item_dim, eps=1e-8)
        self.session = nn.Linear(2 * item_dim, item_dim)
        self.dropout = Dropout(dropout)
        self.attention_dropout = Dropout(attention_dropout)
        self.output_dim = 2 * item_dim + 1

    def init_weights(self) -> None:
        """Draw all parameters, even the LayerNorm's, from U(-1/sqrt(D), 1/sqrt(D)).

        The original does the same. FuxiCTR calls this.
        """
        bound = self.W_q.in_features**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        mask_BL = history.mask_BL
        # The original also normalises before the dropout. The result has the same direction.
        e_BLD = unit_length(self.dropout(history.embed()).masked_fill(~mask_BL[..., None], 0))
        weights_BHL = self._weights(e_BLD, mask_BL)
        a_BD = self.norm(self._values(weights_BHL, e_BLD))
        s_BD = unit_length(self.session(torch.cat([a_BD, e_BLD[:, -1]], dim=-1)))
        # Without history, s would come from the biases alone. The newest column is then padding.
        s_BD = s_BD.masked_fill(~mask_BL[:, -1:], 0)
        cosine_B1 = (s_BD * unit_length(target_BD)).sum(-1, keepdim=True)
        met_BD = s_BD * target_BD
        return torch.cat([s_BD.expand_as(met_BD), met_BD, COSINE_SCALE * cosine_B1], dim=-1)

    def _queries(self, e_BLD: Tensor) -> Tensor:
        """The query of each level, ``(B, K, D)``."""
        levels = len(self.level_queries)
        newest_BKD = F.pad(e_BLD[:, -levels:], (0, 0, levels, 0))[:, -levels:].flip(1)
        queries = [
            linear(newest_BKD[:, :level].flatten(1))
            for level, linear in enumerate(self.level_queries, start=1)
        ]
        return unit_length(torch.stack(queries, dim=1), dim=1)

    def _weights(self, e_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """The attention weights of each head, ``(B, H, L)``; zero at padding."""
        # As in layers/attention.py, items are not projected: q (W_k e + b) = (W_k^T q) e + q b.
        query_BKHC = self.W_q(self._queries(e_BLD)).unflatten(-1, (self.num_heads, -1))
        keys_HCD = self.W_k.weight.unflatten(0, (self.num_heads, -1))
        bias_HC = self.W_k.bias.unflatten(0, (self.num_heads, -1))
        carried_BHKD = torch.einsum("bkhc,hcd->bhkd", query_BKHC, keys_HCD)
        offset_BHK = torch.einsum("bkhc,hc->bhk", query_BKHC, bias_HC)
        scores_BHKL = (carried_BHKD.flatten(1, 2) @ e_BLD.mT).unflatten(1, offset_BHK.shape[1:])
        scores_BHKL = at_least_float32(scores_BHKL + offset_BHK[..., None])

        # The Lp norm is computed in logarithms, so that no power underflows and no root of zero is
        # taken.
        padding_B11L = ~mask_BL[:, None, None, :]
        bounded_BHKL = 2 * scores_BHKL.sigmoid()
        lowest = torch.finfo(bounded_BHKL.dtype).min
        log_alpha_BHKL = bounded_BHKL.masked_fill(padding_B11L, lowest).log_softmax(-1)
        log_alpha_BHKL = log_alpha_BHKL.masked_fill(padding_B11L, 0)
        pooled_BHL = ((self.lp_pool * log_alpha_BHKL).logsumexp(2) / self.lp_pool).exp()
        return self.attention_dropout(masked_softmax(2 * pooled_BHL, mask_BL[:, None, :]))

    def _values(self, weights_BHL: Tensor, e_BLD: Tensor) -> Tensor:
        """``sum_t w_t (W_v e_t + b)`` for each head, concatenated to ``(B, D)``."""
        values_HCD = self.W_v.weight.unflatten(0, (self.num_heads, -1))
        bias_HC = self.W_v.bias.unflatten(0, (self.num_heads, -1))
        mixed_BHC = torch.einsum("bhd,hcd->bhc", weights_BHL @ e_BLD, values_HCD)
        return (mixed_BHC + weights_BHL.sum(-1, keepdim=True) * bias_HC).flatten(1)


class AttenMixer(SequenceModel):
    """AttenMixer as a CTR model."""

    block = AttenMixerBlock
