"""Train embedding tables of which a batch reads few rows: sparse gradients, and Adam for them.

A sparse gradient holds only the rows that a score depends on. ``RowAdam`` visits only these rows,
yet gives the results of dense Adam. Dense Adam moves every row at every step. A row without a
gradient drifts on while its moments decay. In all it drifts up to ten times as far as its gradient
moved it at once. Lazy Adam (``torch.optim.SparseAdam``) leaves the drift out, and so learns other
weights. Here a row makes up for the missed steps before it is read again. If its moments at step s
are m and v, the steps s + 1 to s + n, all without a gradient, subtract from it

    sum_k a_k m / (b_k sqrt(v) + eps)
    a_k = lr beta1^k / (1 - beta1^(s + k)),    b_k = sqrt(beta2^k / (1 - beta2^(s + k)))

This sum over k = 1 to n is replaced by ``A m / (B sqrt(v) + eps)``, where ``A = sum_k a_k`` and
``B = A / sum_k (a_k / b_k)``. The replacement is exact where eps is negligible, exact where v is
negligible, and nearly exact between. A and B depend on s and n alone. So a row costs the same
however many steps it missed.

Shape suffixes: N rows of a table, R rows that are read or have a gradient, S steps, D width.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.optim.adam import adam

SMALL_TABLE = 10_000  # rows; up to this size, a dense update is cheaper than finding the rows
HORIZON = 256  # missed steps after which the drift is negligible: 0.9 ** 256 is 2e-12
BLOCK = 2048  # rows gathered at a time on a CPU, so that they stay in its cache


# ---------------------------------------------------------------- gradients


def use_sparse_gradients(module: nn.Module) -> None:
    """Give every table of more than ``SMALL_TABLE`` rows a sparse gradient, if it is not frozen."""
    tables = (part for part in module.modules() if isinstance(part, nn.Embedding))
    for table in tables:
        if table.weight.requires_grad and table.num_embeddings > SMALL_TABLE:
            use_sparse_gradient(table)


def use_sparse_gradient(table: nn.Embedding) -> None:
    """Give a table a sparse gradient, with the looked-up rows whose gradient is not zero.

    ``sparse=True`` of ``nn.Embedding`` would also include rows that the score does not depend on:
    padding and unused items.
    """
    table.sparse = True

    def hook(table: nn.Embedding, args: tuple[Tensor], rows: Tensor) -> Tensor:
        return _TableRows.apply(table.weight, args[0], rows.detach(), table.padding_idx)

    table.register_forward_hook(hook)


def sparse_tables(module: nn.Module) -> list[nn.Embedding]:
    """The embedding tables in a module that have sparse gradients."""
    return [m for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]


def coalesced(gradient: Tensor) -> Tensor:
    """The same sparse gradient with each row once, in rising order.

    Rows that already rise are left as they are. The distinct items of a batch give such rows.
    """
    rows, values = gradient._indices(), gradient._values()
    if bool((rows[0, 1:] <= rows[0, :-1]).any()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        rows, values, gradient.shape, is_coalesced=True, check_invariants=False
    )


class _TableRows(Function):
    """Return the rows of a lookup unchanged; backward gives the table a gradient of few rows."""

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
        place, rows = index_R.index_select(0, kept)[None], gradient_RD.index_select(0, kept)
        of_table = torch.sparse_coo_tensor(place, rows, ctx.shape, check_invariants=False)
        return of_table, None, None, None


# ---------------------------------------------------------------- Adam


class RowAdam(torch.optim.Adam):
    """Fused Adam that updates some tables only in the rows of their sparse gradients.

    To all other code, a table looks as if dense Adam had trained it. A lookup reads rows that are
    up to date. The table's ``state_dict`` first brings all rows up to date. The optimizer's state
    has the order, names and shapes of dense Adam's.

    Args:
        parameters: all parameters that train, including the weights of the tables.
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
            # It must be the first hook: it changes the rows in place, before a graph uses them.
            table.register_forward_hook(self._hook(RowAdam._correct), prepend=True)
            table.register_state_dict_pre_hook(self._hook(RowAdam._settle))
            table.register_load_state_dict_post_hook(self._hook(RowAdam._forget))

    def state_dict(self) -> dict[str, Any]:
        """The state of Adam, and the clocks of tables whose rows are not up to date."""
        clocks = {i: self._clocks.get(weight) for i, weight in enumerate(self._tables)}
        return super().state_dict() | {"clocks": {i: vars(c) for i, c in clocks.items() if c}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; the tables must have the rows that they had then."""
        super().load_state_dict(state_dict)
        for i, known in state_dict.get("clocks", {}).items():
            weight = self._tables[i]
            clock = self._clocks[weight] = MissedSteps(weight, known["step"], known["betas"])
            for name, value in known.items():
                moved = value.to(weight.device) if isinstance(value, Tensor) else value
                setattr(clock, name, moved)

    def _hook(self, method: Callable[..., None]) -> Callable[..., None]:
        """A hook that calls a method, but does nothing once the optimizer is gone.

        Each stage has an optimizer of its own, while the tables keep the hooks of all.
        """
        reference = weakref.ref(self)

        @torch.no_grad()
        def call(table: nn.Embedding, *args: Any) -> None:
            if (optimizer := reference()) is not None:
                method(optimizer, table.weight, *args)

        return call

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make one step of Adam; a sparse table is updated in the rows of its gradient only."""
        for weight in self._tables:
            if weight.grad is not None:
                self._step_rows(weight, weight.grad.coalesce())
                weight.grad = None
        return super().step(closure)

    def _step_rows(self, weight: Tensor, gradient: Tensor) -> None:
        """Make one step in the rows of a coalesced gradient; all other rows miss the step."""
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

    def _correct(self, weight: Tensor, inputs: tuple[Tensor], rows: Tensor) -> None:
        """Bring the rows that a lookup has read up to date, in place; the table is unchanged."""
        if weight in self._clocks:
            read = rows.view(-1, rows.shape[-1])
            for rows_R, w_RD in zip(_blocks(inputs[0].flatten()), _blocks(read), strict=True):
                self._drift(weight, rows_R, w_RD)

    def _settle(self, weight: Tensor, *_: Any) -> None:
        """Bring the whole table up to date."""
        if weight in self._clocks:
            for rows_R in _blocks(torch.arange(len(weight), device=weight.device)):
                self._write(weight, rows_R, *self._up_to_date(weight, rows_R))
            self._forget(weight)

    def _forget(self, weight: Tensor, *_: Any) -> None:
        """Count all rows of a table as up to date, for example after it has loaded weights."""
        self._clocks.pop(weight, None)

    def _up_to_date(self, weight: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weights and moments of rows, each ``(R, D)``, as dense Adam would have them."""
        w_RD = weight.index_select(0, rows_R)
        m_RD, v_RD = self._drift(weight, rows_R, w_RD)
        beta1, beta2 = self.param_groups[0]["betas"]
        missed_R1 = self._clocks[weight].missed(rows_R)
        return w_RD, m_RD.mul_(beta1**missed_R1), v_RD.mul_(beta2**missed_R1)

    def _drift(self, weight: Tensor, rows_R: Tensor, w_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract ``A m / (B sqrt(v) + eps)`` from rows, in place; return copies of m and v."""
        state, eps = self.state[weight], self.param_groups[0]["eps"]
        m_RD = state["exp_avg"].index_select(0, rows_R)
        v_RD = state["exp_avg_sq"].index_select(0, rows_R)
        A_R1, B_R1 = self._clocks[weight].drift(rows_R)
        w_RD.addcdiv_(m_RD * A_R1, v_RD.sqrt().mul_(B_R1).add_(eps), value=-1)
        return m_RD, v_RD

    def _write(self, weight: Tensor, rows_R: Tensor, *moved: Tensor) -> None:
        """Write the weights and moments of rows back into their tables."""
        state = self.state[weight]
        tensors = (weight, state["exp_avg"], state["exp_avg_sq"])
        for tensor, moved_RD in zip(tensors, moved, strict=True):
            tensor.index_copy_(0, rows_R, moved_RD)


class MissedSteps:
    """Knows when each row of a table was last up to date, and the A and B of its drift since.

    Args:
        weight: the table, ``(N, D)``, whose rows are all up to date.
        step: how many steps of Adam the table has made.
        betas: Adam's two decay rates.

    Attributes:
        now: how many steps have passed since all rows were up to date.
    """

    def __init__(self, weight: Tensor, step: int, betas: tuple[float, float]) -> None:
        self.step, self.betas, self.now = step, betas, 0
        self.last_N = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        k_S = torch.arange(HORIZON, 0, -1, dtype=torch.float64, device=weight.device)
        self.decay_2S = torch.stack([betas[0] ** k_S, (betas[0] / betas[1] ** 0.5) ** k_S])
        self.sums_2S = torch.zeros_like(self.decay_2S)  # the sums of a_k and a_k / b_k, by s

    def tick(self, lr: float, rows_R: Tensor) -> None:
        """Count a step with learning rate ``lr``, which all rows but these miss."""
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
        """The number of steps that each row missed, ``(R, 1)``."""
        return (self.now - self.last_N.index_select(0, rows_R)).float()[:, None]

    def drift(self, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        """The A and B of each row (see the top of this file), each ``(R, 1)``."""
        last_R = self.last_N.index_select(0, rows_R)
        a_R, ratio_R = self.sums_2S.index_select(1, last_R)
        b_R = torch.where(ratio_R > 0, a_R / ratio_R, 1.0)
        return a_R.float()[:, None], b_R.float()[:, None]


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    """Split rows into blocks that fit into a CPU's cache; on a GPU, into one block."""
    return rows.split(BLOCK) if rows.is_cpu else (rows,)
