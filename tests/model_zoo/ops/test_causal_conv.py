"""The causal depthwise convolution equals torch's, in outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.ops.causal_conv import causal_conv


def random_inputs(B: int, L: int, E: int, K: int) -> list[Tensor]:
    """x, taps and bias as leaves, in float64."""
    shapes = [(B, L, E), (E, K), (E,)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def torch_conv(x_BLE: Tensor, taps_EK: Tensor, bias_E: Tensor) -> Tensor:
    E, K = taps_EK.shape
    padded_BEL = F.pad(x_BLE.mT, (K - 1, 0))
    return F.conv1d(padded_BEL, taps_EK[:, None], bias_E, groups=E).mT


@pytest.mark.parametrize("K", [1, 2, 4, 7])
@pytest.mark.parametrize("B, L", [(1, 1), (3, 2), (9, 5), (20, 33), (0, 5)])
def test_equals_torch(B: int, L: int, K: int) -> None:
    """Also of inputs shorter than the taps, and of no samples."""
    inputs = random_inputs(B, L, 3, K)
    found, wanted = causal_conv(*inputs), torch_conv(*inputs)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_half_inputs_are_convolved_in_float32() -> None:
    """As under autocast, where x comes from a matrix product and the taps are parameters."""
    x, taps, bias = (x.detach().float() for x in random_inputs(4, 10, 3, 4))
    found = causal_conv(x.bfloat16(), taps, bias)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch_conv(x.bfloat16().float(), taps, bias))
