"""The selective scan: every form equals a float64 evaluation in numpy, gradients those of autograd."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from model_zoo.layers import mamba_kernel
from model_zoo.layers import selective_scan as module
from model_zoo.layers.selective_scan import (
    selective_scan,
    selective_scan_last,
    selective_scan_reference,
)

Scan = Callable[..., Tensor]
LENGTHS = [1, 2, 31, 32, 33, 200, 2000]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest number


def random_inputs(
    B: int, L: int, E: int, N: int, dtype: torch.dtype = torch.float64, step: float = 0.3
) -> list[Tensor]:
    """u, delta, A, B, C, D as leaves; steps are exponentially distributed around ``step``."""
    g = torch.Generator().manual_seed(1000 * L + N)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    delta = step * -torch.rand(B, L, E, generator=g, dtype=torch.float64).log()
    A = -torch.arange(1, N + 1) * (1 + 0.1 * normal(E, N).abs())
    inputs = [normal(B, L, E), delta, A, normal(B, L, N), normal(B, L, N), normal(E)]
    return [x.to(dtype).requires_grad_() for x in inputs]


def numpy_scan(*inputs: Tensor) -> np.ndarray:
    """The recurrence in float64, by the words of its definition."""
    u, delta, A, B, C, D = (x.detach().double().numpy() for x in inputs)
    y = np.empty_like(u)
    h = np.zeros((len(u), *A.shape))
    for t in range(u.shape[1]):
        step = delta[:, t, :, None]
        h = np.exp(step * A) * h + step * u[:, t, :, None] * B[:, t, None, :]
        y[:, t] = (C[:, t, None, :] * h).sum(-1) + D * u[:, t]
    return y


def assert_near(found: Tensor, wanted: Tensor | np.ndarray, tolerance: float) -> None:
    wanted = torch.as_tensor(wanted).detach().double()
    assert found.shape == wanted.shape
    difference = (found.detach().double() - wanted).abs().max()
    assert difference <= tolerance * wanted.abs().max().clamp(min=1e-30), float(difference)


def gradients(scan: Scan, inputs: list[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((scan(*inputs) * weights).sum(), inputs)


def check(inputs: list[Tensor]) -> None:
    """Outputs against numpy, gradients against autograd through the reference in float64."""
    tolerance = TOLERANCE[inputs[0].dtype]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y = numpy_scan(*inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_near(selective_scan_reference(*exact), y, 1e-9)
    for scan, newest in ((selective_scan, slice(None)), (selective_scan_last, -1)):
        assert_near(scan(*inputs), y[:, newest], tolerance)
        weight = torch.zeros_like(weights)  # of the outputs that the scan gives
        weight[:, newest] = weights[:, newest]
        found = gradients(scan, inputs, weight[:, newest].to(inputs[0].dtype))
        for a, b in zip(found, gradients(selective_scan_reference, exact, weight), strict=True):
            assert_near(a, b, tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("L", LENGTHS)
def test_outputs_and_gradients(L: int, dtype: torch.dtype) -> None:
    check(random_inputs(3, L, 5, 4, dtype))


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("N", [4, 16, 64])
@pytest.mark.parametrize("step", [1e-3, 0.1, 5.0, 50.0])
def test_any_state_and_step(N: int, step: float, dtype: torch.dtype) -> None:
    inputs = random_inputs(2, 70, 3, N, dtype, step)
    assert step < 50 or (inputs[1][..., None] * inputs[2]).exp().eq(0).any()  # it does underflow
    check(inputs)


@pytest.mark.parametrize("size", [1, 60, 1000])
def test_many_tiles(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work buffers so small that samples and positions come in several parts, the last one short."""
    monkeypatch.setitem(module.BUFFER_SIZE, "cpu", size)
    monkeypatch.setattr(module, "STEPS", 5)
    check(random_inputs(7, 13, 3, 4))


def test_a_small_last_step_next_to_large_sums() -> None:
    """In float32 the steps after a position must not be a difference of two large sums."""
    inputs = random_inputs(2, 500, 3, 4, torch.float32, step=50.0)
    inputs[1].data[:, -20:] = 1e-3
    check(inputs)


@pytest.mark.parametrize("scan", [selective_scan, selective_scan_last, selective_scan_reference])
def test_padding_changes_nothing(scan: Scan) -> None:
    u, delta, A, B, C, D = random_inputs(3, 40, 5, 4)
    bare = [u[:, 21:], delta[:, 21:], A, B[:, 21:], C[:, 21:], D]
    real = (torch.arange(40) >= 21)[None, :, None]
    padded, wanted = scan(u * real, delta * real, A, B, C, D), scan(*bare)
    newest = padded if padded.dim() == 2 else padded[:, 21:]
    torch.testing.assert_close(newest, wanted, rtol=1e-12, atol=1e-13)
    for a, b in zip(
        torch.autograd.grad(newest.sum(), [u, delta, A, B]),
        torch.autograd.grad(wanted.sum(), [u, delta, A, B]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scan", [selective_scan, selective_scan_last])
def test_gradcheck(scan: Scan) -> None:
    assert torch.autograd.gradcheck(scan, random_inputs(2, 4, 3, 2))


@pytest.mark.parametrize("scan", [selective_scan, selective_scan_last])
def test_layouts_and_options(scan: Scan) -> None:
    """Without D, without gradients, without samples, and of inputs that are not contiguous."""
    inputs = random_inputs(4, 37, 6, 5)
    wanted = scan(*inputs)
    u, delta, A, B, C, D = inputs
    skip = D * u if wanted.dim() == 3 else D * u[:, -1]
    torch.testing.assert_close(scan(u, delta, A, B, C), wanted - skip)
    with torch.no_grad():
        assert torch.equal(scan(*inputs), wanted)
    strided = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs[:5]]
    torch.testing.assert_close(scan(*strided, D), wanted)
    for a, b in zip(
        gradients(scan, [*strided, D], torch.ones_like(wanted)),
        gradients(scan, inputs, torch.ones_like(wanted)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    empty = scan(u[:0], delta[:0], A, B[:0], C[:0], D)
    assert empty.shape == (0, *wanted.shape[1:])
    empty.sum().backward()


@pytest.mark.parametrize("scan", [selective_scan, selective_scan_last])
def test_half_types(scan: Scan) -> None:
    """bfloat16 in and out, computed in float32: one rounding at the end, also under autocast."""
    inputs = [x.detach().bfloat16().requires_grad_() for x in random_inputs(3, 70, 5, 16)]
    wanted = scan(*(x.float() for x in inputs)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scan(*inputs)
        mixed = scan(*(x.float() for x in inputs))
    assert y.dtype == torch.bfloat16 and mixed.dtype == torch.float32
    assert torch.equal(y, wanted) and torch.equal(mixed.bfloat16(), wanted)
    y.float().sum().backward()
    assert all(x.grad.dtype == x.dtype and x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("with_D", [True, False])
def test_mamba_gets_its_layout(with_D: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``mamba_ssm`` asks for: positions last, one type, A and D in float32, no softplus."""

    def kernel(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert not delta_softplus and z is None and delta_bias is None
        assert u.dtype == delta.dtype == B.dtype == C.dtype and A.dtype == torch.float32
        assert u.shape == delta.shape == (3, 5, 7) and B.shape == C.shape == (3, 4, 7)
        return selective_scan_reference(u.mT, delta.mT, A, B.mT, C.mT, D).mT

    inputs = random_inputs(3, 7, 5, 4, torch.float32)
    if not with_D:
        inputs[-1] = None
    wanted = selective_scan_reference(*inputs)
    torch.testing.assert_close(mamba_kernel.call_mamba(kernel, *inputs), wanted)
    monkeypatch.setattr(module, "kernel_for", lambda u, A, dtype: kernel)
    torch.testing.assert_close(selective_scan(*inputs), wanted)
    torch.testing.assert_close(selective_scan_last(*inputs), wanted[:, -1])
    u, *others = inputs
    half = mamba_kernel.call_mamba(kernel, u.bfloat16(), *others)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.03, atol=0.1)


def test_mamba_is_found_with_its_kernel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    find = mamba_kernel.mamba_kernel.__wrapped__
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)  # as if it were not installed
    assert find() is None
    ops = ModuleType("mamba_ssm.ops")
    ops.selective_scan_interface = interface = ModuleType("selective_scan_interface")
    interface.selective_scan_fn = selective_scan
    monkeypatch.setitem(sys.modules, "mamba_ssm", ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, ops.__name__, ops)
    assert find() is None
    interface.selective_scan_cuda = object()
    assert find() is selective_scan
