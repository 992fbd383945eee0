"""History: selections move indices only, windows follow the paper and each user's own items."""

import pytest
import torch

from model_zoo.history.history import History

from ...support.helpers import ragged_history


def test_embed_take_rows_last_agree_with_plain_indexing() -> None:
    history = ragged_history([0, 3, 7, 5], L=7, D=4)
    x_BLD = history.embed()
    assert torch.equal(x_BLD, history.rows_UD[history.index_BL])
    assert (
        torch.equal(history.embed_detached(), x_BLD) and not history.embed_detached().requires_grad
    )
    index_BK, mask_BK = torch.randint(7, (4, 3)), torch.rand(4, 3) > 0.5
    taken = history.take(index_BK, mask_BK)
    assert torch.equal(taken.embed(), x_BLD.gather(1, index_BK[:, :, None].expand(-1, -1, 4)))
    assert torch.equal(taken.mask_BL, mask_BK)
    assert torch.equal(history.samples(torch.tensor([2, 1])).embed(), x_BLD[[2, 1]])
    assert torch.equal(history.last(3).embed(), x_BLD[:, -3:])
    assert len(history.last(99)) == 7


def test_gradient_reaches_only_the_rows_that_are_read() -> None:
    history = ragged_history([6, 6], L=6, D=3)
    read = torch.tensor([[5, 1], [0, 0]])
    history.take(read, torch.ones(2, 2, dtype=torch.bool)).embed().sum().backward()
    touched = history.rows_UD.grad.abs().sum(1) > 0
    expected = torch.zeros(50, dtype=torch.bool)
    expected[history.index_BL.gather(1, read)] = True
    assert torch.equal(touched, expected)


def window_means(x_tD: torch.Tensor, size: int, stride: int, anchor: str) -> list[torch.Tensor]:
    """Windows of one bare history, written from paper 4.2."""
    t = len(x_tD)
    if t == 0:
        return []
    if t <= size:
        return [x_tD.mean(0)]
    if anchor == "start":
        starts = range(0, t - size + 1, stride)
    else:
        starts = range(t - size, -stride, -stride)
        starts = sorted(s for s in starts if s + size > 0 and (s >= 0 or s + stride > 0))
    return [x_tD[max(0, s) : s + size].mean(0) for s in starts]


@pytest.mark.parametrize("anchor", ["start", "end"])
@pytest.mark.parametrize(("size", "stride"), [(8, 4), (3, 3), (4, 1), (5, 2), (1, 1)])
def test_windows(anchor: str, size: int, stride: int) -> None:
    lengths = [0, 1, 2, 7, 8, 9, 12, 13, 23, 30]
    L = 30
    history = ragged_history(lengths, L, D=3)
    windows = history.windows(size, stride, anchor)
    x_BTD, mask_BT = windows.embed(), windows.mask_BL
    for b, t in enumerate(lengths):
        expected = window_means(history.embed()[b, L - t :], size, stride, anchor)
        assert int(mask_BT[b].sum()) == len(expected)
        assert torch.equal(mask_BT[b].sort().values, mask_BT[b])  # left padded
        for j, mean in enumerate(reversed(expected), start=1):
            torch.testing.assert_close(x_BTD[b, -j], mean)


def test_windows_do_not_depend_on_padding() -> None:
    bare = ragged_history([11], L=11, D=3)
    padded = History(
        bare.rows_UD,
        torch.cat([torch.randint(50, (1, 9)), bare.index_BL], dim=1),
        torch.cat([torch.zeros(1, 9, dtype=torch.bool), bare.mask_BL], dim=1),
    )
    for anchor in ("start", "end"):
        a, b = bare.windows(8, 4, anchor), padded.windows(8, 4, anchor)
        n = int(a.mask_BL.sum())
        assert int(b.mask_BL.sum()) == n
        assert torch.equal(a.embed()[:, -n:], b.embed()[:, -n:])


def test_end_anchor_leaves_no_item_out() -> None:
    history = ragged_history([13, 8, 5, 21], L=21, D=2)
    windows = history.windows(8, 4, "end")
    windows.embed()[windows.mask_BL].sum().backward()
    read = torch.zeros(50, dtype=torch.bool)
    read[history.index_BL[history.mask_BL]] = True
    assert torch.equal(history.rows_UD.grad.abs().sum(1) > 0, read)


def test_windows_of_windows_can_be_taken() -> None:
    history = ragged_history([20, 9], L=20, D=3)
    windows = history.windows(4, 2, "start")
    index_BK = torch.randint(len(windows), (2, 5))
    taken = windows.take(index_BK, torch.ones(2, 5, dtype=torch.bool))
    expected = windows.embed().gather(1, index_BK[:, :, None].expand(-1, -1, 3))
    torch.testing.assert_close(taken.embed(), expected)
