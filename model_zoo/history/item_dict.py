"""LongCTR's ``item_dict``, whose features are gathered only when they are read.

Shape suffixes: B samples, L history length, N items of the table, U rows (distinct items of a batch),
P pieces of an item.
"""

from collections.abc import Iterator, Mapping, MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.compiled import on_eager_cpu

BASE = 0x5851F42D4C957F2D  # odd; Knuth's multiplier, whose powers modulo 2^64 look random


class ItemDict(MutableMapping):
    """A mapping from item features to ``B * (L + 1)`` rows: a sample's history, then its target.

    A LongCTR model can use it like the dictionary of LongCTR's loader, and can also assign to it. A
    model that looks items up by index reads ``index`` and ``tables``, and gathers far less.

    Args:
        tables: one tensor per item feature, ``(N, ...)``, for all items; row 0 is padding.
        index: item of each position, ``(B, L + 1)``, int64; the target is the last column.
        matches: what target and history share, ``(B, M)``, float32 (see ``matches.py``); None where
            the loader has not counted it.
        events: for each event feature, the bucket of each event of the history, ``(B, L)``, integers.
    """

    def __init__(
        self,
        tables: dict[str, Tensor],
        index: Tensor,
        matches: Tensor | None = None,
        events: dict[str, Tensor] | None = None,
    ) -> None:
        self.tables = tables
        self.index = index
        self.matches = matches
        self.events = events or {}
        self._own: dict[str, Tensor] = {}

    def __getitem__(self, feature: str) -> Tensor:
        if feature in self._own:
            return self._own[feature]
        return self.tables[feature].index_select(0, self.index.flatten())

    def __setitem__(self, feature: str, rows: Tensor) -> None:
        self._own[feature] = rows

    def __delitem__(self, feature: str) -> None:
        raise TypeError(f"{feature} cannot be removed; a batch keeps all features of its items")

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables | self._own)

    def __len__(self) -> int:
        return len(self.tables | self._own)

    def distinct(self) -> tuple[dict[str, Tensor], Tensor]:
        """The features of the batch's distinct items, and the row of each position in them.

        On a GPU, a table with fewer items than the batch has positions is returned whole.

        Returns:
            The features ``(U, ...)`` in the order of the tables, and the rows ``(B, L + 1)``.
        """
        num_items = len(next(iter(self.tables.values())))
        if not on_eager_cpu(self.index) and num_items <= self.index.numel():
            return self.tables, self.index  # counting distinct items would make the host wait
        item_U, row_BL1 = self._distinct_items(num_items)
        columns = {name: table.index_select(0, item_U) for name, table in self.tables.items()}
        return columns, row_BL1

    def _distinct_items(self, num_items: int) -> tuple[Tensor, Tensor]:
        if num_items > 2 * self.index.numel():  # sorting is then faster, as measured
            return torch.unique(self.index, return_inverse=True)
        flat = self.index.flatten()
        seen_N = torch.zeros(num_items, dtype=torch.bool, device=flat.device)
        seen_N.scatter_(0, flat, True)
        item_U = seen_N.nonzero().flatten()
        row_N = seen_N.cumsum(0) - 1
        return item_U, row_N.index_select(0, flat).view_as(self.index)


def first_equal(columns: Mapping[str, Tensor]) -> Tensor:
    """For each row of the features, the number of a row with the same values, int64 ``(U,)``.

    Equal rows get the same number. Rows are compared by a 64-bit key: a polynomial of their int16
    pieces, modulo 2^64. Nothing is rounded, as embeddings may be, and the host need not wait.
    """
    pieces = [
        rows.reshape(rows.shape[0], -1).contiguous().view(torch.int16) for rows in columns.values()
    ]
    pieces_UP = torch.cat(pieces, dim=1)
    key_U = (pieces_UP * torch.full_like(pieces_UP[0], BASE, dtype=torch.long).cumprod(0)).sum(1)
    sorted_U, row_U = key_U.sort(stable=True)
    again_U = F.pad(sorted_U[1:] == sorted_U[:-1], (1, 0))
    first_U = (
        torch.arange(row_U.shape[0], device=row_U.device).masked_fill(again_U, 0).cummax(0).values
    )
    return torch.empty_like(row_U).scatter_(0, row_U, row_U[first_U])


def positions(
    item_dict: Mapping[str, Tensor], mask_BL: Tensor, device: torch.device, unite_equal: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Rows of item features, the row of each position ``(B, L + 1)``, and the mask ``(B, L)``.

    With an ``ItemDict``, each distinct item of the batch is one row. With a plain dictionary, every
    position is a row of its own.

    Args:
        item_dict: the features of items, ``B * (L + 1)`` rows.
        mask_BL: non-zero at real items.
        device: where the results are.
        unite_equal: positions whose items have equal features get the same row, with both.
    """
    mask_BL = on(device, mask_BL) > 0
    B, L = mask_BL.shape
    columns = item_dict
    if isinstance(item_dict, ItemDict):
        columns, row_BL1 = item_dict.distinct()
        row_BL1 = on(device, row_BL1)
    else:
        row_BL1 = torch.arange(B * (L + 1), device=device).view(B, L + 1)
    if not L:  # LongCTR's loader gives this where no sample of the batch has a history
        mask_BL, row_BL1 = mask_BL.new_zeros(B, 1), row_BL1.repeat(1, 2)
    rows = {name: on(device, column) for name, column in columns.items()}
    return rows, first_equal(rows)[row_BL1] if unite_equal else row_BL1, mask_BL


def on(device: torch.device, x: Tensor) -> Tensor:
    """Move a part of a batch to a device, without waiting if its memory is pinned."""
    return x.to(device, non_blocking=True)
