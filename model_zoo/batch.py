"""The form of a batch, and the methods that a loader of batches must have.

Shape suffixes: B samples, L history length.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

Batch = tuple[dict[str, Tensor], Mapping[str, Tensor], Tensor]
"""A batch in LongCTR's form: ``(batch_dict, item_dict, mask_BL)``.

``batch_dict`` holds the columns of the samples, with B rows each. ``item_dict`` holds the features
of items, with ``B * (L + 1)`` rows each: the L items of a sample's history, then its target.
``mask_BL`` is non-zero at real items. Histories are padded on the left.
"""


class Loader(Protocol):
    """The batches of one split of the data; it can be iterated many times.

    Training sets ``epoch`` before each pass over its loader. A loader that shuffles should derive
    the order from ``epoch``. Then a resumed run sees the samples in the same order. Where several
    processes train, ``share`` is the rows of each batch that this one gets (see ``ranks.py``).
    """

    epoch: int
    share: slice

    def __len__(self) -> int:
        """The number of batches in one pass."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one pass."""
