"""What a batch reads of its tables: the distinct items, and sparse gradients."""

import pytest
import torch
from torch import nn

from model_zoo.history.item_dict import ItemDict
from model_zoo.training.sparse_embedding import use_sparse_gradient


@pytest.mark.parametrize("num_items", [5, 40, 10_000])
def test_distinct_items_come_in_the_order_of_the_table(num_items: int) -> None:
    """However they are found: of a large table by sorting, of a small one by marking."""
    torch.manual_seed(num_items)
    tables = {"id": torch.randperm(num_items), "image": torch.randn(num_items, 3)}
    items = ItemDict(tables, torch.randint(num_items, (6, 5)))
    columns, row = items.distinct()
    present = sorted(set(items.index.flatten().tolist()))
    for name, table in tables.items():
        assert columns[name].equal(table[present])
        assert columns[name][row].flatten(0, 1).equal(items[name])
    assert row.shape == items.index.shape


@pytest.mark.parametrize("padding", [None, 0, 4])
def test_a_sparse_gradient_holds_the_rows_that_count(padding: int | None) -> None:
    torch.manual_seed(0)
    plain = nn.Embedding(12, 3, padding_idx=padding)
    table = nn.Embedding(12, 3, padding_idx=padding)
    table.load_state_dict(plain.state_dict())
    use_sparse_gradient(table)
    index = torch.tensor([[0, 4], [7, 7], [2, 9]])
    weights = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]])[..., None]  # row 2 is not read
    for model in (plain, table):
        (model(index).square() * weights).sum().backward()
    assert table.weight.grad.is_sparse
    torch.testing.assert_close(table.weight.grad.to_dense(), plain.weight.grad)
    rows = set(table.weight.grad.coalesce().indices()[0].tolist())
    assert rows == {0, 4, 7, 9} - {padding}


def test_a_nan_is_no_zero() -> None:
    table = nn.Embedding(5, 2)
    use_sparse_gradient(table)
    (table(torch.tensor([1, 3])) * torch.tensor([[torch.nan], [0.0]])).sum().backward()
    assert table.weight.grad.coalesce().indices().tolist() == [[1]]
