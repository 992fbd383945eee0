"""Packed histories: what is packed, that a block reads them as it reads padded ones, and the kernels.

The kernels run on a GPU, and without one in Triton's interpreter, where Triton is installed.
"""

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model_zoo.backbones import mamba4rec
from model_zoo.backbones.mamba4rec import Mamba4RecBlock
from model_zoo.history.history import History, Segments
from model_zoo.layers import mamba
from model_zoo.ops import packed_scan
from model_zoo.ops import scan as scan_module
from model_zoo.ops.causal_conv import causal_conv
from model_zoo.ops.packed_scan import segment_conv, segment_scan
from model_zoo.ops.scan import selective_scan, selective_scan_reference

from ...support.host_syncs import HostSyncs
from ..ops.test_scan import random_inputs

LENGTHS = [0, 1, 33, 5, 16, 0, 40]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float64, torch.float32]
TOLERANCE = {torch.float64: dict(rtol=1e-9, atol=1e-11), torch.float32: dict(rtol=1e-4, atol=2e-5)}


def ragged(lengths: list[int] = LENGTHS, L: int = 40) -> Tensor:
    return torch.arange(L) >= L - torch.tensor(lengths)[:, None]


def packed_segments(mask_BL: Tensor) -> Segments:
    index_BL = torch.arange(mask_BL.numel(), device=mask_BL.device).view(mask_BL.shape)
    rows_U1 = torch.zeros(mask_BL.numel(), 1, device=mask_BL.device)
    return History(rows_U1, index_BL, mask_BL).packed()[1]


def test_packing_keeps_samples_apart_and_in_order() -> None:
    mask_BL = ragged()
    index_BL = torch.randint(9, mask_BL.shape)
    packed, where = History(torch.randn(9, 3), index_BL, mask_BL).packed()
    assert packed.mask_BL.all() and len(packed) == sum(LENGTHS)
    for sample, (start, stop) in enumerate(ranges(where.start_B, where.stop_B)):
        kept = index_BL[sample, mask_BL[sample]]
        assert torch.equal(packed.index_BL[0, start:stop], kept)
        assert where.age_P[start:stop].tolist() == list(range(LENGTHS[sample]))
    x_1PE = torch.randn(1, sum(LENGTHS), 2)
    newest_S1E = where.newest(x_1PE)
    for sample, stop in enumerate(where.stop_B):
        assert not LENGTHS[sample] or torch.equal(newest_S1E[sample, 0], x_1PE[0, stop - 1])


def test_packing_waits_once_for_a_gpu() -> None:
    history = History(torch.randn(9, 3), torch.randint(9, (7, 40)), ragged())
    with HostSyncs() as syncs:
        history.packed()
    assert syncs.found == ["aten.nonzero"]


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels compute, segment by segment, for a machine that cannot run them."""

    def conv(x_1PE: Tensor, taps_EK: Tensor, bias_E: Tensor, age_P: Tensor) -> Tensor:
        starts = [*(age_P == 0).nonzero()[:, 0].tolist(), len(age_P)]
        parts = [causal_conv(x_1PE[:, a:b], taps_EK, bias_E) for a, b in pairwise(starts)]
        return torch.cat(parts, dim=1)

    def scan(u, delta, A, B, C, start_S, stop_S):
        outputs = []
        for s, (a, b) in enumerate(ranges(start_S, stop_S)):
            rows = (x[:, a:b] for x in (u, delta))
            empty = u.new_zeros(1, 1, u.shape[-1])
            others = A, B[:, a:b], C[s, None], torch.zeros_like(A[:, 0])
            outputs.append(selective_scan(*rows, *others, last=True) if b > a else empty)
        return torch.cat(outputs)

    monkeypatch.setattr(mamba4rec, "can_fuse", lambda device: True)
    monkeypatch.setattr(mamba, "segment_conv", conv)
    monkeypatch.setattr(mamba, "segment_scan", scan)


def ranges(start_S: Tensor, stop_S: Tensor) -> Iterator[tuple[int, int]]:
    return zip(start_S.tolist(), stop_S.tolist(), strict=True)


def outputs(block: Mamba4RecBlock, mask_BL: Tensor) -> list[Tensor]:
    """Of a block, and the gradients of the rows and all parameters; zero where there is none."""
    g = torch.Generator().manual_seed(1)
    dtype = next(block.parameters()).dtype
    rows_UD = torch.randn(9, 6, generator=g, dtype=dtype).requires_grad_()
    index_BL = torch.randint(9, mask_BL.shape, generator=g)
    target_BD = torch.randn(len(mask_BL), 6, generator=g, dtype=dtype).requires_grad_()
    out_BH = block(History(rows_UD, index_BL, mask_BL), target_BD)
    leaves = [rows_UD, target_BD, *block.parameters()]
    loss = (out_BH * torch.randn(out_BH.shape, generator=g, dtype=dtype)).sum()
    if not loss.requires_grad:
        return [out_BH, *map(torch.zeros_like, leaves)]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    return [out_BH.detach(), *(torch.zeros_like(x) if d is None else d for x, d in pairs)]


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("lengths", [LENGTHS, [0, 0], [7]], ids=str)
def test_a_block_reads_packed_as_padded(
    lengths: list[int], num_layers: int, without_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = random_block(num_layers=num_layers).double()
    packs, packed = [], History.packed
    monkeypatch.setattr(History, "packed", lambda history: packs.append(1) or packed(history))
    found = outputs(block, ragged(lengths))
    assert len(packs) == (num_layers == 1)  # all outputs of a layer are read by the next
    monkeypatch.setattr(mamba4rec, "can_fuse", lambda device: False)
    for a, b in zip(found, outputs(block, ragged(lengths)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def random_block(**kwargs: int) -> Mamba4RecBlock:
    block = Mamba4RecBlock(6, hidden_size=8, d_state=4, **kwargs).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return block


def test_a_compiler_does_not_trace_the_trial_of_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(device: torch.device) -> bool:
        raise AssertionError("the kernels are tried while torch.compile traces")

    monkeypatch.setattr(mamba4rec, "can_fuse", fail)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert outputs(random_block(), ragged())[0].isfinite().all()


def test_a_packed_history_gives_newest_outputs_only() -> None:
    with pytest.raises(ValueError, match="write last=True"):
        mamba.Mamba(4)(torch.randn(1, sum(LENGTHS), 4), packed_segments(ragged()))


def test_kernels_need_cuda_and_all_that_triton_needs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda, fuse = torch.device("cuda"), packed_scan.can_fuse.__wrapped__

    def fail(device: torch.device) -> None:
        raise RuntimeError("no gcc\nand a long trace")

    assert not fuse(torch.device("cpu"))
    monkeypatch.setattr(packed_scan, "find_spec", lambda name: None)
    assert not fuse(cuda)
    monkeypatch.setattr(packed_scan, "find_spec", lambda name: object())
    monkeypatch.setattr(packed_scan, "_try_kernels", lambda device: None)
    assert fuse(cuda) and not caplog.records
    monkeypatch.setattr(packed_scan, "_try_kernels", fail)
    with caplog.at_level(logging.WARNING):
        assert not fuse(cuda)
    (message,) = caplog.messages
    assert message.endswith("the kernels need Triton and a C compiler (no gcc)")


@pytest.fixture
def kernels() -> None:
    """The kernels, on a GPU or interpreted (``conftest.py``)."""
    pytest.importorskip("triton", reason="the kernels need Triton: pip install triton")


def to_device(inputs: list[Tensor]) -> list[Tensor]:
    return [x.detach().to(DEVICE).requires_grad_() for x in inputs]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("E, K", [(3, 4), (200, 1), (5, 7)])
def test_convolution_kernel(E: int, K: int, dtype: torch.dtype, kernels: None) -> None:
    """More channels than a block has, more taps than a segment has positions."""
    mask_BL = ragged()
    x_BLE = torch.randn(*mask_BL.shape, E, dtype=dtype) * mask_BL[:, :, None]
    inputs = [x_BLE, torch.randn(E, K, dtype=dtype), torch.randn(E, dtype=dtype)]
    inputs = [x.requires_grad_() for x in inputs]
    wanted_1PE = causal_conv(*inputs)[mask_BL][None]
    weights = torch.randn_like(wanted_1PE)
    dx_BLE, *others = torch.autograd.grad((wanted_1PE * weights).sum(), inputs)

    where = packed_segments(mask_BL.to(DEVICE))
    ours = to_device([x_BLE[mask_BL][None], *inputs[1:]])
    found_1PE = segment_conv(*ours, where.age_P)
    found = torch.autograd.grad((found_1PE * weights.to(DEVICE)).sum(), ours)
    for a, b in zip((found_1PE, *found), (wanted_1PE, dx_BLE[mask_BL][None], *others), strict=True):
        torch.testing.assert_close(a.cpu(), b, **TOLERANCE[dtype])


def test_the_trial_of_the_kernels_passes(kernels: None) -> None:
    packed_scan._try_kernels(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", [0.05, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("E, N", [(5, 4), (200, 3), (1, 32), (8, 32)])
def test_scan_kernel(E: int, N: int, step: float, dtype: torch.dtype, kernels: None) -> None:
    """Packed; with long steps most factors are zero, and gradients of steps differ in size."""
    mask_BL = ragged()
    u, delta, A, B, C, _ = inputs = random_inputs(*mask_BL.shape, E, N, dtype, step)
    where = packed_segments(mask_BL.to(DEVICE))
    ours = to_device([u[mask_BL], delta[mask_BL], A, B[mask_BL], C[:, -1:]])
    y_B1E = segment_scan(*ours, where.start_B, where.stop_B)
    wanted, (du, ddelta, dA, dB, dC) = scanned_exactly(inputs, mask_BL)
    gradients = du[mask_BL], ddelta[mask_BL], dA, dB[mask_BL], dC[:, -1:]
    assert_near_exact(y_B1E, ours, wanted, gradients)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", ["none", "ragged", "holes"])
def test_padded_scan_by_kernel(
    mask: str, dtype: torch.dtype, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all layers' outputs are read, and under torch.compile: every sample's positions, padded
    ones too, are a segment."""
    mask_BL = {"none": None, "ragged": ragged(), "holes": torch.rand(7, 40) < 0.5}[mask]
    monkeypatch.setattr(scan_module, "can_fuse", lambda device: True)
    u, delta, A, B, C, _ = inputs = random_inputs(7, 40, 4, 5, dtype)
    ours = to_device([u, delta, A, B, C[:, -1:]])
    no_skip = torch.zeros_like(ours[2][:, 0])
    there = None if mask_BL is None else mask_BL.to(DEVICE)
    wanted, (du, ddelta, dA, dB, dC) = scanned_exactly(inputs, mask_BL)
    gradients = du, ddelta, dA, dB, dC[:, -1:]
    y_B1E = selective_scan(*ours, no_skip, there, last=True)
    assert_near_exact(y_B1E, ours, wanted, gradients)


def scanned_exactly(
    inputs: list[Tensor], mask_BL: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The newest outputs, and gradients of their weighted sum, by the recurrence in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs[:5]]
    u, delta, *others = exact
    if mask_BL is not None:
        delta = delta * mask_BL[:, :, None]
    no_skip = torch.zeros_like(others[0][:, 0])
    y_B1E = selective_scan_reference(u, delta, *others, no_skip)[:, -1:]
    return y_B1E, torch.autograd.grad((y_B1E * weights_like(y_B1E)).sum(), exact)


def weights_like(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)


def assert_near_exact(
    y: Tensor, inputs: list[Tensor], wanted: Tensor, gradients: tuple[Tensor, ...]
) -> None:
    found = torch.autograd.grad((y * weights_like(wanted).to(y)).sum(), inputs)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[y.dtype]
    for a, b in zip((y, *found), (wanted, *gradients), strict=True):
        difference = (a.detach().cpu().double() - b.detach()).abs().max()
        assert difference <= tolerance * b.detach().abs().max(), float(difference)


@pytest.mark.parametrize("name", ["delta", "A"])
def test_what_is_no_number_is_passed_on(name: str, kernels: None) -> None:
    u, delta, A, B, C, _ = random_inputs(1, 40, 3, 4, step=20.0)
    with torch.no_grad():
        {"delta": delta[0, 20], "A": A[:, 3]}[name][1] = float("nan")
    start, stop = torch.tensor([0], device=DEVICE), torch.tensor([40], device=DEVICE)
    y_B1E = segment_scan(*to_device([u, delta, A, B, C[:, -1:]]), start, stop)
    assert y_B1E.isnan().tolist() == [[[False, True, False]]]


def test_states_that_are_zero_are_passed_over(
    kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown by a limit under which all are."""
    u, delta, A, B, C, _ = random_inputs(1, 40, 3, 4)
    start, stop = torch.tensor([0], device=DEVICE), torch.tensor([40], device=DEVICE)
    inputs = to_device([u, delta, A, B, C[:, -1:]])
    assert segment_scan(*inputs, start, stop).all()
    monkeypatch.setitem(packed_scan.ZERO_BELOW, torch.float64, 0.0)
    assert not segment_scan(*inputs, start, stop).any()
