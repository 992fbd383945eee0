"""The theme router: eq. 2 in float64, its alternative, padding, and what gets gradient."""

import numpy as np
import pytest
import torch

from model_zoo.moe.mos import ThemeRouter


def equation_2(scores: np.ndarray, k: int) -> np.ndarray:
    """softmax(KeepTopK(scores, k)) of one item."""
    kept = np.full(scores.shape, -np.inf)
    best = np.argsort(scores)[-k:]
    kept[best] = scores[best]
    e = np.exp(kept - kept.max())
    return e / e.sum()


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_gates_are_equations_2_and_3(k: int, temperature: float) -> None:
    router = ThemeRouter(
        6, 5, router_topk=k, codebook_dim=4, router_temperature=temperature
    ).double()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    mask = torch.arange(7) >= 7 - torch.tensor([0, 4, 7])[:, None]
    weights = router(x, mask).weights_BTE.detach().numpy()
    W1, b1, W2, b2 = (p.detach().numpy() for p in router.h.parameters())
    codes = router.codebook.codes_EC.numpy()
    for b in range(3):
        for t in range(7):
            if not mask[b, t]:
                assert not weights[b, t].any()
                continue
            h = W2 @ np.maximum(W1 @ x[b, t].numpy() + b1, 0) + b2
            cosine = codes @ h / (np.linalg.norm(codes, axis=1) * np.linalg.norm(h))
            np.testing.assert_allclose(
                weights[b, t], equation_2(cosine / temperature, k), rtol=1e-10
            )


def test_softmax_topk_keeps_the_entries_of_the_full_softmax() -> None:
    router = ThemeRouter(6, 5, router_topk=2, router_weight="softmax_topk").double()
    x, mask = torch.randn(2, 3, 6, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    weights = router(x, mask).weights_BTE
    full = router.codebook.similarity(router.h(x)).softmax(-1)
    kept = weights > 0
    assert (kept.sum(-1) == 2).all()
    torch.testing.assert_close(weights[kept], full[kept])
    assert (full[~kept].view(2, 3, 3).amax(-1) <= weights[kept].view(2, 3, 2).amin(-1)).all()


@pytest.mark.parametrize(
    ("k", "weight", "trains"),
    [
        (1, "topk_softmax", False),
        (2, "topk_softmax", True),
        (1, "softmax_topk", True),
        (1, "straight_through", True),
    ],
)
def test_h_trains_unless_k_is_1_and_equation_2_literal(k: int, weight: str, trains: bool) -> None:
    router = ThemeRouter(6, 5, router_topk=k, router_weight=weight)
    weights = router(torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool)).weights_BTE
    assert weights.requires_grad == trains
    if trains:
        (weights * torch.randn_like(weights)).sum().backward()
        assert all(p.grad.abs().sum() > 1e-6 for p in router.h.parameters())


@pytest.mark.parametrize("k", [1, 2])
def test_straight_through_has_one_weight_and_the_gradient_of_the_other(k: int) -> None:
    found = {}
    x, mask = torch.randn(2, 3, 6, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    for weight in ("topk_softmax", "softmax_topk", "straight_through"):
        torch.manual_seed(0)
        router = ThemeRouter(6, 5, router_topk=k, router_weight=weight).double()
        weights = router(x, mask).weights_BTE
        if weights.requires_grad:
            (weights * torch.arange(1, 6)).sum().backward()
        found[weight] = weights, [p.grad for p in router.h.parameters()]
    assert torch.equal(found["straight_through"][0], found["topk_softmax"][0])
    for a, b in zip(found["straight_through"][1], found["softmax_topk"][1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "bad",
    [
        {"router_topk": 6},
        {"router_topk": 0},
        {"router_weight": "softmax"},
        {"router_temperature": 0.0},
    ],
)
def test_bad_settings_are_explained(bad: dict) -> None:
    with pytest.raises(ValueError, match="router_"):
        ThemeRouter(6, 5, **bad)
