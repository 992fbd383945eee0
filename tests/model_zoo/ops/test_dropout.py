"""Dropout draws what torch's does: the rate, independence, scale, and nothing in evaluation."""

import pytest
import torch

from model_zoo.ops.dropout import Dropout, keep_factors


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    factors = keep_factors(torch.empty(301, 997, dtype=torch.float64), rate)
    kept = factors > 0
    assert (
        abs(float(kept.double().mean()) - (1 - rate))
        < 4 * (rate * (1 - rate) / kept.numel()) ** 0.5
    )
    assert torch.allclose(factors[kept], torch.tensor(1 / (1 - rate)).double(), rtol=1e-3)
    # Neighbours come from one random word: they must not depend on each other.
    flat = kept.flatten().double() - (1 - rate)
    for distance in (1, 2, 3, 4, 64):
        together = float((flat[distance:] * flat[:-distance]).mean()) / (rate * (1 - rate))
        assert abs(together) < 4 / kept.numel() ** 0.5


def test_gradient_and_modes() -> None:
    layer = Dropout(0.5)
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(1)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not Dropout(1.0)(x).any()
    assert layer.train()(x[:0]).shape == (0, 5)
