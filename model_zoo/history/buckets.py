"""Biases and sums over the buckets of events, which are columns ``(B, L)`` of one shared numbering.

On a CPU they are gathered and scattered. On a GPU the gradients of these would add in any order, so
there they are products with ones at the buckets.

Shape suffixes: B samples, L history length, H queries, N buckets of all columns.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate

import torch
from torch import Tensor


def one_numbering(sizes: Mapping[str, int], given: Mapping[str, Tensor]) -> list[Tensor]:
    """The columns of some features, int64, whose buckets all have numbers of their own.

    Args:
        sizes: the features, and how many buckets each has.
        given: the columns of a batch, each numbered from 0.

    Raises:
        ValueError: the batch lacks a feature.
    """
    if missing := [name for name in sizes if name not in given]:
        reason = "leave it out, or use this project's loader"
        raise ValueError(f"event_cols: the batch has no {missing[0]!r}; {reason}")
    first = accumulate(sizes.values(), initial=0)
    return [given[name].long() + start for name, start in zip(sizes, first, strict=False)]


def bucket_scores(bias_BHN: Tensor, events: Iterable[Tensor], gather: bool) -> Tensor:
    """The sum of the biases of each position's buckets, ``(B, H, L)``."""
    if not gather:
        return bias_BHN @ ones(bias_BHN, events).mT
    heads = (-1, bias_BHN.shape[1], -1)
    first, *others = (bias_BHN.gather(2, column[:, None].expand(heads)) for column in events)
    return sum(others, start=first)


def bucket_sums(
    weights_BHL: Tensor, events: Iterable[Tensor], buckets: int, gather: bool
) -> Tensor:
    """The sum of the weights in each bucket, ``(B, H, N)``."""
    sums_BHN = weights_BHL.new_zeros(*weights_BHL.shape[:2], buckets)
    if not gather:
        return weights_BHL @ ones(sums_BHN, events)
    for column in events:
        sums_BHN.scatter_add_(2, column[:, None].expand_as(weights_BHL), weights_BHL)
    return sums_BHN


def ones(like_BHN: Tensor, events: Iterable[Tensor]) -> Tensor:
    """Ones at the buckets of each position, ``(B, L, N)``, and zeros elsewhere."""
    column_BLE = torch.stack(list(events), dim=-1)
    ones_BLN = like_BHN.new_zeros(*column_BLE.shape[:2], like_BHN.shape[-1])
    return ones_BLN.scatter_(2, column_BLE, 1.0)
