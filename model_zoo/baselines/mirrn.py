"""MIRRN: attention over interests that are retrieved by hash and filtered (Xu et al., KDD 2025).

Shape suffixes: B samples, L history length, K retrieved items, D item width, T hash bits.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..layers.simhash import RetrievalBlock, agreement, codes_of
from ..ops.dropout import Dropout
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel

RECENT = 16  # how many newest items the second query averages
POSITION_SCALE = 0.02
FILTER_DROPOUT = 0.1
MATRIX_MOST = 64  # longer sequences use an FFT, since the matrix product's cost is quadratic


class MIRRNBlock(RetrievalBlock):
    """The block of MIRRN: attention over the recent items, and attention over three interests.

    Three queries retrieve items: the target, the mean of the newest 16 items, and the mean of all.
    Each query retrieves the ``topk`` items with the nearest hashes, the newest first among equally
    near ones. The retrieved items are filtered in the frequency domain and averaged to an interest.
    The output is ``[short, long]``, of width 2 * D.

    The block follows LongCTR with two corrections. Padding is never retrieved, filtered or averaged
    with real items. Hashes do not change in evaluation.

    Args:
        item_dim: D, width of an item.
        max_len: length of the longest history. Only the newest ``max_len`` items are read.
        retrieval: hyper-parameters; see ``RetrievalBlock``. ``longctr_compat`` also retrieves
            padding, and orders equally near items as LongCTR does.
    """

    def __init__(self, item_dim: int, *, max_len: int = 1000, **retrieval: Any) -> None:
        super().__init__(item_dim, **retrieval)
        self.pos = nn.Embedding(max_len + 1, item_dim)
        self.filters = nn.ModuleList(FrequencyFilter(item_dim, self.topk) for _ in range(3))
        self.max_len = max_len

    def read_events(self, sizes: list[int]) -> None:
        """Nothing: a baseline ignores features of events."""

    def init_weights(self) -> None:
        """Draw random hyperplanes and positions; FuxiCTR calls this."""
        super().init_weights()
        nn.init.normal_(self.pos.weight)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        history = history.last(self.max_len)
        short_BD = self.short_attention(history, target_BD)
        with unrounded(target_BD):
            with torch.no_grad():
                queries = (target_BD.detach(), mean(history.last(RECENT)), mean(history))
                indices = self._retrieve(history, queries)
            means = [
                self._refine(history, index_BK, frequency_filter)
                for index_BK, frequency_filter in zip(indices, self.filters, strict=True)
            ]
        interests = History.from_vectors(torch.stack(torch.broadcast_tensors(*means), dim=1))
        long_BD = self.long_attention(interests, target_BD)
        return torch.cat([short_BD, long_BD], dim=-1)

    def _retrieve(self, history: History, queries: tuple[Tensor, ...]) -> list[Tensor]:
        """For each query, the columns of the nearest items ``(B, K)``, from oldest to newest."""
        rotations_DT, codes, found = self.rotations_DT, None, []
        for query_BD in queries:
            if self.draws:
                rotations_DT = torch.randn_like(rotations_DT)
            if self.draws or codes is None:
                codes = codes_of(history, rotations_DT)
            agree_BL = agreement(codes, rotations_DT, query_BD)
            found.append(self.nearest(agree_BL, history.mask_BL).sort(dim=1).values)
        return found

    def _refine(self, history: History, index_BK: Tensor, frequency_filter: nn.Module) -> Tensor:
        """The mean of the filtered items, ``(B, D)``; zero if no item was retrieved."""
        found = history.take(index_BK)
        mask_BK = found.mask_BL
        if self.longctr_compat:
            mask_BK = torch.ones_like(mask_BK)
        x_BKD = found.embed()
        x_BKD = x_BKD + F.embedding(len(history) - index_BK, POSITION_SCALE * self.pos.weight)
        return (shares(mask_BK, x_BKD.dtype)[:, None] @ frequency_filter(x_BKD, mask_BK))[:, 0]

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for name, weight in weights.items():
            if name.endswith("complex_weight"):  # LongCTR uses only the diagonals of its blocks
                weight = weight.diagonal(dim1=1, dim2=2).movedim(1, 2).reshape(-1, 2)
            name = name.replace("MHFT_block.", "filters.").replace("LayerNorm.", "norm.")
            name = name.replace("complex_weight", "weight_D2")
            renamed[name.replace("random_rotations", "rotations_DT")] = weight
        return renamed


class FrequencyFilter(nn.Module):
    """A filter in the frequency domain, followed by dropout, a residual sum and LayerNorm.

    Each channel has one complex weight ``a + b i``, the same at every frequency. The original has
    square blocks of weights, but uses only their diagonals. The filter is ``a x + b M x``, where
    the matrix M multiplies every frequency by ``i``. So short sequences need one matrix product and
    no Fourier transform.

    Args:
        dim: D.
        longest: length of the longest sequence. Up to ``MATRIX_MOST``, M is stored.
    """

    turn_NKK: Tensor

    def __init__(self, dim: int, longest: int) -> None:
        super().__init__()
        self.weight_D2 = nn.Parameter(0.02 * torch.randn(dim, 2))
        self.dropout = Dropout(FILTER_DROPOUT)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.longest = longest
        self.register_buffer("turn_NKK", quarter_turns(min(longest, MATRIX_MOST)), persistent=False)

    def for_serving(self) -> None:
        """Store M for all lengths, since a program for serving cannot choose by the data."""
        self.turn_NKK = quarter_turns(self.longest).to(self.turn_NKK.device)

    def init_weights(self) -> None:
        nn.init.normal_(self.weight_D2, std=0.02)

    def forward(self, x_BKD: Tensor, mask_BK: Tensor) -> Tensor:
        """Filter the real items, which are right-aligned; each sample keeps its own length."""
        K, length_B = x_BKD.shape[1], mask_BK.sum(1)
        if len(self.turn_NKK) > K:
            turn_BKK = self.turn_NKK[:, -K:, -K:].to(x_BKD.dtype).index_select(0, length_B)
            real_D, imaginary_D = self.weight_D2.unbind(1)
            # Padding is filtered too, but its result is never read.
            filtered_BKD = torch.addcmul(x_BKD * real_D, turn_BKK @ x_BKD, imaginary_D)
        else:
            filtered_BKD = torch.zeros_like(x_BKD)
            weight_D = torch.view_as_complex(self.weight_D2)
            for length in length_B[length_B > 0].unique().tolist():  # usually only K
                own = length_B == length
                spectrum = torch.fft.rfft(x_BKD[own, -length:], dim=1, norm="ortho") * weight_D
                filtered = torch.fft.irfft(spectrum, n=length, dim=1, norm="ortho")
                filtered_BKD[own, -length:] = filtered
        return self.norm(self.dropout(filtered_BKD) + x_BKD)


def quarter_turns(longest: int) -> Tensor:
    """The matrices that multiply every frequency of a sequence by ``i``, one for each length.

    Their shape is ``(longest + 1, longest, longest)``, indexed by the length. Each acts on that
    many right-aligned positions and is zero elsewhere.
    """
    turn_NKK = torch.zeros(longest + 1, longest, longest, dtype=torch.float64)
    for length in range(1, longest + 1):
        spectrum = 1j * torch.fft.rfft(torch.eye(length, dtype=torch.float64), dim=0)
        turn_NKK[length, -length:, -length:] = torch.fft.irfft(spectrum, n=length, dim=0)
    return turn_NKK


def mean(history: History) -> Tensor:
    """The mean of the real items, ``(B, D)``; zero for an empty history."""
    dtype = history.rows_UD.dtype
    return history.weighted_sum(shares(history.mask_BL, dtype)[:, None])[:, 0]


def shares(mask_BK: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of each position in a mean over the real ones, ``(B, K)``."""
    return mask_BK.to(dtype) / mask_BK.sum(1, keepdim=True).clamp(min=1)


class MIRRN(SequenceModel):
    """MIRRN as a CTR model."""

    block = MIRRNBlock
