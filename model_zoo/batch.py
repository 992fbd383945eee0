"""A batch of samples, and what training and evaluation ask of a loader of batches.

Shape suffixes: B samples, L history length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

Batch = tuple[dict[str, Tensor], Mapping[str, Tensor], Tensor]
"""A batch in LongCTR's form: ``(batch_dict, item_dict, mask_BL)``.

``batch_dict`` holds the columns of the samples, B rows each. ``item_dict`` holds the features of
items, ``B * (L + 1)`` rows each: the history of a sample, then its target. ``mask_BL`` is non-zero
at real items; histories are left padded.
"""


class Loader(Protocol):
    """The batches of one split, which can be passed over again and again.

    Training sets ``epoch`` before each pass over its loader. A loader that shuffles should derive
    the order from it, so that a resumed run sees the samples in the same order.
    """

    epoch: int

    def __len__(self) -> int:
        """The number of batches of a pass."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of a pass."""
