"""Embedding tables of which a batch reads few rows: sparse gradients, and Adam for those rows.

A sparse gradient holds the rows that a score reads. ``RowAdam`` updates these rows with the numbers
of dense Adam, which moves every row at every step: where there is no gradient the moments decay,
and the row drifts on, in all up to ten times as far as its gradient took it at once. Lazy Adam
(``torch.optim.SparseAdam``) leaves that out, and learns something else. Here a row makes up for the
steps that it missed before it is read again. If its moments at step s are m and v, then steps s + 1
to s + n, without a gradient, take from it

    sum_k a_k m / (b_k sqrt(v) + eps)
    a_k = lr beta1^k / (1 - beta1^(s + k)),    b_k = sqrt(beta2^k / (1 - beta2^(s + k)))

which is ``A m / (B sqrt(v) + eps)`` with ``A = sum_k a_k`` and ``B = A / sum_k (a_k / b_k)``. That
is exact where eps is negligible and where it is all that counts, and nearly exact between. A and B
depend on s and n alone, so a row costs the same however many steps it missed.

Shape suffixes: N rows of a table, R rows that are read or have a gradient, S steps, D width.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.optim.adam import adam

SMALL_TABLE = 10_000  # rows; up to here a dense update costs less than finding the rows
HORIZON = 256  # missed steps after which a row rests: 0.9 ** 256 is 2e-12
BLOCK = 2048  # rows at a time on a CPU, so that what is gathered stays in its cache


# ---------------------------------------------------------------- gradients


def use_sparse_gradients(module: nn.Module) -> None:
    """Give every table of more than ``SMALL_TABLE`` rows a sparse gradient."""
    for table in module.modules():
        if isinstance(table, nn.Embedding) and table.num_embeddings > SMALL_TABLE:
            use_sparse_gradient(table)


def use_sparse_gradient(table: nn.Embedding) -> None:
    """Give a table a sparse gradient: the rows that were read and whose gradient is not zero.

    ``sparse=True`` of ``nn.Embedding`` alone also copies rows that nothing depends on: padding, and
    items that the score does not read.
    """
    table.sparse = True
    table.register_forward_hook(
        lambda table, args, rows: _TableRows.apply(
            table.weight, args[0], rows.detach(), table.padding_idx
        )
    )


def sparse_tables(module: nn.Module) -> list[nn.Embedding]:
    """The tables with sparse gradients."""
    return [m for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]


def coalesced(gradient: Tensor) -> Tensor:
    """A sparse gradient with each row once. Rows that rise, as those of a batch's distinct items
    do, need no sorting and no sums."""
    rows, values = gradient._indices(), gradient._values()
    if bool((rows[0, 1:] <= rows[0, :-1]).any()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        rows, values, gradient.shape, is_coalesced=True, check_invariants=False
    )


class _TableRows(Function):
    """The rows of a lookup as they are, with a gradient of few rows."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, index: Tensor, rows: Tensor, padding: int | None
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.padding = weight.shape, padding
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        index_R = ctx.saved_tensors[0].flatten()
        gradient_RD = gradient.reshape(-1, gradient.shape[-1])
        keep_R = gradient_RD.abs().amax(1) != 0
        if ctx.padding is not None:
            keep_R &= index_R != ctx.padding
        kept = keep_R.nonzero().flatten()
        of_table = torch.sparse_coo_tensor(
            index_R.index_select(0, kept)[None],
            gradient_RD.index_select(0, kept),
            ctx.shape,
            check_invariants=False,
        )
        return of_table, None, None, None


# ---------------------------------------------------------------- Adam


class RowAdam(torch.optim.Adam):
    """Fused Adam that visits some tables only in the rows of their sparse gradients.

    To everything else a table looks as if dense Adam had trained it: a lookup reads rows that are
    up to date, and ``state_dict`` of the table brings all rows up to date before it saves them.
    Order, names and shapes of the optimizer's state are those of dense Adam.

    Args:
        parameters: everything that trains, the weights of the tables included.
        tables: embeddings with ``sparse=True``.
        lr: learning rate.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: Iterable[nn.Embedding], lr: float
    ) -> None:
        super().__init__(parameters, lr=lr, fused=True)
        self._tables = [table.weight for table in tables]
        self._clocks: dict[Tensor, MissedSteps] = {}
        for table in tables:
            # First of the hooks: it corrects in place, before the rows are part of a graph.
            table.register_forward_hook(self._hook(RowAdam._correct), prepend=True)
            table.register_state_dict_pre_hook(self._hook(RowAdam._settle))
            table.register_load_state_dict_post_hook(self._hook(RowAdam._forget))

    def _hook(self, method: Callable[..., None]) -> Callable[..., None]:
        """A hook that does nothing once the optimizer is gone, for each stage has its own."""
        reference = weakref.ref(self)

        def call(table: nn.Embedding, *args: Any) -> None:
            if (optimizer := reference()) is not None:
                method(optimizer, table.weight, *args)

        return call

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of Adam: of a table in the rows of its gradient, of the rest in all rows."""
        for weight in self._tables:
            if weight.grad is not None:
                self._step_rows(weight, weight.grad.coalesce())
                weight.grad = None
        return super().step(closure)

    def _step_rows(self, weight: Tensor, gradient: Tensor) -> None:
        """The step in the rows of a coalesced gradient; the others miss it."""
        group, state = self.param_groups[0], self.state[weight]
        lr, (beta1, beta2) = group["lr"], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        if weight not in self._clocks:
            self._clocks[weight] = MissedSteps(weight, int(state["step"]), (beta1, beta2))
        options: dict[str, Any] = dict(fused=True, amsgrad=False, maximize=False, weight_decay=0.0)
        options |= dict(lr=lr, beta1=beta1, beta2=beta2, eps=group["eps"])
        rows, values = gradient.indices()[0], gradient.values()
        for rows_R, gradient_RD in zip(_blocks(rows), _blocks(values), strict=True):
            w_RD, m_RD, v_RD = self._up_to_date(weight, rows_R)
            adam([w_RD], [gradient_RD], [m_RD], [v_RD], [], [state["step"].clone()], **options)
            self._write(weight, rows_R, w_RD, m_RD, v_RD)
        state["step"] += 1
        self._clocks[weight].tick(lr, rows)

    @torch.no_grad()
    def _correct(self, weight: Tensor, inputs: tuple[Tensor], rows: Tensor) -> None:
        """Bring what a lookup has read up to date, in place; the table stays as it is."""
        if weight in self._clocks:
            read = rows.view(-1, rows.shape[-1])
            for rows_R, w_RD in zip(_blocks(inputs[0].flatten()), _blocks(read), strict=True):
                self._drift(weight, rows_R, w_RD)

    @torch.no_grad()
    def _settle(self, weight: Tensor, *_: Any) -> None:
        """Bring the whole table up to date."""
        if weight in self._clocks:
            for rows_R in _blocks(torch.arange(len(weight), device=weight.device)):
                self._write(weight, rows_R, *self._up_to_date(weight, rows_R))
            self._forget(weight)

    def _forget(self, weight: Tensor, *_: Any) -> None:
        """Take all rows of a table as up to date, as those that it has just loaded are."""
        self._clocks.pop(weight, None)

    def _up_to_date(self, weight: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights and moments of some rows, each ``(R, D)``, as dense Adam would have them."""
        w_RD = weight.index_select(0, rows_R)
        m_RD, v_RD = self._drift(weight, rows_R, w_RD)
        beta1, beta2 = self.param_groups[0]["betas"]
        missed_R1 = self._clocks[weight].missed(rows_R)
        return w_RD, m_RD.mul_(beta1**missed_R1), v_RD.mul_(beta2**missed_R1)

    def _drift(self, weight: Tensor, rows_R: Tensor, w_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``A m / (B sqrt(v) + eps)`` from some rows, in place; gives copies of m and v."""
        state, eps = self.state[weight], self.param_groups[0]["eps"]
        m_RD = state["exp_avg"].index_select(0, rows_R)
        v_RD = state["exp_avg_sq"].index_select(0, rows_R)
        A_R1, B_R1 = self._clocks[weight].drift(rows_R)
        w_RD.addcdiv_(m_RD * A_R1, v_RD.sqrt().mul_(B_R1).add_(eps), value=-1)
        return m_RD, v_RD

    def _write(self, weight: Tensor, rows_R: Tensor, *moved: Tensor) -> None:
        """Put weights and moments of some rows back into their tables."""
        state = self.state[weight]
        tensors = (weight, state["exp_avg"], state["exp_avg_sq"])
        for tensor, moved_RD in zip(tensors, moved, strict=True):
            tensor.index_copy_(0, rows_R, moved_RD)


class MissedSteps:
    """When each row of a table was last up to date, and how far it has to drift since.

    Args:
        weight: the table, ``(N, D)``, up to date in all rows.
        step: steps that it has behind it.
        betas: Adam's.

    Attributes:
        now: steps since all rows were up to date.
    """

    def __init__(self, weight: Tensor, step: int, betas: tuple[float, float]) -> None:
        self.step, self.betas, self.now = step, betas, 0
        self.last_N = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        k_S = torch.arange(HORIZON, 0, -1, dtype=torch.float64, device=weight.device)
        self.decay_2S = torch.stack([betas[0] ** k_S, (betas[0] / betas[1] ** 0.5) ** k_S])
        self.sums_2S = torch.zeros_like(self.decay_2S)  # of a_k and a_k / b_k, by s

    def tick(self, lr: float, rows_R: Tensor) -> None:
        """Count a step, which all rows but these miss."""
        self.step, self.now = self.step + 1, self.now + 1
        if self.now == self.sums_2S.shape[1]:
            self.sums_2S = torch.cat([self.sums_2S, torch.zeros_like(self.sums_2S)], dim=1)
        correction1, correction2 = (1 - beta**self.step for beta in self.betas)
        count = min(self.now, HORIZON)
        a_S, ratio_S = self.sums_2S[:, self.now - count : self.now]
        a_S.add_(self.decay_2S[0, -count:], alpha=lr / correction1)
        ratio_S.add_(self.decay_2S[1, -count:], alpha=lr * correction2**0.5 / correction1)
        self.last_N.index_fill_(0, rows_R, self.now)

    def missed(self, rows_R: Tensor) -> Tensor:
        """The number of steps that each of some rows missed, ``(R, 1)``."""
        return (self.now - self.last_N.index_select(0, rows_R)).float()[:, None]

    def drift(self, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        """A and B of some rows, each ``(R, 1)``."""
        last_R = self.last_N.index_select(0, rows_R)
        a_R, ratio_R = self.sums_2S.index_select(1, last_R)
        b_R = torch.where(ratio_R > 0, a_R / ratio_R, 1.0)
        return a_R.float()[:, None], b_R.float()[:, None]


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    """Rows in blocks that a CPU's cache holds; on a GPU, all of them."""
    return rows.split(BLOCK) if rows.is_cpu else (rows,)
