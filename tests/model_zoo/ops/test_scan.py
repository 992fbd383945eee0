"""The selective scan: every form equals a float64 evaluation in numpy, gradients those of autograd."""

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from model_zoo.ops import scan as module
from model_zoo.ops import scan_buffers as scan_parts
from model_zoo.ops import scan_last as final_state
from model_zoo.ops.scan import selective_scan, selective_scan_reference

Scan = Callable[..., Tensor]
LENGTHS = [1, 2, 31, 32, 33, 200, pytest.param(2000, marks=pytest.mark.slow)]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative to the largest number


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
    assert difference <= tolerance * wanted.abs().max(), float(difference)


def last(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *others: Tensor) -> Tensor:
    """The newest output, of the arguments for all outputs."""
    return selective_scan(u, delta, A, B, C[:, -1:], *others, last=True)


SCANS = [selective_scan, last]


def gradients(scan: Scan, inputs: list[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((scan(*inputs) * weights).sum(), inputs)


def masked_reference(mask: Tensor | None, u: Tensor, delta: Tensor, *others: Tensor) -> Tensor:
    delta = delta if mask is None else delta * mask[:, :, None]
    return selective_scan_reference(u, delta, *others)


def check(inputs: list[Tensor], mask: Tensor | None = None) -> None:
    """Outputs against numpy, gradients against autograd through the reference in float64."""
    tolerance = TOLERANCE[inputs[0].dtype]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    u, delta, *others = inputs
    y = numpy_scan(u, delta if mask is None else delta * mask[:, :, None], *others)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_near(masked_reference(mask, *exact), y, 1e-9)
    for scan, newest in ((selective_scan, slice(None)), (last, slice(-1, None))):
        assert_near(scan(*inputs, mask), y[:, newest], tolerance)
        weight = torch.zeros_like(weights)  # of the outputs that the scan gives
        weight[:, newest] = weights[:, newest]

        def masked(*inputs: Tensor, scan: Scan = scan) -> Tensor:
            return scan(*inputs, mask)

        found = gradients(masked, inputs, weight[:, newest].to(inputs[0].dtype))
        for a, b in zip(
            found, gradients(partial(masked_reference, mask), exact, weight), strict=True
        ):
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
    monkeypatch.setattr(scan_parts, "SIZE_PER_THREAD", size)
    monkeypatch.setattr(module, "STEPS_ON_CPU", 5)
    monkeypatch.setattr(final_state, "POSITIONS", 5)
    check(random_inputs(7, 13, 3, 4))


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("step", [0.3, 20.0])
def test_masks(step: float, dtype: torch.dtype) -> None:
    """Ragged histories and an empty one, and a mask with holes, some of them in all samples."""
    g = torch.Generator().manual_seed(0)
    ragged = torch.arange(70) >= 70 - torch.tensor([0, 1, 5, 33, 70, 70])[:, None]
    holes = torch.rand(6, 70, generator=g) < 0.5
    holes[:, 20:50] = False
    for mask in (ragged, holes, torch.zeros_like(holes)):
        check(random_inputs(6, 70, 4, 5, dtype, step), mask)


def test_no_steps_at_all() -> None:
    inputs = random_inputs(3, 40, 5, 4)
    inputs[1].data.zero_()
    check(inputs)


def count_terms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the size of every decay that is computed."""
    sizes = []
    decay = scan_parts.WorkBuffer.decay

    def counted(self: scan_parts.WorkBuffer, time: Tensor, rate: Tensor) -> Tensor:
        sizes.append(time.numel() * len(rate))
        return decay(self, time, rate)

    monkeypatch.setattr(scan_parts.WorkBuffer, "decay", counted)
    return sizes


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", ["plain", "masked", "nothing new", "slow last state", "one slow"])
def test_terms_that_are_left_out_are_zero(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as with all terms; also where the others are nothing."""
    inputs = random_inputs(6, 200, 4, 8, dtype, step=2.0 if dtype == torch.float32 else 15.0)
    mask, fewer = None, True
    if case == "masked":  # the time after a short history does not grow in its padding
        mask = torch.arange(200) >= 200 - torch.tensor([0, 1, 5, 33, 200, 200])[:, None]
    elif case == "nothing new":  # the terms of the newest 30 positions are zero, others are tiny
        inputs[0].data[:, -15:] = 0
        inputs[3].data[:, -30:-10] = 0
    elif case == "slow last state":
        inputs[2].data[:, -1] = -1e-4
        fewer = False
    elif case == "one slow":  # one step size of one sample and channel is nearly zero
        inputs[1].data[2, :, 1] = 1e-6
        fewer = False
    check(inputs, mask)

    def run() -> tuple[Tensor, ...]:
        y = last(*inputs, mask)
        return y, *torch.autograd.grad(y.square().sum(), inputs)

    sizes = count_terms(monkeypatch)
    found, terms = run(), sum(sizes)
    monkeypatch.setattr(final_state, "_live_states", lambda later, mask, rate: [8] * 200)
    sizes.clear()
    wanted = run()
    assert sum(sizes) == 2 * 8 * 6 * 200 * 4
    assert (terms < 0.5 * sum(sizes)) == fewer
    for a, b in zip(found, wanted, strict=True):
        assert_near(a, b, 10 * torch.finfo(dtype).eps)


def test_a_small_last_step_next_to_large_sums() -> None:
    """In float32 the steps after a position must not be a difference of two large sums."""
    inputs = random_inputs(2, 500, 3, 4, torch.float32, step=50.0)
    inputs[1].data[:, -20:] = 1e-3
    check(inputs)


@pytest.mark.parametrize("scan", [*SCANS, selective_scan_reference])
def test_padding_changes_nothing(scan: Scan) -> None:
    u, delta, A, B, C, D = random_inputs(3, 40, 5, 4)
    bare = [u[:, 21:], delta[:, 21:], A, B[:, 21:], C[:, 21:], D]
    real = (torch.arange(40) >= 21)[None, :, None]
    padded, wanted = scan(u * real, delta * real, A, B, C, D), scan(*bare)
    newest = padded[:, -wanted.shape[1] :]
    torch.testing.assert_close(newest, wanted, rtol=1e-12, atol=1e-13)
    for a, b in zip(
        torch.autograd.grad(newest.sum(), [u, delta, A, B]),
        torch.autograd.grad(wanted.sum(), [u, delta, A, B]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scan", SCANS)
def test_gradcheck(scan: Scan) -> None:
    assert torch.autograd.gradcheck(scan, random_inputs(2, 4, 3, 2))


@pytest.mark.parametrize("scan", SCANS)
def test_layouts_and_options(scan: Scan) -> None:
    """Without gradients, without samples, and of inputs that are not contiguous."""
    inputs = random_inputs(4, 37, 6, 5)
    wanted = scan(*inputs)
    u, delta, A, B, C, D = inputs
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


@pytest.mark.parametrize("scan", SCANS)
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


def test_mamba_gets_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``mamba_ssm`` asks for: positions last, one type, A and D in float32, no softplus."""

    def kernel(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert not delta_softplus and z is None and delta_bias is None
        assert u.dtype == delta.dtype == B.dtype == C.dtype
        assert A.dtype == D.dtype == torch.float32
        assert u.shape == delta.shape == (3, 5, 7) and B.shape == C.shape == (3, 4, 7)
        return selective_scan_reference(u.mT, delta.mT, A, B.mT, C.mT, D).mT

    inputs = random_inputs(3, 7, 5, 4, torch.float32)
    wanted = selective_scan_reference(*inputs)
    monkeypatch.setattr(module, "kernel_for", lambda u, A, dtype: kernel)
    torch.testing.assert_close(selective_scan(*inputs), wanted)
    torch.testing.assert_close(last(*inputs), wanted[:, -1:])
    u, *others = inputs
    half = selective_scan(u.bfloat16(), *others)  # the types of the rows differ
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.03, atol=0.1)


def test_mamba_is_found_with_its_kernel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    find = module.mamba_kernel.__wrapped__
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
