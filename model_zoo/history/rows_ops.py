"""Products with rows that are named by index: no row is gathered.

    scores   s[b, h, l] = q[b, h] . rows[index[b, l]]
    sums     y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    outer    g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need: of s they are ``sums(ds)`` at q and ``outer(ds, q)`` at
the rows, of y ``scores(dy)`` at w and ``outer(w, dy)`` at the rows. A gather writes and reads again
``B L D`` numbers; these read each row where it lies. All are outside autograd: ``row_gradient`` has
their gradients.

Shape suffixes: B samples, H heads, L positions, U rows, D width; in ``outer`` V vectors, P positions of
all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

with warnings.catch_warnings():  # torch says once that sparse rows are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


def scores(query_BHD: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """``s`` of the module."""
    B, H, _ = query_BHD.shape
    L = index_BL.shape[1]
    index = index_BL.repeat_interleave(H, dim=0)
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


def sums(weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """``y`` of the module."""
    B, H, _ = weights_BHL.shape
    index = index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    return F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights).view(B, H, -1)


def outer(parts: Sequence[tuple[Tensor, Tensor, Tensor]], rows: int) -> tuple[Tensor, Tensor]:
    """``g`` of the module, summed over several products: all positions are sorted at once.

    Args:
        parts: weights ``(B, H, L)``, vectors ``(B, H, D)`` and index ``(B, L)`` of each.
        rows: U.

    Returns:
        The sums ``(U, D)``, and how many terms each row has, ``(U,)``.
    """
    index, weights, vectors, lengths = [], [], [], []
    for weights_BHL, vectors_BHD, index_BL in parts:
        B, H, L = weights_BHL.shape
        index.append(index_BL[:, None].expand(B, H, L).reshape(-1))
        weights.append(weights_BHL.reshape(-1))
        vectors.append(vectors_BHD.flatten(0, 1))
        lengths.append(index_BL.new_full((B * H,), L))
    row_P, order_P = torch.cat(index).sort(stable=True)
    count_U = row_P.bincount(minlength=rows)
    length_V = torch.cat(lengths)
    vector_P = torch.repeat_interleave(length_V, output_size=len(row_P))
    sum_UD = F.embedding_bag(
        vector_P[order_P],
        torch.cat(vectors),
        count_U.cumsum(0) - count_U,
        mode="sum",
        per_sample_weights=torch.cat(weights)[order_P],
    )
    return sum_UD, count_U
