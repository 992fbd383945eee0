"""Products with rows that are named by index: no row is gathered, no gradient is larger than one table.

    scores   s[b, h, l] = q[b, h] . rows[index[b, l]]
    sums     y[b, h]    = sum_l w[b, h, l] rows[index[b, l]]
    outer    g[u]       = sum over heads and the positions of row u of w[b, h, l] v[b, h]

Each is what the gradients of the others need: of s they are ``sums(ds)`` at q and ``outer(ds, q)`` at
the rows, of y ``scores(dy)`` at w and ``outer(w, dy)`` at the rows. A gather writes and reads again
``B L D`` numbers; these read each row where it lies.

Shape suffixes: B samples, H heads, L positions, U rows, R rows in use, V sums of S rows, D width.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dropout import keep_factors
from .functional import masked_softmax

with warnings.catch_warnings():  # torch says once that sparse rows are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


def in_place(x: Tensor) -> bool:
    """Whether rows are read where they lie: on a CPU. A GPU gathers them faster, and never waits;
    torch.compile understands gathers only."""
    return not (x.is_cuda or torch.compiler.is_compiling())


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
    """``s`` of the module, outside autograd."""
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
    """``y`` of the module, outside autograd."""
    B, H, _ = weights_BHL.shape
    index = positions.index_BL.repeat_interleave(H, dim=0)
    weights = weights_BHL.reshape(index.shape)
    return F.embedding_bag(index, rows_UD, mode="sum", per_sample_weights=weights).view(B, H, -1)


def outer(weights_BHL: Tensor, vectors_BHD: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    """``g`` of the module at the rows in use, outside autograd: these rows, and ``(R, D)``."""
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


class RowTable:
    """Rows, and the one gradient that all products with them add to.

    Autograd would give each product a dense gradient of its own and add them up. On a CPU all hang on
    one scalar instead, so that the rows' turn comes when every product has added its part. There,
    derivatives of a derivative are not available.

    Args:
        rows_UD: differentiable.
    """

    def __init__(self, rows_UD: Tensor) -> None:
        self._rows_UD = rows_UD
        self._gradient = RowGradient(len(rows_UD))
        self._anchor: Tensor | None = None

    def __len__(self) -> int:
        """U."""
        return len(self._rows_UD)

    @property
    def rows_UD(self) -> Tensor:
        """All rows, differentiable."""
        return self._rows_UD

    def values(self) -> Tensor:
        """All rows, outside autograd."""
        return self._rows_UD.detach()

    def linear(self, layer: nn.Linear) -> Tensor:
        """The layer's output for each row, outside autograd."""
        with torch.no_grad():
            return layer(self.values())

    def products(self, layer: nn.Linear | None = None) -> float:
        """FLOPs of the matrix products that make the rows, or ``linear``'s output for them."""
        return 2.0 * layer.weight.numel() * len(self) if layer else 0.0

    def attend(
        self, query_BHD: Tensor, positions: Positions, mask_BL: Tensor, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """``functional.attend`` over the positions' rows."""
        return _Attend.apply(query_BHD, mask_BL, dropout, *self._inputs(positions))

    def sums(self, weights_BHL: Tensor, positions: Positions) -> Tensor:
        """The weighted sum of the positions' rows, ``(B, H, D)``."""
        return _Sums.apply(weights_BHL, *self._inputs(positions))

    def gather(self, positions: Positions) -> Tensor:
        """The rows of the positions, ``(B, L, D)``."""
        if not in_place(positions.index_BL):
            return F.embedding(positions.index_BL, self.rows_UD)
        return _Gather.apply(*self._inputs(positions))

    def bags(self, positions: Positions, share_VS: Tensor) -> RowTable:
        """The table of weighted sums of rows, one for each sample of ``positions``."""
        if in_place(share_VS):
            return BagTable(self, positions, share_VS)
        return RowTable(
            F.embedding_bag(
                positions.index_BL, self.rows_UD, mode="sum", per_sample_weights=share_VS
            )
        )

    def anchor(self) -> Tensor | None:
        """The scalar that products hang on; None where no gradient is asked for."""
        if not (torch.is_grad_enabled() and self._rows_UD.requires_grad):
            return None
        if self._anchor is None:
            self._anchor = _Anchor.apply(self._rows_UD, self._gradient)
        return self._anchor

    def _inputs(self, positions: Positions) -> tuple[Any, ...]:
        return self.values(), positions, self.anchor(), self._gradient


class BagTable(RowTable):
    """Weighted sums of another table's rows, built when they are read; of their gradients only those
    in use go on to it.

    Args:
        parent: the other table.
        positions: its rows, S for each of V sums.
        share_VS: their weights.
    """

    def __init__(self, parent: RowTable, positions: Positions, share_VS: Tensor) -> None:
        self._parent, self._positions, self._share_VS = parent, positions, share_VS
        self._gradient = RowGradient(len(share_VS))
        self._values_VD: Tensor | None = None
        self._inherited = False  # the values come from a larger table
        self._anchor = parent.anchor()
        if self._anchor is not None:
            gradients = (parent._gradient, self._gradient)
            self._anchor = _BagAnchor.apply(self._anchor, *gradients, positions.index_BL, share_VS)

    def __len__(self) -> int:
        return len(self._share_VS)

    @property
    def rows_UD(self) -> Tensor:
        return self.gather(Positions(torch.arange(len(self))[None]))[0]

    @torch.no_grad()
    def values(self) -> Tensor:
        if self._values_VD is None:
            self._values_VD = self._bag(self._parent.values())
        return self._values_VD

    @torch.no_grad()
    def linear(self, layer: nn.Linear) -> Tensor:
        """By the parent's rows where they are fewer: a layer of a sum is the sum of its layers."""
        if len(self._parent) >= len(self):
            return super().linear(layer)
        z_VZ = self._bag(F.linear(self._parent.values(), layer.weight))
        return z_VZ if layer.bias is None else z_VZ.add_(layer.bias)

    def products(self, layer: nn.Linear | None = None) -> float:
        if layer is not None and len(self._parent) < len(self):
            return self._parent.products(layer) + 2.0 * layer.out_features * self._share_VS.numel()
        width = self._parent.values().shape[1]
        built = 0.0 if self._inherited else 2.0 * width * self._share_VS.numel()
        return built + super().products(layer)

    def select(self, row_R: Tensor) -> BagTable:
        """The table of some of the sums."""
        positions = Positions(self._positions.index_BL[row_R])
        table = BagTable(self._parent, positions, self._share_VS[row_R])
        if self._values_VD is not None:
            table._values_VD, table._inherited = self._values_VD[row_R], True
        return table

    def anchor(self) -> Tensor | None:
        return self._anchor if torch.is_grad_enabled() else None

    def _bag(self, rows_UD: Tensor) -> Tensor:
        return sums(self._share_VS[:, None], rows_UD, self._positions)[:, 0]


class RowGradient:
    """The sum of all parts of a table's gradient.

    Args:
        rows: U.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._sum_UD: Tensor | None = None
        self._used_U: Tensor | None = None
        self._parts = 0

    def add(self, row_R: Tensor, part_RD: Tensor) -> Tensor:
        """Add to rows ``row_R``; returns the gradient of the anchor: one part."""
        if self._sum_UD is None:
            self._sum_UD = part_RD.new_zeros(self._rows, part_RD.shape[1])
            self._used_U = row_R.new_zeros(self._rows, dtype=torch.bool)
        self._sum_UD.index_add_(0, row_R, part_RD)
        self._used_U.index_fill_(0, row_R, True)
        self._parts += 1
        return part_RD.new_ones(())

    def take(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of that many parts ``(U, D)``, and which rows are in use."""
        if int(parts) != self._parts:
            raise RuntimeError(
                "a gradient that left out the item rows was taken before; ask for all in one call"
            )
        found = self._sum_UD, self._used_U
        self._sum_UD, self._used_U, self._parts = None, None, 0
        return found


class _Anchor(Function):
    """A scalar that stands for the rows; its gradient counts the parts that were added."""

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, gradient: RowGradient) -> Tensor:
        ctx.gradient = gradient
        return rows_UD.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, parts: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.take(parts)[0], None


class _BagAnchor(Function):
    """The same for a ``BagTable``: its gradient becomes a part of its parent's."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        parent: RowGradient,
        own: RowGradient,
        index_VS: Tensor,
        share_VS: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(index_VS, share_VS)
        ctx.gradients = parent, own
        return anchor.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, parts: Tensor) -> tuple[Tensor | None, ...]:
        index_VS, share_VS = ctx.saved_tensors
        parent, own = ctx.gradients
        sum_VD, used_V = own.take(parts)
        row_R = used_V.nonzero().flatten()
        part = outer(share_VS[row_R, None], sum_VD[row_R, None], Positions(index_VS[row_R]))
        return parent.add(*part), None, None, None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, positions: Positions, *hook: Any) -> Tensor:
        ctx.positions, ctx.gradient = positions, hook[1]
        return F.embedding(positions.index_BL, rows_UD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_BLD: Tensor) -> tuple[Tensor | None, ...]:
        part = ctx.positions.index_BL.flatten(), dx_BLD.flatten(0, 1)
        return None, None, ctx.gradient.add(*part), None


class _Sums(Function):
    @staticmethod
    def forward(
        ctx: Any, weights_BHL: Tensor, rows_UD: Tensor, positions: Positions, *hook: Any
    ) -> Tensor:
        ctx.save_for_backward(weights_BHL, rows_UD)
        ctx.positions, ctx.gradient = positions, hook[1]
        return sums(weights_BHL, rows_UD, positions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor) -> tuple[Tensor | None, ...]:
        weights_BHL, rows_UD = ctx.saved_tensors
        dweights_BHL = scores(dy_BHD, rows_UD, ctx.positions) if ctx.needs_input_grad[0] else None
        part = None
        if ctx.needs_input_grad[3]:
            part = ctx.gradient.add(*outer(weights_BHL, dy_BHD, ctx.positions))
        return dweights_BHL, None, None, part, None


class _Attend(Function):
    """With p the softmax and m the dropout's factors: ``y = sums(m p)`` and ``t = sum_l m p``, so that
    with ``dp = m (scores(dy) + dt)``, ``ds = p (dp - p . dp)``."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BHD: Tensor,
        mask_BL: Tensor,
        dropout: float,
        rows_UD: Tensor,
        positions: Positions,
        *hook: Any,
    ) -> tuple[Tensor, Tensor]:
        p_BHL = masked_softmax(scores(query_BHD, rows_UD, positions), mask_BL[:, None, :])
        factor_BHL = keep_factors(p_BHL, dropout) if dropout else None
        weights_BHL = p_BHL if factor_BHL is None else p_BHL * factor_BHL
        ctx.save_for_backward(query_BHD, rows_UD, p_BHL, factor_BHL)
        ctx.positions, ctx.gradient = positions, hook[1]
        return sums(weights_BHL, rows_UD, positions), weights_BHL.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BHD: Tensor, dt_BH: Tensor) -> tuple[Tensor | None, ...]:
        query_BHD, rows_UD, p_BHL, factor_BHL = ctx.saved_tensors
        dp_BHL, weights_BHL = scores(dy_BHD, rows_UD, ctx.positions) + dt_BH[:, :, None], p_BHL
        if factor_BHL is not None:
            dp_BHL, weights_BHL = dp_BHL * factor_BHL, p_BHL * factor_BHL
        ds_BHL = p_BHL * (dp_BHL - (p_BHL * dp_BHL).sum(-1, keepdim=True))
        dquery_BHD = sums(ds_BHL, rows_UD, ctx.positions)
        part = None
        if ctx.needs_input_grad[5]:
            weights = torch.cat([weights_BHL, ds_BHL], dim=1)
            vectors = torch.cat([dy_BHD, query_BHD], dim=1)
            part = ctx.gradient.add(*outer(weights, vectors, ctx.positions))
        return dquery_BHD, None, None, None, None, part, None
