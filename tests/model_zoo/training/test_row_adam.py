"""RowAdam against dense Adam on bare tables: moves, gaps, state, and what hooks on a table leave behind."""

import copy
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from model_zoo.training import sparse_embedding
from model_zoo.training.sparse_embedding import RowAdam, coalesced, use_sparse_gradient

N, D = 40, 8


def pair(rows: int = N) -> tuple[nn.Embedding, nn.Embedding]:
    """A dense and a sparse table with the same weights."""
    torch.manual_seed(0)
    dense = nn.Embedding(rows, D, padding_idx=0)
    sparse = copy.deepcopy(dense)
    use_sparse_gradient(sparse)
    return dense, sparse


def batches(count: int, rows: int = N, seed: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices that repeat, few of all rows, and a gradient for each."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        size = int(torch.randint(1, 12, (), generator=g))
        index = (torch.rand(size, generator=g) ** 3 * rows).long()  # some rows are rare
        yield index, torch.randn(size, D, generator=g)


def train(table: nn.Embedding, optimizer: torch.optim.Optimizer, batch: tuple) -> Tensor:
    """One step on ``sum(gradient * rows)``; the rows that it read."""
    index, gradient = batch
    rows = table(index)
    (rows * gradient).sum().backward()
    if table.sparse:
        table.weight.grad = coalesced(table.weight.grad)
    optimizer.step()
    optimizer.zero_grad()
    return rows.detach()


def adams(dense: nn.Embedding, sparse: nn.Embedding, lr: float = 0.01) -> tuple:
    return (
        torch.optim.Adam(dense.parameters(), lr=lr, fused=True),
        RowAdam(sparse.parameters(), [sparse], lr=lr),
    )


@pytest.mark.parametrize("block", [3, 2048])
def test_every_lookup_reads_what_dense_adam_would_have_there(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_embedding, "BLOCK", block)
    dense, sparse = pair()
    dense_adam, rows_adam = adams(dense, sparse)
    for step, batch in enumerate(batches(120)):
        if step == 70:  # as on a plateau: steps missed before it count with the old rate
            for optimizer in (dense_adam, rows_adam):
                optimizer.param_groups[0]["lr"] = 0.002
        expected = train(dense, dense_adam, batch)
        torch.testing.assert_close(train(sparse, rows_adam, batch), expected, rtol=1e-5, atol=2e-6)
    everything = torch.arange(N)
    before = sparse.weight.detach().clone()
    torch.testing.assert_close(sparse(everything), dense(everything), rtol=1e-5, atol=2e-6)
    assert sparse.weight.equal(before), "reading changed the table"
    assert not sparse.weight.allclose(dense.weight, atol=1e-3), "no row was behind"
    torch.testing.assert_close(sparse.state_dict()["weight"], dense.weight, rtol=1e-5, atol=2e-6)
    assert not sparse.weight[0].any()


def test_where_all_rows_are_read_nothing_differs() -> None:
    dense, sparse = pair()
    dense_adam, rows_adam = adams(dense, sparse)
    g = torch.Generator().manual_seed(3)
    for _ in range(20):
        batch = (torch.arange(1, N), torch.randn(N - 1, D, generator=g))
        train(dense, dense_adam, batch)
        train(sparse, rows_adam, batch)
    assert sparse.state_dict()["weight"].equal(dense.weight)


def test_a_row_may_rest_for_longer_than_the_horizon() -> None:
    """And the record of missed steps outgrows its first size."""
    dense, sparse = pair()
    dense_adam, rows_adam = adams(dense, sparse)
    steps = [(torch.tensor([5, 6]), torch.ones(2, D))]
    steps += [(torch.tensor([6]), torch.ones(1, D))] * (2 * sparse_embedding.HORIZON + 50)
    steps += [(torch.tensor([5, 7]), torch.ones(2, D))]
    for batch in steps:
        expected = train(dense, dense_adam, batch)
        torch.testing.assert_close(train(sparse, rows_adam, batch), expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 3e-8, 1e-6])
def test_gradients_near_eps_move_rows_by_nearly_as_much(scale: float) -> None:
    """Worst right at the start, with gradients of the size of eps: 5 % of the drift."""
    dense, sparse = pair()
    for table in (dense, sparse):
        nn.init.zeros_(table.weight)
    dense_adam, rows_adam = adams(dense, sparse)
    for index in ([3], *[[4]] * 30):
        batch = (torch.tensor(index), torch.full((1, D), scale))
        train(dense, dense_adam, batch)
        train(sparse, rows_adam, batch)
    moved = dense.weight[3].detach()
    assert moved.abs().min() > 0
    torch.testing.assert_close(sparse.state_dict()["weight"][3], moved, rtol=0.05, atol=0)


def test_the_state_is_that_of_dense_adam() -> None:
    """Either goes on from the other's; from its own the same to the last bit."""
    dense, sparse = pair()
    dense_adam, rows_adam = adams(dense, sparse)
    for batch in batches(30):
        train(dense, dense_adam, batch)
        train(sparse, rows_adam, batch)
    weights = copy.deepcopy(sparse.state_dict())  # as a resume file does, weights first
    state = copy.deepcopy(rows_adam.state_dict())
    assert state["state"][0].keys() == dense_adam.state_dict()["state"][0].keys()
    for name, value in dense_adam.state_dict()["state"][0].items():
        torch.testing.assert_close(state["state"][0][name], value, rtol=1e-5, atol=1e-6)
    other_dense, other_sparse = pair()
    other_dense.load_state_dict(weights)
    other_sparse.load_state_dict(weights)
    for optimizer in (others := adams(other_dense, other_sparse)):
        optimizer.load_state_dict(copy.deepcopy(state))
    for batch in batches(30, seed=2):
        train(sparse, rows_adam, batch)
        train(other_dense, others[0], batch)
        train(other_sparse, others[1], batch)
    assert other_sparse.state_dict()["weight"].equal(sparse.state_dict()["weight"])
    sparse.load_state_dict(weights)  # back to where it was
    rows_adam.load_state_dict(copy.deepcopy(state))
    for batch in batches(30, seed=2):
        train(sparse, rows_adam, batch)
    assert other_sparse.weight.equal(sparse.state_dict()["weight"])
    torch.testing.assert_close(other_dense.weight, sparse.weight, rtol=1e-5, atol=2e-6)


def test_loaded_weights_are_not_corrected() -> None:
    _, sparse = pair()
    rows_adam = RowAdam(sparse.parameters(), [sparse], lr=0.01)
    for batch in batches(30):
        train(sparse, rows_adam, batch)
    best = torch.randn(N, D)
    sparse.load_state_dict({"weight": best})
    assert sparse(torch.arange(N)).equal(best) and sparse.state_dict()["weight"].equal(best)
    train(sparse, rows_adam, next(batches(1)))  # and training goes on


def test_the_hooks_end_with_the_optimizer() -> None:
    _, sparse = pair()
    rows_adam = RowAdam(sparse.parameters(), [sparse], lr=0.01)
    for batch in batches(30):
        train(sparse, rows_adam, batch)
    gone = weakref.ref(rows_adam)
    del rows_adam  # its moments are as large as the table: they must not wait for a collection
    assert gone() is None
    left = sparse.weight.detach().clone()
    assert sparse(torch.arange(N)).equal(left) and sparse.state_dict()["weight"].equal(left)


def test_no_gradient_is_no_step() -> None:
    dense, sparse = pair()
    dense_adam, rows_adam = adams(dense, sparse)
    for index, gradient in batches(30):
        train(dense, dense_adam, (index, gradient * 0))
        train(sparse, rows_adam, (index, gradient * 0))  # a sparse gradient without any row
        dense_adam.step()
        rows_adam.step()
        train(dense, dense_adam, (index, gradient))
        train(sparse, rows_adam, (index, gradient))
    torch.testing.assert_close(sparse.state_dict()["weight"], dense.weight, rtol=1e-5, atol=2e-6)
    steps = [o.state_dict()["state"][0]["step"] for o in (dense_adam, rows_adam)]
    assert steps[0] == steps[1] == 60
