"""Products with rows that are named by index: no row is gathered.

    scores   s[b, h, l] = q[b, h] . rows[index[b, l]]
    sums     y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    outer    g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need: of s they are ``sums(ds)`` at q and ``outer(ds, q)`` at
the rows, of y ``scores(dy)`` at w and ``outer(w, dy)`` at the rows. A gather writes and reads again
``B L D`` numbers; these read each row where it lies. All are outside autograd: ``row_gradient`` has
their gradients.

Shape suffixes: B samples, H heads, L positions, U rows, R rows in use, D width.
"""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

with warnings.catch_warnings():  # torch says once that sparse rows are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


class Positions:
    """Which row each position shows, and the same by row, sorted once for all gradients.

    Args:
        index_BL: int64.
    """

    def __init__(self, index_BL: Tensor) -> None:
        self.index_BL = index_BL

    @cached_property
    def by_row(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows in use ``(R,)``, where each begins ``(R,)``, and the positions in their order."""
        row, order = self.index_BL.flatten().sort(stable=True)
        row_R, count_R = row.unique_consecutive(return_counts=True)
        return row_R, count_R.cumsum(0) - count_R, order


def scores(query_BHD: Tensor, rows_UD: Tensor, positions: Positions) -> Tensor:
    """``s`` of the module."""
    B, H, _ = query_BHD.shape
    L = positions.index_BL.shape[1]
    index = positions.index_BL.repeat_interleave(H, dim=0)
    query = query_BHD.flatten(0, 1)
    if len(rows_UD) < L:  # less work, and more than torch lets a line of a sparse matrix have
        return (query @ rows_UD.T).gather(1, index).view(B, H, L)
    # A sparse matrix whose every line has L entries, at the positions' rows.
    line = torch.arange(0, index.numel() + 1, L, device=index.device)
    zeros = rows_UD.new_zeros(index.numel())
    pattern = torch.sparse_csr_tensor(
        line, index.flatten(), zeros, (B * H, len(rows_UD)), check_invariants=False
    )
    found = torch.sparse.sampled_addmm(pattern, query.contiguous(), rows_UD.T, beta=0.0)
    return found.values().view(B, H, L)


def sums(weights_BHL: Tensor, rows_UD: Tensor, positions: Positions) -> Tensor:
    """``y`` of the module."""
    B, H, _ = weights_BHL.shape
    index = positions.index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    return F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights).view(B, H, -1)


def outer(weights_BHL: Tensor, vectors_BHD: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    """``g`` of the module at the rows in use: these rows, and ``(R, D)``."""
    _, H, L = weights_BHL.shape
    row_R, start_R, order = positions.by_row
    vector = (order // L * H)[:, None] + torch.arange(H, device=order.device)
    weights = weights_BHL.transpose(1, 2).reshape(-1, H)[order]
    part_RD = F.embedding_bag(
        vector.flatten(),
        vectors_BHD.flatten(0, 1),
        start_R * H,
        mode="sum",
        per_sample_weights=weights.flatten(),
    )
    return row_R, part_RD
