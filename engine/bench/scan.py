"""Mamba's selective scan: ours against loops in plain torch, forward and backward.

Rivals: the loop that indexes ``x[:, t]``, our reference, whose backward fills a tensor of the whole
input at every step; and the same loop over ``unbind``, as fast as a loop that autograd records gets.
``selective_scan_last`` computes the newest position only; what that is worth to the model shows in
the train step of Mamba4Rec, one layer, against the same with all positions by the fast scan.

Outputs and gradients are compared before anything is timed. Peak memory is that of a process of its
own, beyond what it held before.

Shape suffixes: B samples, L length, W width, E channels, N state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

import model_zoo
from model_zoo.backbones.mamba4rec import MambaLayer
from model_zoo.ops.scan import selective_scan_reference

from . import microvideo
from .floor import FLOAT, Work, measure_machine
from .scan_cases import CHANNELS, LAST, LOOP, OURS, SCANS, STATE, UNBIND, random_inputs
from .scan_memory import peak_bytes
from .step import build, model_options, our_step
from .timing import Report, alternate, require_close

COMPARED = ("output", *(f"gradient of {name}" for name in ("u", "delta", "A", "B", "C", "D")))
TOLERANCE = 1e-5  # relative to the largest number, in float32
SLOW = 500  # from this length on the loop, quadratic in it, runs once
MODEL, ALL_POSITIONS = "Mamba4Rec, final state", "Mamba4Rec, all positions"


def measure(lengths: list[int], batch_size: int, repeats: int, device: torch.device) -> Report:
    """See the module.

    Args:
        lengths: L, each measured by itself.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    report = Report(
        title="Selective scan: forward and backward; train step of Mamba4Rec; float32",
        settings={
            "batch": batch_size,
            "channels": CHANNELS,
            "state": STATE,
            "device": str(device),
            "repeats": repeats,
        },
        samples=batch_size,
        seconds={},
        machine=measure_machine(device),
    )
    for length in lengths:
        _measure_scans(report, length, batch_size, repeats, device)
        _measure_model(report, length, batch_size, repeats, device)
    report.notes += _memory(lengths, batch_size, device)
    return report


def _measure_scans(
    report: Report, length: int, batch_size: int, repeats: int, device: torch.device
) -> None:
    """Time the scans of one length in turns, and add them to the report."""
    inputs = [x.to(device).requires_grad_() for x in random_inputs(length, batch_size)]
    at = {name: f"{name}, length {length}" for name in SCANS}
    differences = _compare(inputs)
    report.differences |= {
        f"{at[name]}, and the reference": differences[name] for name in differences
    }
    weights_BLE = torch.randn(batch_size, length, CHANNELS, device=device)

    def step(name: str) -> Callable[[], None]:
        def run() -> None:
            for leaf in inputs:
                leaf.grad = None
            y_BRE = SCANS[name](*inputs)
            y_BRE.backward(weights_BLE[:, -y_BRE.shape[1] :])

        return run

    cases = {at[name]: step(name) for name in SCANS}
    for case in cases.values():
        case()
    once = [at[LOOP]] if length >= SLOW else []
    report.seconds |= alternate(cases, repeats, device, once)
    report.ratios |= {
        f"{at[LOOP]} / {OURS}": (at[LOOP], at[OURS], "at least 8"),
        f"{at[UNBIND]} / {OURS}": (at[UNBIND], at[OURS], ""),
        f"{at[OURS]} / {LAST}": (at[OURS], at[LAST], ""),
    }
    # forward reads the inputs and writes y; backward reads them and its gradient, and writes theirs
    read = FLOAT * sum(x.numel() for x in inputs)
    for name, outputs in ((OURS, length), (LAST, 1)):
        y_bytes = FLOAT * batch_size * outputs * CHANNELS
        report.work[at[name]] = Work(3 * read + 2 * y_bytes)


def _measure_model(
    report: Report, length: int, batch_size: int, repeats: int, device: torch.device
) -> None:
    """Time a train step at MicroVideo1.7M_x2's shape with the last layer in both ways."""
    ours, rival = (f"{name}, length {length}" for name in (MODEL, ALL_POSITIONS))
    batch = microvideo.random_batch(batch_size, length, device)
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        options = model_options("Mamba4Rec", folder, device) | {"max_len": length}
        model = build(model_zoo.get_model("Mamba4Rec"), options)
        model.eval()
        with torch.no_grad():
            found, wanted = model(batch)["y_pred"], all_positions(model)(batch)["y_pred"]
        model.train()
        difference = require_close(ours, found, wanted, TOLERANCE)
        step = our_step(model, batch)
        cases = {rival: all_positions(step), ours: step}
        for case in cases.values():
            case()
        report.seconds |= alternate(cases, repeats, device)
    report.differences[f"{ours}, and {ALL_POSITIONS}"] = difference
    report.ratios[f"{rival} / final state"] = (rival, ours, "at least 3")


def all_positions(function: Callable[..., object]) -> Callable[..., object]:
    """The function with Mamba4Rec's last layer computed at all positions."""
    layer = MambaLayer.forward

    def forward(self: MambaLayer, x_BLW: Tensor, mask_BL: Tensor, last: bool = False) -> Tensor:
        h_BLW = layer(self, x_BLW, mask_BL)
        return h_BLW[:, -1:] if last else h_BLW

    def run(*inputs: object) -> object:
        with patch.object(MambaLayer, "forward", forward):
            return function(*inputs)

    return run


def _memory(lengths: list[int], batch_size: int, device: torch.device) -> list[str]:
    """Peak memory of each scan at each length, against the loop's."""
    lines = []
    for length in lengths:
        peak = {name: peak_bytes(name, length, batch_size, device) for name in SCANS}
        megabytes = ", ".join(f"{name} {value / 1e6:,.0f} MB" for name, value in peak.items())
        share = peak[OURS] / max(1, peak[LOOP])
        lines.append(
            f"peak memory, length {length}: {megabytes}; {OURS} takes {share:.0%} of the loop's "
            "(goal: at most a third)"
        )
    return lines


def _compare(inputs: list[Tensor]) -> dict[str, float]:
    """Largest difference from the reference in outputs and gradients, on a few samples."""
    few = [(x.detach()[:8] if x.dim() == 3 else x.detach()).requires_grad_() for x in inputs]
    y_BLE = selective_scan_reference(*few)
    differences = {}
    for name in (UNBIND, OURS, LAST):
        y_BRE = SCANS[name](*few)
        pairs = [(y_BRE, y_BLE[:, -y_BRE.shape[1] :])]
        gradients = (
            torch.autograd.grad(y.square().sum(), few, retain_graph=True) for y in pairs[0]
        )
        pairs += zip(*gradients, strict=True)
        largest = []
        for what, (ours, reference) in zip(COMPARED, pairs, strict=True):
            scale = reference.detach().abs().max()
            ours, reference = ours.detach() / scale, reference.detach() / scale
            largest.append(require_close(f"{name}, {what}", ours, reference, TOLERANCE))
        differences[name] = max(largest)
    return differences
