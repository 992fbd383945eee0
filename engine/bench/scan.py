"""Mamba's selective scan: ours against loops in plain torch, forward and backward.

Rivals: the loop that indexes ``x[:, t]``, our reference, whose backward fills a tensor of the whole
input at every step; and the same loop over ``unbind``, as fast as a loop that autograd records gets.
``selective_scan_last`` computes the newest position only. Outputs and gradients are compared before
anything is timed.

Shape suffixes: B samples, L length, E channels, N state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.layers.selective_scan import (
    selective_scan,
    selective_scan_last,
    selective_scan_reference,
)

from .timing import Report, alternate, require_close

CHANNELS, STATE = 128, 16  # Mamba4Rec: hidden 64, expanded 2 times
COMPARED = ("output", *(f"gradient of {name}" for name in ("u", "delta", "A", "B", "C", "D")))
TOLERANCE = 1e-4  # relative to the largest number, in float32
LOOP, UNBIND = "loop over x[:, t]", "loop over unbind"
OURS, LAST = "selective_scan", "selective_scan_last"


def measure(length: int, batch_size: int, repeats: int, device: torch.device) -> Report:
    """See the module.

    Args:
        length: L.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    inputs = _inputs(length, batch_size, device)
    scans = {
        LOOP: selective_scan_reference,
        UNBIND: unbind_loop,
        OURS: selective_scan,
        LAST: selective_scan_last,
    }
    differences = _compare(scans, inputs)
    weights_BLE = torch.randn(batch_size, length, CHANNELS, device=device)

    def step(scan: Callable[..., Tensor], weights: Tensor) -> Callable[[], None]:
        def run() -> None:
            for leaf in inputs:
                leaf.grad = None
            scan(*inputs).backward(weights)

        return run

    cases = {
        name: step(scan, weights_BLE[:, -1] if name == LAST else weights_BLE)
        for name, scan in scans.items()
    }
    for case in cases.values():
        case()
    return Report(
        title="Selective scan: forward and backward, float32",
        settings={
            "batch": batch_size,
            "length": length,
            "channels": CHANNELS,
            "state": STATE,
            "device": str(device),
            "repeats": repeats,
        },
        samples=batch_size,
        seconds=alternate(cases, repeats, device),
        ratios={
            f"{LOOP} / {OURS}": (LOOP, OURS, "at least 4"),
            f"{UNBIND} / {OURS}": (UNBIND, OURS, ""),
            f"{OURS} / {LAST}": (OURS, LAST, ""),
        },
        differences=differences,
    )


def unbind_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``selective_scan_reference`` with all positions taken apart at once."""
    h_BEN = u.new_zeros(len(u), *A.shape)
    outputs = []
    steps = zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True)
    for u_BE, delta_BE, B_BN, C_BN in steps:
        x_BE = delta_BE * u_BE
        h_BEN = torch.exp(delta_BE[:, :, None] * A) * h_BEN + x_BE[:, :, None] * B_BN[:, None]
        outputs.append((h_BEN * C_BN[:, None]).sum(-1))
    return torch.stack(outputs, dim=1) + D * u


def _inputs(length: int, batch_size: int, device: torch.device) -> list[Tensor]:
    """Random u, delta, A, B, C, D as leaves; A as Mamba starts it, steps from 0.01 to 1."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    inputs = [
        normal(batch_size, length, CHANNELS),
        F.softplus(normal(batch_size, length, CHANNELS) - 2),
        -torch.arange(1.0, STATE + 1).repeat(CHANNELS, 1),
        normal(batch_size, length, STATE),
        normal(batch_size, length, STATE),
        normal(CHANNELS),
    ]
    return [x.to(device).requires_grad_() for x in inputs]


def _compare(scans: dict[str, Callable[..., Tensor]], inputs: list[Tensor]) -> dict[str, float]:
    """Largest difference from the reference in outputs and gradients, on a few samples."""
    few = [(x.detach()[:8] if x.dim() == 3 else x.detach()).requires_grad_() for x in inputs]
    y_BLE = selective_scan_reference(*few)
    differences = {}
    for name in (UNBIND, OURS, LAST):
        pairs = [(scans[name](*few), y_BLE[:, -1] if name == LAST else y_BLE)]
        gradients = (
            torch.autograd.grad(y.square().sum(), few, retain_graph=True) for y in pairs[0]
        )
        pairs += zip(*gradients, strict=True)
        largest = []
        for what, (ours, reference) in zip(COMPARED, pairs, strict=True):
            scale = reference.detach().abs().max()
            ours, reference = ours.detach() / scale, reference.detach() / scale
            largest.append(require_close(f"{name}, {what}", ours, reference, TOLERANCE))
        differences[f"{name} and the reference"] = max(largest)
    return differences
