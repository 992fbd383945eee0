"""Alpha-entmax against closed forms, a bisection in numpy and numerical gradients (float64)."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_zoo.layers.entmax import entmax

ALPHAS = [1, 1.001, 1.3, 1.5, 2, 3, 8]


def sparsemax(x: NDArray) -> NDArray:
    """Alpha 2 in closed form: the threshold from the sorted scores."""
    ordered = np.sort(x)[::-1]
    thresholds = (ordered.cumsum() - 1) / np.arange(1, len(x) + 1)
    return np.maximum(x - thresholds[ordered > thresholds][-1], 0)


def by_root(x: NDArray, alpha: float) -> NDArray:
    """Any alpha > 1 by its definition, the threshold by bisection from a wide bracket."""
    low, high = (alpha - 1) * x.min() - 1, (alpha - 1) * x.max()
    for _ in range(200):
        t = (low + high) / 2
        p = np.maximum((alpha - 1) * x - t, 0) ** (1 / (alpha - 1))
        low, high = (t, high) if p.sum() > 1 else (low, t)
    return p


def random_case() -> tuple[torch.Tensor, torch.Tensor]:
    scores = 2 * torch.randn(6, 9, dtype=torch.float64)
    mask = torch.rand(6, 9) < 0.7
    mask[0], mask[1] = False, torch.arange(9) == 4
    return scores, mask


def test_equals_sparsemax_and_the_root_on_real_positions() -> None:
    torch.manual_seed(0)
    scores, mask = random_case()
    for alpha in (1.01, 1.3, 1.5, 2, 3, 8):
        p = entmax(scores, mask, alpha)
        for row in range(1, len(scores)):
            x = scores[row][mask[row]].numpy()
            plain = by_root(x, alpha)
            np.testing.assert_allclose(p[row][mask[row]].numpy(), plain, rtol=0, atol=1e-9)
            if alpha == 2:
                np.testing.assert_allclose(plain, sparsemax(x), rtol=0, atol=1e-12)
    softmax = scores[2][mask[2]].softmax(0)
    torch.testing.assert_close(entmax(scores, mask, 1)[2][mask[2]], softmax)
    near_softmax = entmax(scores, mask, 1 + 1e-10)[2][mask[2]]
    torch.testing.assert_close(near_softmax, softmax, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_positions_and_rows_are_exact_zeros(alpha: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    scores, mask = random_case()
    scores = scores.to(dtype).requires_grad_()
    p = entmax(scores, mask, alpha)
    assert torch.equal(p[~mask], torch.zeros_like(p[~mask]))
    torch.testing.assert_close(p.sum(-1), mask.any(-1).to(dtype))
    noise = torch.where(mask, scores, 1e4 * torch.randn_like(scores))
    assert torch.equal(entmax(noise, mask, alpha), p)  # what padding holds does not matter
    (p * torch.randn_like(p)).sum().backward()
    assert torch.isfinite(scores.grad).all()
    assert torch.equal(scores.grad[~mask], torch.zeros_like(scores.grad[~mask]))


@pytest.mark.parametrize("alpha", [1, 1.001, 1.3, 1.5, 2, 3])
def test_gradient(alpha: float) -> None:
    torch.manual_seed(2)
    scores, mask = random_case()
    torch.autograd.gradcheck(lambda x: entmax(x, mask, alpha), scores.requires_grad_())


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[1e30, -1e30, 0.0], [3e38, 3e38, -3e38], [0.0, 0.0, 0.0]])
    scores.requires_grad_()
    mask = torch.ones(3, 3, dtype=torch.bool)
    for alpha in ALPHAS:
        p = entmax(scores, mask, alpha)
        expected = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3])
        torch.testing.assert_close(p, expected)
        (grad,) = torch.autograd.grad((p * torch.tensor([1.0, -2, 3])).sum(), scores)
        assert torch.isfinite(grad).all()


def test_bad_alpha_is_explained() -> None:
    for alpha in (0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="is no alpha of entmax"):
            entmax(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), alpha)
