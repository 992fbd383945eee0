"""The codebooks' start: k-means of the training data in theme space (paper 4.1, Initialization).

Shape suffixes: U distinct items, N vectors, C codebook width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..sequence_model import Batch, SequenceModel

MAX_VECTORS = 50_000  # per codebook: k-means of a few clusters is stable long before
MAX_PER_BATCH = 5_000  # so that many batches have a say


@torch.no_grad()
def load_kmeans_codes(model: SequenceModel, loader: Iterable[Batch], seed: int) -> None:
    """Set every codebook to the k-means centres of ``h(x)`` over what its branch routes.

    An item counts once in each batch that it occurs in, a window each time. Does nothing for
    mixtures without a codebook or with ``codebook_init: random``.
    """
    if not model.codebooks():
        return
    branches = model.branches
    for name, branch in branches.items():
        if not branch.router.trains:
            logging.info(
                f"{name} router: with router_topk 1, router_weight topk_softmax is the constant 1 and "
                "its MLP stays as it is; softmax_topk would train it"
            )
    if model.encoder.codebook_init != "kmeans":
        return
    from sklearn.cluster import KMeans  # here, for most runs need none

    if hasattr(loader, "epoch"):
        loader.epoch = 0
    model.eval()
    vectors: dict[str, list[torch.Tensor]] = {name: [] for name in branches}
    for batch in loader:
        history, _ = model.embed_items(batch)
        for name, branch in branches.items():
            h_NC = branch.projections(model.encoder.sequence(name, history))
            evenly = torch.linspace(0, max(0, len(h_NC) - 1), min(len(h_NC), MAX_PER_BATCH)).long()
            vectors[name].append(h_NC[evenly].cpu())
        if all(sum(map(len, v)) >= MAX_VECTORS for v in vectors.values()):
            break
    for name, branch in branches.items():
        h_NC = torch.cat(vectors[name])[:MAX_VECTORS]
        codes_EC = branch.router.codebook.codes_EC
        if len(h_NC.unique(dim=0)) < len(codes_EC):
            logging.warning(f"{name} codebook: too few distinct vectors for k-means; kept random")
            continue
        kmeans = KMeans(len(codes_EC), n_init=model.encoder.codebook_restarts, random_state=seed)
        centres_EC = kmeans.fit(h_NC.double().numpy()).cluster_centers_
        branch.router.codebook.load(torch.from_numpy(centres_EC).to(codes_EC))
        logging.info(f"{name} codebook: k-means of {len(h_NC)} vectors")
