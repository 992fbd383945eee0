"""The start of the codebooks: k-means of the training data in theme space (paper 4.1).

Shape suffixes: N vectors, E experts (codes), C codebook width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MAX_VECTORS = 50_000  # k-means of a few clusters is stable long before
MAX_PER_BATCH = 5_000  # so that many batches have a say


def collect(batches: Iterable[Tensor]) -> Tensor:
    """Some vectors ``(N, C)`` of the first batches, drawn evenly from each batch."""
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
        restarts: how many starts of k-means++ are tried; the least inertia wins.
        seed: decides the starts.
    """
    if len(h_NC.unique(dim=0)) < num_codes:
        return None
    from sklearn.cluster import KMeans  # here, since most runs do without

    kmeans = KMeans(num_codes, n_init=restarts, random_state=seed)
    return torch.from_numpy(kmeans.fit(h_NC.double().numpy()).cluster_centers_)
