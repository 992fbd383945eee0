"""The codebook: eq. 3 and eq. 4 in float64, empty codes, accumulation, several processes."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from model_zoo.moe.codebook import Codebook, bounded_clusters, kmeans_centres


def test_similarity_is_equation_3() -> None:
    book = Codebook(4, 3).double()
    h = torch.randn(5, 3, dtype=torch.float64)
    W, x = book.codes_EC.numpy(), h.numpy()
    for i in range(5):
        scale = np.linalg.norm(x[i]) * np.sqrt(np.diag(np.diag(W @ W.T)).diagonal())
        expected = np.linalg.inv(np.diag(scale)) @ (W @ x[i])
        np.testing.assert_allclose(book.similarity(h[i]).numpy(), expected, rtol=1e-12)
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    cosines = book.similarity(zero)
    assert torch.equal(cosines, torch.zeros(1, 4))
    cosines.sum().backward()
    assert zero.grad.abs().max() <= 4


def test_step_is_equation_4_and_an_empty_code_keeps_its_row() -> None:
    book = Codebook(3, 2, decay=0.9).double()
    before = book.codes_EC.clone()
    h = torch.randn(6, 2, dtype=torch.float64)
    sent = torch.tensor(
        [[2.0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0], [3, 0, 0], [0, 0, 1]]
    ).double()
    book.observe(h[:4], sent[:4])
    book.observe(h[4:], sent[4:])  # accumulated batches are one step
    assert torch.equal(book.codes_EC, before)  # routing uses the codes of before the step
    book.step()
    for e in (0, 2):
        items = np.repeat(h.numpy(), sent[:, e].int().numpy(), axis=0)
        expected = 0.9 * before[e].numpy() + 0.1 * items.mean(0)
        np.testing.assert_allclose(book.codes_EC[e].numpy(), expected, rtol=1e-12)
    assert torch.equal(book.codes_EC[1], before[1])
    after = book.codes_EC.clone()
    book.step()  # nothing observed since
    assert torch.equal(book.codes_EC, after)


def test_codes_travel_in_the_state_dict_and_have_no_gradient() -> None:
    book, other = Codebook(3, 2), Codebook(3, 2)
    assert list(book.state_dict()) == ["codes_EC"] and not list(book.parameters())
    other.load_state_dict(book.state_dict())
    assert torch.equal(book.codes_EC, other.codes_EC)


def test_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codebook_decay=1\.5"):
        Codebook(2, 2, decay=1.5)


def _rank(rank: int, store: str, h: torch.Tensor, sent: torch.Tensor, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    book = Codebook(3, 2, decay=0.5, revive_after=1)
    part = slice(0, 1) if rank == 0 else slice(1, None)  # very different sizes
    book.observe(h[part], sent[part])
    book.step()
    torch.save(book.codes_EC, f"{out}{rank}")
    torch.distributed.destroy_process_group()


def test_ranks_share_sums_and_counts(tmp_path) -> None:
    h, sent = torch.randn(7, 2), torch.randint(0, 2, (7, 3)).float()
    sent[:, 2] = 0  # a dead code, which all ranks put on the same item
    out = str(tmp_path / "codes")
    mp.spawn(_rank, (str(tmp_path / "store"), h, sent, out), nprocs=2)
    torch.manual_seed(0)
    alone = Codebook(3, 2, decay=0.5, revive_after=1)
    alone.observe(h, sent)
    alone.step()
    for rank in range(2):
        torch.testing.assert_close(torch.load(f"{out}{rank}"), alone.codes_EC)


def test_an_idle_code_is_put_on_the_farthest_item_of_the_fullest_theme() -> None:
    """Whatever the order of the items, and only after so many steps with items."""
    for order in (torch.arange(5), torch.tensor([3, 1, 4, 0, 2])):
        book = Codebook(4, 2, decay=1.0, revive_after=3)
        book.load(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
        h = torch.tensor([[2.0, 0.1], [3.0, 1.5], [1.0, -0.2], [0.1, 1.0], [-0.1, 0.4]])[order]
        sent = torch.tensor([[3.0, 0, 0, 0]] * 3 + [[0, 1.0, 0, 0]] * 2)[order]
        first, last = book.codes_EC[:2].clone(), book.codes_EC[3].clone()
        for step in range(3):
            assert torch.equal(book.codes_EC[2], torch.tensor([-1.0, 0.0])), step
            book.step()  # without items, which does not count
            book.observe(h[:2], sent[:2])
            book.observe(h[2:], sent[2:])  # accumulated batches are one step
            book.step()
        assert torch.equal(book.codes_EC[2], torch.tensor([3.0, 1.5]))
        assert torch.equal(book.codes_EC[3], last)  # one code a step
        assert torch.equal(book.codes_EC[:2], first)
        book.observe(h, sent)
        book.step()
        assert torch.equal(book.codes_EC[3], torch.tensor([3.0, 1.5]))
    assert list(book.state_dict()) == ["codes_EC", "idle_E"]  # a resumed run goes on counting
    with pytest.raises(ValueError, match="revive_after=-1"):
        Codebook(2, 2, revive_after=-1)


def test_balanced_kmeans_bounds_the_clusters() -> None:
    """One big and two small heaps: no cluster has more than a third and the tolerance."""
    torch.manual_seed(0)
    heaps = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    h = torch.cat([torch.randn(n, 2) + heap for n, heap in zip((800, 60, 40), heaps, strict=True)])
    plain, balanced = (kmeans_centres(h, 3, 5, 0, how) for how in (False, True))
    sizes = [torch.cdist(h.double(), c).argmin(1).bincount().max() for c in (plain, balanced)]
    assert sizes[0] == 800
    label_N = bounded_clusters(torch.cdist(h.double(), balanced) ** 2, room=330)
    assert label_N.bincount(minlength=3).max() <= 330 and sizes[1] < 600
    means = torch.stack([h[label_N == e].double().mean(0) for e in range(3)])
    torch.testing.assert_close(means, balanced, atol=0.05, rtol=0)
    # Against the best of all assignments of small cases, each cluster of at most 3 of 6 vectors.
    labels = torch.cartesian_prod(*[torch.arange(2)] * 6)
    labels = labels[labels.sum(1) == 3]
    for cost in torch.rand(9, 6, 2):
        best = labels[cost[torch.arange(6), labels].sum(1).argmin()]
        assert torch.equal(bounded_clusters(cost.clone(), 3), best)
