"""The theme codebook of MoS: one code per expert, moved by a running average and no gradient.

It starts from k-means on the training data in theme space (paper 4.1).

Shape suffixes: E experts (codes), N items, C codebook width, Z = C + 1.
"""

from collections.abc import Iterable
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ranks
from ..ops.functional import check_sizes, unit_length
from ..ops.precision import all_digits

MAX_VECTORS = 50_000  # k-means with a few clusters is stable with far fewer vectors
MAX_PER_BATCH = 5_000  # so that the vectors come from many batches
TOLERANCE = 0.1  # a balanced cluster may have so much more than its share
ROUNDS = 30  # of balanced k-means


class Codebook(nn.Module):
    """The theme vectors W (paper 4.1): eq. 3 compares items with them, and eq. 4 moves them.

    ``observe`` adds up the items of a forward pass in training. ``step`` is called after each
    optimiser step. It applies eq. 4 to all items observed since the last step. So routing always
    uses the codes from before the step, and gradient accumulation changes nothing.

    Args:
        num_codes: E, one per expert.
        dim: C, width of a code.
        decay: gamma of eq. 4.
        revive_after: a code that got no item in so many steps is dead, and is put on an item of the
            fullest theme, the one that is least like this theme's code. Only the code that is
            longest without items is, so that two never get the same item. 0 revives none.
    """

    codes_EC: Tensor
    sum_EC: Tensor
    count_E: Tensor
    idle_E: Tensor
    farthest_EZ: Tensor

    def __init__(
        self, num_codes: int, dim: int, decay: float = 0.999, revive_after: int = 0
    ) -> None:
        super().__init__()
        check_sizes(revive_after=revive_after or 1)
        self.revive_after = revive_after
        if not 0 <= decay <= 1:
            raise ValueError(f"codebook_decay={decay}: write 0 to 1, such as the paper's 0.999")
        self.decay = decay
        self.register_buffer("codes_EC", torch.randn(num_codes, dim))
        self.register_buffer("sum_EC", torch.zeros(num_codes, dim), persistent=False)
        self.register_buffer("count_E", torch.zeros(num_codes), persistent=False)
        if revive_after:
            self.register_buffer("idle_E", torch.zeros(num_codes))  # steps without an item
            # The item of each theme that is farthest from its code, and in the last column its cosine.
            nothing_EZ = torch.full((num_codes, dim + 1), torch.inf)
            self.register_buffer("farthest_EZ", nothing_EZ, persistent=False)

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
        if self.revive_after and len(h_NC):
            cosine_E, item_E = self.similarity(h_NC).masked_fill(weight_NE == 0, torch.inf).min(0)
            found_EZ = torch.cat([h_NC[item_E], cosine_E[:, None]], dim=1)
            farther_E1 = found_EZ[:, -1:] < self.farthest_EZ[:, -1:]
            self.farthest_EZ.copy_(torch.where(farther_E1, found_EZ, self.farthest_EZ))

    @torch.no_grad()
    def step(self) -> None:
        """Move the codes by eq. 4; a code without items does not move, since its mean is 0 / 0."""
        # Before the division, so that the means are of all ranks.
        sum_EC, count_E = ranks.total(self.sum_EC), ranks.total(self.count_E)
        used_E1 = (count_E > 0)[:, None]
        mean_EC = sum_EC / count_E.clamp(min=1)[:, None]
        moved_EC = self.decay * self.codes_EC + (1 - self.decay) * mean_EC
        self.codes_EC.copy_(torch.where(used_E1, moved_EC, self.codes_EC))
        if self.revive_after:
            self._revive(count_E)
        self.forget()

    def _revive(self, count_E: Tensor) -> None:
        """Put the code that was longest without items on one, if it is due."""
        E, used_E = len(count_E), count_E > 0
        found_REZ = ranks.gathered(self.farthest_EZ).unflatten(0, (-1, E))  # R ranks
        least_E = found_REZ[..., -1].argmin(0)
        self.idle_E += used_E.any()  # a step without any item, as while experts rest, counts not
        self.idle_E.masked_fill_(used_E, 0)
        due_E = (self.idle_E == self.idle_E.max()) & (self.idle_E >= self.revive_after)
        due_E &= (due_E.cumsum(0) == 1) & used_E.any()  # the first of several
        fullest = count_E.argmax()
        item_C = found_REZ[least_E[fullest], fullest, :-1]
        self.codes_EC.copy_(torch.where(due_E[:, None], item_C, self.codes_EC))
        self.idle_E.masked_fill_(due_E, 0)

    def load(self, codes_EC: Tensor) -> None:
        """Replace the codes, as after k-means, and forget what was observed."""
        self.codes_EC.copy_(codes_EC)
        self.forget()

    def forget(self) -> None:
        """Drop what was observed since the last step."""
        self.sum_EC.zero_()
        self.count_E.zero_()
        if self.revive_after:
            self.farthest_EZ.fill_(torch.inf)


def collect(batches: Iterable[Tensor]) -> Tensor:
    """Collect vectors ``(N, C)`` from the first batches, evenly spaced within each batch."""
    kept: list[Tensor] = []
    for h_NC in batches:
        evenly = torch.linspace(0, max(0, len(h_NC) - 1), min(len(h_NC), MAX_PER_BATCH)).long()
        kept.append(h_NC[evenly].cpu())
        if sum(map(len, kept)) >= MAX_VECTORS:
            break
    return torch.cat(kept)[:MAX_VECTORS]


def kmeans_centres(
    h_NC: Tensor, num_codes: int, restarts: int, seed: int, balanced: bool = False
) -> Tensor | None:
    """The centres ``(E, C)`` of E clusters; None if there are fewer than E distinct vectors.

    Args:
        h_NC: the vectors.
        num_codes: E.
        restarts: how many starts of k-means++ are tried; the one with the least inertia is kept.
        seed: seed of the starts.
        balanced: go on until no cluster has more than its share of the vectors and ``TOLERANCE``.
    """
    if len(h_NC.unique(dim=0)) < num_codes:
        return None
    from sklearn.cluster import KMeans  # imported here, since most runs do not need it

    kmeans = KMeans(num_codes, n_init=restarts, random_state=seed)
    h_NC = h_NC.double()
    centre_EC = torch.from_numpy(kmeans.fit(h_NC.numpy()).cluster_centers_)
    return balance(h_NC, centre_EC) if balanced else centre_EC


def balance(h_NC: Tensor, centre_EC: Tensor) -> Tensor:
    """Lloyd's steps from these centres, with clusters of bounded size; the centres ``(E, C)``."""
    room = ceil((1 + TOLERANCE) * len(h_NC) / len(centre_EC))
    for _ in range(ROUNDS):
        label_N = bounded_clusters(torch.cdist(h_NC, centre_EC) ** 2, room)
        member_EN = F.one_hot(label_N, len(centre_EC)).mT.to(h_NC)
        size_E1 = member_EN.sum(1, keepdim=True)
        mean_EC = member_EN @ h_NC / size_E1.clamp(min=1)
        centre_EC = torch.where(size_E1 > 0, mean_EC, centre_EC)
    return centre_EC


def bounded_clusters(cost_NE: Tensor, room: int) -> Tensor:
    """The cheapest cluster of each vector; what loses least by it leaves a cluster without room.

    Args:
        cost_NE: the cost of each cluster; it is changed.
        room: the most vectors of a cluster, at least N / E.
    """
    label_N = cost_NE.argmin(1)
    while (size_E := label_N.bincount(minlength=cost_NE.shape[1])).max() > room:
        full = size_E.argmax()
        own = (label_N == full).nonzero()[:, 0]
        cost = cost_NE[own, full]
        cost_NE[:, full] = torch.inf  # nothing comes back
        lost = cost_NE[own].amin(1) - cost
        leaves = own[lost.argsort(stable=True)[: len(own) - room]]
        label_N[leaves] = cost_NE[leaves].argmin(1)
    return label_N
