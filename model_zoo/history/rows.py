"""Tables of rows that histories show by index, and the kernels by which a CPU reads them there.

    gather_dot    s[b, h, l] = q[b, h] . rows[index[b, l]]
    gather_sum    y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    scatter_sum   g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need. The gradients of s are ``gather_sum(ds)`` at q and
``scatter_sum(ds, q)`` at the rows; those of y are ``gather_dot(dy)`` at w and ``scatter_sum(w,
dy)`` at the rows. A gather would write and read again ``B L D`` numbers; these kernels read each
row where it lies.

Autograd would give each operation a dense gradient of the rows and add them up. Here each operation
takes the rows' anchor, a scalar, as an input. In backward it hands its part to a ``RowGradient``,
and autograd calls the anchor when every part is there. Derivatives of a derivative are not
available.

Shape suffixes: B samples, H heads, L positions, U rows, V windows of S rows, D width, Z width of a
layer; in ``scatter_sum`` P positions of all parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..ops.compiled import on_eager_cpu
from ..ops.dropout import keep_factors
from ..ops.functional import masked_softmax


def gather_rows(rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """Rows by index, ``(B, L, D)``, with autograd's own gradient.

    On a CPU the gradient of ``index_select`` takes a third of the time of ``embedding``'s, and in
    bf16 it is more exact; on a GPU it would add in any order.
    """
    if on_eager_cpu(index_BL):
        return rows_UD.index_select(0, index_BL.flatten()).view(*index_BL.shape, rows_UD.shape[1])
    return F.embedding(index_BL.int(), rows_UD)  # its gradient sorts indices: half as many bytes


class RowTable:
    """Rows, differentiable; where a CPU's kernels serve, their products add to one gradient.

    Args:
        rows_UD: the rows.
        kernels: whether the kernels serve; None finds out.
    """

    rows_UD: Tensor

    def __init__(self, rows_UD: Tensor, kernels: bool | None = None) -> None:
        self.rows_UD = rows_UD
        self.kernels = on_eager_cpu(rows_UD) if kernels is None else kernels
        self.num_rows = len(rows_UD)

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row ``(U, Z)``, outside autograd."""
        return layer(self.rows_UD.detach())

    def dot(self, query_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """The product of each query with each position's row, ``(B, H, L)``, where ``kernels``."""
        return _Product.apply(gather_dot, query_BHD, index_BL, *self._inputs)

    def weighted_sum(self, weights_BHL: Tensor, index_BL: Tensor) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``, where ``kernels``."""
        return _Product.apply(gather_sum, weights_BHL, index_BL, *self._inputs)

    def gather(self, index_BL: Tensor) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if not (self.kernels and torch.is_grad_enabled()):
            return gather_rows(self.rows_UD, index_BL)
        index_P1 = index_BL.reshape(-1, 1)  # a position is a sum of one row
        ones_P11 = self.rows_UD.new_ones(len(index_P1), 1, 1)
        return self.weighted_sum(ones_P11, index_P1).view(*index_BL.shape, self.rows_UD.shape[1])

    def attend(
        self, query_BHD: Tensor, index_BL: Tensor, mask_BL: Tensor, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """``functional.attend`` over the positions' rows, where ``kernels``."""
        weights_BHL = masked_softmax(self.dot(query_BHD, index_BL), mask_BL[:, None])
        if dropout:
            weights_BHL = weights_BHL * keep_factors(weights_BHL, dropout)
        return self.weighted_sum(weights_BHL, index_BL), weights_BHL.sum(-1)

    def windows(self, index_VS: Tensor, share_VS: Tensor) -> RowTable:
        """The table of V weighted sums, each of S rows of this table."""
        if self.kernels:
            return WindowTable(self, index_VS, share_VS)
        return RowTable(
            F.embedding_bag(index_VS, self.rows_UD, mode="sum", per_sample_weights=share_VS)
        )

    @cached_property
    @torch.enable_grad()  # the first reader may be outside autograd
    def _inputs(self) -> tuple[Any, ...]:
        gradient = RowGradient(self.num_rows)
        return self.rows_UD.detach(), _Anchor.apply(self.rows_UD, gradient), gradient


class WindowTable(RowTable):
    """Weighted sums of another table's rows, computed when they are read.

    Args:
        parent: the other table, where ``kernels``.
        index_VS: its rows, S for each of V windows.
        share_VS: their weights.
    """

    def __init__(self, parent: RowTable, index_VS: Tensor, share_VS: Tensor) -> None:
        self._parent, self._index_VS, self._share_VS = parent, index_VS, share_VS
        self.num_rows, self.kernels = len(share_VS), True

    @cached_property
    @torch.enable_grad()
    def rows_UD(self) -> Tensor:  # type: ignore[override]  # computed when it is read
        return self._parent.weighted_sum(self._share_VS[:, None], self._index_VS)[:, 0]

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each window, computed from the parent's rows where they are fewer.

        A linear layer of a sum is the sum of the layer's outputs.
        """
        if self._parent.num_rows >= self.num_rows:
            return super().linear(layer)
        z_UZ = F.linear(self._parent.rows_UD, layer.weight)
        z_VZ = gather_sum(self._share_VS[:, None], z_UZ, self._index_VS)[:, 0]
        return z_VZ if layer.bias is None else z_VZ.add_(layer.bias)

    def select(self, row_R: Tensor) -> WindowTable:
        """The table of some of the windows."""
        table = WindowTable(self._parent, self._index_VS[row_R], self._share_VS[row_R])
        if "rows_UD" in vars(self) and not self.rows_UD.requires_grad:
            table.rows_UD = self.rows_UD[row_R]  # summed already, and no gradient has to go back
        return table


# ---------------------------------------------------------------- kernels


def gather_dot(query_BHD: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """The product of each query with each position's row, ``(B, H, L)``; not differentiable."""
    B, H, _ = query_BHD.shape
    L = index_BL.shape[1]
    index = index_BL.repeat_interleave(H, dim=0)
    query = query_BHD.flatten(0, 1)
    if len(rows_UD) < L:  # less work, and torch allows a sparse line no more entries than columns
        return (query @ rows_UD.T).gather(1, index).view(B, H, L)
    silence_warning()
    # A sparse matrix whose every line has L entries, at the positions' rows.
    line = torch.arange(0, index.numel() + 1, L, device=index.device)
    zeros = rows_UD.new_zeros(index.numel())
    pattern = torch.sparse_csr_tensor(
        line, index.flatten(), zeros, (B * H, len(rows_UD)), check_invariants=False
    )
    found = torch.sparse.sampled_addmm(pattern, query.contiguous(), rows_UD.T, beta=0.0)
    return found.values().view(B, H, L)


@cache
def silence_warning() -> None:
    """Use up torch's only warning that sparse rows are in beta, where nobody sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


def gather_sum(weights_BHL: Tensor, rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """The weighted sum of the positions' rows, ``(B, H, D)``; not differentiable."""
    B, H, _ = weights_BHL.shape
    index = index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    sums = F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights)
    return sums.view(B, H, rows_UD.shape[1])


def scatter_sum(parts: Sequence[tuple[Tensor, Tensor, Tensor]], rows: int) -> Tensor:
    """The gradient of U rows ``(U, D)``, summed over several products in one sort of all positions.

    Args:
        parts: weights ``(B, H, L)``, vectors ``(B, H, D)`` and index ``(B, L)`` of each.
        rows: U.
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
    vector_P = torch.repeat_interleave(torch.cat(lengths), output_size=len(row_P))
    return F.embedding_bag(
        vector_P[order_P],
        torch.cat(vectors),
        count_U.cumsum(0) - count_U,
        mode="sum",
        per_sample_weights=torch.cat(weights)[order_P],
    )


class RowGradient:
    """The parts of the gradient of some rows, to be summed at once.

    Args:
        rows: U.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._backward = -1
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, weights_BHL: Tensor, vectors_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """Add a part, as ``scatter_sum`` has it; returns what the anchor gets as its gradient."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # drop parts of one that did not ask for the rows
            self._backward, self._parts = backward, []
        self._parts.append((weights_BHL, vectors_BHD, index_BL))
        return vectors_BHD.new_zeros(())

    def take(self) -> Tensor:
        """The sum of the parts, ``(U, D)``."""
        parts, self._parts = self._parts, []
        return scatter_sum(parts, self._rows)


class _Anchor(Function):
    """A scalar that stands for the rows in the graph."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, gradient: RowGradient) -> Tensor:
        ctx.gradient = gradient
        return rows_UD.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.take(), None


class _Product(Function):
    """``gather_dot`` of queries or ``gather_sum`` of weights, differentiable.

    Under autocast too, it takes float32 and rounds nothing.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        kernel: Callable[..., Tensor],
        x: Tensor,
        index_BL: Tensor,
        rows_UD: Tensor,
        anchor: Tensor,
        gradient: RowGradient,
    ) -> Tensor:
        ctx.save_for_backward(x, rows_UD, index_BL)
        ctx.kernel, ctx.gradient = kernel, gradient
        return kernel(x, rows_UD, index_BL)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, rows_UD, index_BL = ctx.saved_tensors
        other: Callable[..., Tensor] = gather_sum
        pair = dy, x
        if ctx.kernel is gather_sum:
            other, pair = gather_dot, (x, dy)
        dx = other(dy, rows_UD, index_BL) if ctx.needs_input_grad[1] else None
        part = ctx.gradient.add(*pair, index_BL) if ctx.needs_input_grad[4] else None
        return None, dx, None, None, part, None
