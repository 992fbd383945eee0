"""Rows read where they lie against gathered ones: values, gradients, degenerate shapes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.history import history as history_module
from model_zoo.history.history import History
from model_zoo.history.rows import RowTable, gather_rows, stable_order
from model_zoo.ops.functional import attend

from ...support.helpers import build_model, gather_always, random_batch, tiny_params

LENGTHS = [0, 3, 9, 1, 5, 0, 9]
L, D = 9, 6


def make(U: int, H: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Rows, queries, weights, indices with repetitions, and the mask of left-padded histories."""
    g = torch.Generator().manual_seed(U + H)
    B = len(LENGTHS)
    rows_UD = torch.randn(U, D, generator=g, dtype=dtype).requires_grad_()
    query_BHD = torch.randn(B, H, D, generator=g, dtype=dtype).requires_grad_()
    mask_BL = torch.arange(L) >= L - torch.tensor(LENGTHS)[:, None]
    weights_BHL = torch.randn(B, H, L, generator=g, dtype=dtype) * mask_BL[:, None]
    return rows_UD, query_BHD, weights_BHL.requires_grad_(), mask_BL


def index(U: int) -> Tensor:
    return torch.randint(U, (len(LENGTHS), L), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("H", [1, 2, 3])
@pytest.mark.parametrize("U", [1, 4, 40])
def test_equals_gathering(U: int, H: int, dtype: torch.dtype) -> None:
    """Fewer rows than positions take a way of their own; U = 1 shows one row everywhere."""
    rows_UD, query_BHD, weights_BHL, mask_BL = make(U, H, dtype)
    inputs = [rows_UD, query_BHD, weights_BHL]

    def ours() -> list[Tensor]:
        table, positions = RowTable(rows_UD), index(U)
        pooled_BHD, total_BH = History(table, positions, mask_BL).attend(query_BHD)
        return [
            pooled_BHD,
            total_BH,
            table.weighted_sum(weights_BHL, positions),
            table.gather(positions),
            gather_rows(rows_UD, positions),
        ]

    def gathered() -> list[Tensor]:
        x_BLD = F.embedding(index(U), rows_UD)
        return [*attend(query_BHD, x_BLD, mask_BL), weights_BHL @ x_BLD, x_BLD, x_BLD]

    found = []
    for outputs in (ours(), gathered()):
        loss = sum(y.sin().sum() for y in outputs)
        found.append([*outputs, *torch.autograd.grad(loss, inputs)])
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=tolerance, atol=tolerance)
    assert not ours()[0][0].any()  # without history exact zeros


def test_gradients_by_finite_differences() -> None:
    rows_UD, query_BHD, weights_BHL, mask_BL = make(40, 2)

    def outputs(rows: Tensor, query: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        history = History(rows, index(40), mask_BL)
        windows = history.windows(3, 2, "start")
        return (
            *history.attend(query),
            history.weighted_sum(weights),
            windows.drop_hidden_windows().attend(query)[0],
            windows.embed(),
            windows.rows_UD,
        )

    assert torch.autograd.gradcheck(outputs, (rows_UD, query_BHD, weights_BHL))


@pytest.mark.parametrize("anchor", ["start", "end"])
def test_in_place_or_gathered_is_the_same(anchor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU reads few vectors in place; many, and a GPU, gather. Windows of windows included."""
    rows_UD, query_BHD, weights_BHL, mask_BL = make(40, 2)

    def outputs() -> list[Tensor]:
        history = History(rows_UD, index(40), mask_BL)
        windows = history.windows(3, 2, anchor)
        wider = windows.windows(2, 1, anchor)
        pooled = [
            x.attend(query_BHD)[0] for x in (history, windows, windows.drop_hidden_windows(), wider)
        ]
        values = [*pooled, history.weighted_sum(weights_BHL)]
        inputs = [rows_UD, query_BHD, weights_BHL]
        return [*values, *torch.autograd.grad(sum(y.sin().sum() for y in values), inputs)]

    here = outputs()
    monkeypatch.setattr(history_module, "FEW_QUERIES", 0)
    many = outputs()
    gather_always(monkeypatch)
    for own, *wanted in zip(here, many, outputs(), strict=True):
        for one in wanted:
            torch.testing.assert_close(own, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["TWIN_MoS", "SDIM_GShard", "TransAct", "TransAct_MoS", "MIRRN"])
def test_a_model_that_gathers_is_the_same(
    name: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU, on this machine."""
    last_only = {"concat_max_pool": False} if name.startswith("TransAct") else {}
    model = build_model(tiny_params(tiny_data, name, **last_only)).eval().double()
    batch = random_batch(model.feature_map, LENGTHS, L=L, num_items=60)
    found = []
    for here in (True, False):
        if not here:
            gather_always(monkeypatch)
        model.zero_grad()
        model(batch)["logit"].sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([model(batch)["logit"].detach(), *gradients])
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-9, atol=1e-9)


def test_windows_that_no_position_shows_can_be_dropped() -> None:
    rows_UD, *_, mask_BL = make(40, 1)
    windows = History(rows_UD, index(40), mask_BL).windows(3, 2, "start")
    newest = windows.last(1)
    assert newest.drop_hidden_windows().num_rows < windows.num_rows
    real = newest.mask_BL
    assert torch.equal(newest.drop_hidden_windows().embed()[real], newest.embed()[real])
    nothing = windows.samples(torch.tensor([0, 5])).drop_hidden_windows()
    assert nothing.num_rows == 1 and not nothing.mask_BL.any()


@pytest.mark.parametrize("U", [4, 40])
def test_a_layer_of_windows_may_be_computed_from_the_items(U: int) -> None:
    """It is where there are fewer items than windows."""
    rows_UD, *_, mask_BL = make(U, 1)
    windows = History(rows_UD, index(U), mask_BL).windows(3, 2, "start")
    for bias in (True, False):
        layer = torch.nn.Linear(D, 4, bias=bias).double()
        wanted = layer(windows.rows_UD.detach())
        real = windows.rows_UD.detach().any(1)
        found = windows.linear_of_rows(layer)
        torch.testing.assert_close(found[real], wanted[real], rtol=1e-9, atol=1e-9)


def test_dropout_drops_weights_and_keeps_their_mean() -> None:
    rows_UD, query_BHD, _, mask_BL = make(40, 1)
    many = 4_000
    query = query_BHD[2:3].expand(many, -1, -1)
    history = History(rows_UD, index(40)[2:3].expand(many, -1), mask_BL[2:3].expand(many, -1))
    torch.manual_seed(0)
    pooled_BHD, total_BH = history.attend(query, dropout=0.5)
    kept_BHD, one_BH = history.samples(slice(1)).attend(query[:1])
    assert len(total_BH.unique()) > 100
    torch.testing.assert_close(total_BH.mean(0), one_BH[0], rtol=0.05, atol=0.0)
    torch.testing.assert_close(pooled_BHD.mean(0), kept_BHD[0], rtol=0.1, atol=0.05)
    # The gradient has the same factors as the value.
    torch.manual_seed(0)
    leaf = query.detach().requires_grad_()
    loss = history.attend(leaf, dropout=0.5)[0].sum()
    step = 1e-6 * torch.randn_like(leaf)
    slope = (torch.autograd.grad(loss, leaf)[0] * step).sum()
    torch.manual_seed(0)
    moved = history.attend(leaf + step, dropout=0.5)[0].sum()
    torch.testing.assert_close(moved - loss, slope, rtol=1e-3, atol=1e-9)


def test_no_samples_and_no_positions_read_nothing() -> None:
    rows_UD, query_BHD, weights_BHL, mask_BL = make(40, 2)
    nobody = History(rows_UD, index(40), mask_BL).samples(slice(0))
    assert nobody.embed().shape == (0, L, D)
    assert nobody.attend(query_BHD[:0])[0].shape == (0, 2, D)
    assert nobody.weighted_sum(weights_BHL[:0]).shape == (0, 2, D)
    assert nobody.lookup(index(40)[:0, 0]).shape == (0, D)
    assert History(rows_UD, index(40)[:, :0], mask_BL[:, :0]).embed().shape == (len(LENGTHS), 0, D)


def test_frozen_rows_get_no_gradient_and_queries_do() -> None:
    rows_UD, query_BHD, _, mask_BL = make(40, 1)
    history = History(rows_UD.detach(), index(40), mask_BL)
    history.attend(query_BHD)[0].sum().backward()
    assert query_BHD.grad.any()
    with torch.no_grad():
        assert not History(rows_UD, index(40), mask_BL).attend(query_BHD)[0].requires_grad


def test_a_table_serves_several_backward_passes() -> None:
    rows_UD, query_BHD, _, mask_BL = make(40, 1)
    history = History(rows_UD, index(40), mask_BL)
    once = torch.autograd.grad(history.attend(query_BHD)[0].sum(), rows_UD)[0]
    again = torch.autograd.grad(history.attend(query_BHD)[0].sum(), rows_UD)[0]
    assert torch.equal(once, again)


def test_a_part_of_the_gradient_is_never_mixed_into_another() -> None:
    rows_UD, query_BHD, _, mask_BL = make(40, 1)
    history = History(rows_UD, index(40), mask_BL)
    windows = history.windows(3, 2, "start")
    loss = history.attend(query_BHD)[0].sum() + windows.attend(query_BHD)[0].sum()
    both = torch.autograd.grad(loss, [query_BHD, rows_UD], retain_graph=True)
    for leaf, wanted in zip(
        (query_BHD, query_BHD, rows_UD, query_BHD, rows_UD), (*both[:1], *both, *both), strict=True
    ):
        found = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("rows", [1, 7, 2**15, 2**15 + 1, 2**31 + 5])
def test_rows_are_sorted_in_order_however_many_there_are(rows: int) -> None:
    row_P = torch.randint(rows, (500,), generator=torch.Generator().manual_seed(rows))
    row_P = torch.cat([row_P, row_P[:100], torch.tensor([0, rows - 1])])
    assert torch.equal(stable_order(row_P, rows), row_P.argsort(stable=True))
