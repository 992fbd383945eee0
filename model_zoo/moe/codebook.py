"""The theme codebook of MoS: one code per expert, moved by a running average and no gradient.

It starts from k-means on the training data in theme space (paper 4.1).

Shape suffixes: E experts (codes), N items, C codebook width.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..ops.functional import unit_length
from ..ops.precision import all_digits

MAX_VECTORS = 50_000  # k-means with a few clusters is stable with far fewer vectors
MAX_PER_BATCH = 5_000  # so that the vectors come from many batches


class Codebook(nn.Module):
    """The theme vectors W (paper 4.1): eq. 3 compares items with them, and eq. 4 moves them.

    ``observe`` adds up the items of a forward pass in training. ``step`` is called after each
    optimiser step. It applies eq. 4 to all items observed since the last step. So routing always
    uses the codes from before the step, and gradient accumulation changes nothing.

    Args:
        num_codes: E, one per expert.
        dim: C, width of a code.
        decay: gamma of eq. 4.
    """

    codes_EC: Tensor
    sum_EC: Tensor
    count_E: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"codebook_decay={decay}: write 0 to 1, such as the paper's 0.999")
        self.decay = decay
        self.register_buffer("codes_EC", torch.randn(num_codes, dim))
        self.register_buffer("sum_EC", torch.zeros(num_codes, dim), persistent=False)
        self.register_buffer("count_E", torch.zeros(num_codes), persistent=False)

    def init_weights(self) -> None:
        """Start from random unit vectors, which k-means may replace later; FuxiCTR calls this."""
        with torch.no_grad():
            self.load(unit_length(torch.randn_like(self.codes_EC)))

    def similarity(self, h: Tensor) -> Tensor:
        """The cosine of ``h (..., C)`` with every code, ``(..., E)`` (eq. 3); 0 where h is 0."""
        return self.scores(unit_length(h))

    def scores(self, h: Tensor) -> Tensor:
        """The cosines times the length of ``h``: they order the codes alike and cost less."""
        with all_digits(h):
            return h @ unit_length(self.codes_EC).T

    @torch.no_grad()
    def observe(self, h_NC: Tensor, weight_NE: Tensor) -> None:
        """Add items to the sums of eq. 4; ``weight_NE`` says how often expert e got item n."""
        with all_digits(h_NC):
            self.sum_EC += weight_NE.T @ h_NC
        self.count_E += weight_NE.sum(0)

    @torch.no_grad()
    def step(self) -> None:
        """Move the codes by eq. 4; a code without items does not move, since its mean is 0 / 0."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sum_EC)  # before the division, so that the means are of all ranks
            dist.all_reduce(self.count_E)
        used_E1 = (self.count_E > 0)[:, None]
        mean_EC = self.sum_EC / self.count_E.clamp(min=1)[:, None]
        moved_EC = self.decay * self.codes_EC + (1 - self.decay) * mean_EC
        self.codes_EC.copy_(torch.where(used_E1, moved_EC, self.codes_EC))
        self.forget()

    def load(self, codes_EC: Tensor) -> None:
        """Replace the codes, as after k-means, and forget what was observed."""
        self.codes_EC.copy_(codes_EC)
        self.forget()

    def forget(self) -> None:
        """Drop what was observed since the last step."""
        self.sum_EC.zero_()
        self.count_E.zero_()


def collect(batches: Iterable[Tensor]) -> Tensor:
    """Collect vectors ``(N, C)`` from the first batches, evenly spaced within each batch."""
    kept: list[Tensor] = []
    for h_NC in batches:
        evenly = torch.linspace(0, max(0, len(h_NC) - 1), min(len(h_NC), MAX_PER_BATCH)).long()
        kept.append(h_NC[evenly].cpu())
        if sum(map(len, kept)) >= MAX_VECTORS:
            break
    return torch.cat(kept)[:MAX_VECTORS]


def kmeans_centres(h_NC: Tensor, num_codes: int, restarts: int, seed: int) -> Tensor | None:
    """The centres ``(E, C)`` of E clusters; None if there are fewer than E distinct vectors.

    Args:
        h_NC: the vectors.
        num_codes: E.
        restarts: how many starts of k-means++ are tried; the one with the least inertia is kept.
        seed: seed of the starts.
    """
    if len(h_NC.unique(dim=0)) < num_codes:
        return None
    from sklearn.cluster import KMeans  # imported here, since most runs do not need it

    kmeans = KMeans(num_codes, n_init=restarts, random_state=seed)
    return torch.from_numpy(kmeans.fit(h_NC.double().numpy()).cluster_centers_)
