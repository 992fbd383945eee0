"""Tables of rows to which histories point, and kernels that read these rows in place on a CPU.

    gather_dot    s[b, h, l] = q[b, h] . rows[index[b, l]]
    gather_sum    y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    scatter_sum   g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

They are each other's gradients. The gradient of s with respect to q is ``gather_sum(ds)``, and with
respect to the rows it is ``scatter_sum(ds, q)``. The gradient of y with respect to w is
``gather_dot(dy)``, and with respect to the rows it is ``scatter_sum(w, dy)``. A gather would write
``B L D`` numbers and read them again. These kernels read each row in place.

Autograd would make a dense gradient of the rows for each operation and add them up. Here each
operation takes a scalar as an input, the anchor of the rows. In backward it hands its part of the
gradient to a ``RowGradient``. Autograd calls the anchor once every part is there. Second
derivatives are not available.

Shape suffixes: B samples, H heads, L positions, U rows, V windows of S rows, D width, Z width of a
layer; in ``scatter_sum`` P positions of all parts.
"""

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

BITS = 15  # that a positive int16 holds
MASK = (1 << BITS) - 1


def gather_rows(rows_UD: Tensor, index_BL: Tensor) -> Tensor:
    """Gather rows by index, ``(B, L, D)``, with autograd's own gradient.

    On a CPU, the gradient of ``index_select`` takes a third of the time of ``embedding``'s. In bf16
    it is also more exact. On a GPU it would add in any order, so ``embedding`` is used there.
    """
    if on_eager_cpu(index_BL):
        return rows_UD.index_select(0, index_BL.flatten()).view(*index_BL.shape, rows_UD.shape[1])
    return F.embedding(index_BL.int(), rows_UD)  # its gradient sorts indices, and int32 halves them


class RowTable:
    """A table of differentiable rows, with the operations of the kernels above.

    With kernels, all operations add to a single gradient of the rows.

    Args:
        rows_UD: the rows.
        kernels: whether to use the kernels; by default they are used on a CPU.
    """

    rows_UD: Tensor

    def __init__(self, rows_UD: Tensor, kernels: bool | None = None) -> None:
        self.rows_UD = rows_UD
        self.kernels = on_eager_cpu(rows_UD) if kernels is None else kernels
        self.num_rows, self.width = rows_UD.shape

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row ``(U, Z)``, outside autograd."""
        return layer(self.rows_UD.detach())

    def dot(self, query_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """The product of each query with each position's row, ``(B, H, L)``; needs ``kernels``."""
        return _Product.apply(gather_dot, query_BHD, index_BL, *self._inputs)

    def weighted_sum(self, weights_BHL: Tensor, index_BL: Tensor) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``; needs ``kernels``."""
        return _Product.apply(gather_sum, weights_BHL, index_BL, *self._inputs)

    def gather(self, index_BL: Tensor) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if not (self.kernels and torch.is_grad_enabled()):
            return gather_rows(self.rows_UD, index_BL)
        index_P1 = index_BL.reshape(-1, 1)  # a position is a sum of one row
        ones_P11 = self.rows_UD.new_ones(len(index_P1), 1, 1)
        return self.weighted_sum(ones_P11, index_P1).view(*index_BL.shape, self.rows_UD.shape[1])

    def windows(self, index_VS: Tensor, share_VS: Tensor) -> "RowTable":
        """A table of V rows, each a weighted sum of S rows of this table."""
        if self.kernels:
            return WindowTable(self, index_VS, share_VS)
        return RowTable(
            F.embedding_bag(index_VS, self.rows_UD, mode="sum", per_sample_weights=share_VS)
        )

    @cached_property
    @torch.enable_grad()  # since the first reader may be outside autograd
    def _inputs(self) -> tuple[Any, ...]:
        gradient = RowGradient(self.num_rows)
        return self.rows_UD.detach(), _Anchor.apply(self.rows_UD, gradient), gradient


class WindowTable(RowTable):
    """A table of weighted sums of another table's rows, computed when they are read.

    Args:
        parent: the other table, which must have ``kernels``.
        index_VS: for each of V windows, the S rows of the parent.
        share_VS: the weights of these rows.
    """

    def __init__(self, parent: RowTable, index_VS: Tensor, share_VS: Tensor) -> None:
        self._parent, self._index_VS, self._share_VS = parent, index_VS, share_VS
        self.num_rows, self.width, self.kernels = len(share_VS), parent.width, True

    @cached_property
    @torch.enable_grad()
    def rows_UD(self) -> Tensor:  # type: ignore[override]  # computed when it is read
        return self._parent.weighted_sum(self._share_VS[:, None], self._index_VS)[:, 0]

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each window, computed from the parent's rows if they are fewer.

        This works because the layer's output for a sum is the sum of its outputs.
        """
        if self._parent.num_rows >= self.num_rows:
            return super().linear(layer)
        z_UZ = F.linear(self._parent.rows_UD, layer.weight)
        z_VZ = gather_sum(self._share_VS[:, None], z_UZ, self._index_VS)[:, 0]
        return z_VZ if layer.bias is None else z_VZ.add_(layer.bias)

    def select(self, row_R: Tensor) -> "WindowTable":
        """The table that has only these windows."""
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
    if len(rows_UD) < L:  # less work, and a sparse line cannot have more entries than columns
        return (query @ rows_UD.T).gather(1, index).view(B, H, L)
    silence_warning()
    # A sparse matrix with B * H lines. Each has L entries, in the columns of the positions' rows.
    line = torch.arange(0, index.numel() + 1, L, device=index.device)
    zeros = rows_UD.new_zeros(index.numel())
    pattern = torch.sparse_csr_tensor(
        line, index.flatten(), zeros, (B * H, len(rows_UD)), check_invariants=False
    )
    found = torch.sparse.sampled_addmm(pattern, query.contiguous(), rows_UD.T, beta=0.0)
    return found.values().view(B, H, L)


@cache
def silence_warning() -> None:
    """Trigger torch's warning that sparse rows are in beta while warnings are off.

    torch gives this warning only once.
    """
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
    """The gradient of U rows ``(U, D)``, summed over several operations by one sort of positions.

    Args:
        parts: weights ``(B, H, L)``, vectors ``(B, H, D)`` and index ``(B, L)`` of each operation.
        rows: U.
    """
    index, weights, vectors, lengths = [], [], [], []
    for weights_BHL, vectors_BHD, index_BL in parts:
        B, H, L = weights_BHL.shape
        index.append(index_BL[:, None].expand(B, H, L).reshape(-1))
        weights.append(weights_BHL.reshape(-1))
        vectors.append(vectors_BHD.flatten(0, 1))
        lengths.append(index_BL.new_full((B * H,), L))
    row_P = torch.cat(index)
    order_P = stable_order(row_P, rows)
    count_U = row_P.bincount(minlength=rows)
    vector_P = torch.repeat_interleave(torch.cat(lengths), output_size=len(row_P))
    return F.embedding_bag(
        vector_P.index_select(0, order_P),
        torch.cat(vectors),
        count_U.cumsum(0) - count_U,
        mode="sum",
        per_sample_weights=torch.cat(weights).index_select(0, order_P),
    )


def stable_order(row_P: Tensor, rows: int) -> Tensor:
    """The order that sorts numbers from 0 to ``rows - 1``, ties in their order, ``(P,)``.

    torch sorts int16 by radix, five times as fast as int64, so long numbers are sorted in pieces.
    """
    order_P = (row_P & MASK).short().sort(stable=True).indices
    for shift in range(BITS, (rows - 1).bit_length(), BITS):
        piece_P = (row_P.index_select(0, order_P) >> shift) & MASK
        order_P = order_P.index_select(0, piece_P.short().sort(stable=True).indices)
    return order_P


class RowGradient:
    """Collects the parts of the rows' gradient, so that they can be summed at once.

    Args:
        rows: U.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._backward = -1
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, weights_BHL: Tensor, vectors_BHD: Tensor, index_BL: Tensor) -> Tensor:
        """Add a part, as for ``scatter_sum``, and return the anchor's gradient, which is zero."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:  # drop parts of a backward pass that never took them
            self._backward, self._parts = backward, []
        self._parts.append((weights_BHL, vectors_BHD, index_BL))
        return vectors_BHD.new_zeros(())

    def take(self) -> Tensor:
        """Return the sum of the parts ``(U, D)``, and forget them."""
        parts, self._parts = self._parts, []
        return scatter_sum(parts, self._rows)


class _Anchor(Function):
    """A scalar that stands for the rows in autograd's graph."""

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

    It computes in float32, also under autocast.
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
