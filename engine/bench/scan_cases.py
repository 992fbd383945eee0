"""Mamba's selective scan: ours against a loop in plain torch, forward and backward.

The loop indexes ``x[:, t]``; it is our reference, and its backward fills a tensor of the whole input at
every step. A layer of which only the newest position is read computes no other. What that is worth shows
in the train step of Mamba4Rec with one layer, against the same with all positions by the fast scan.

Outputs and gradients are compared before anything is timed. Peak memory is that of a process of its
own, beyond what it held before.

Shape suffixes: B samples, L length, W width, E channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.backbones.mamba4rec import MambaLayer
from model_zoo.ops.scan import selective_scan, selective_scan_reference

from .child import in_own_process, with_peak
from .harness import COMMON, Case, Report
from .inputs import random_batch
from .step_cases import build, train_step

CHANNELS, STATE = 128, 16  # Mamba4Rec: hidden 64, expanded 2 times
TOLERANCE = 1e-5
SLOW = 500  # from this length on the loop, quadratic in it, runs once
LOOP, OURS = "loop over x[:, t]", "selective_scan"
SCANS = {LOOP: selective_scan_reference, OURS: selective_scan}
DEFAULTS = COMMON | {"length": [200, 1000], "batch": 256}


def measure(args: argparse.Namespace) -> Report:
    """Time the scans and the model at each length of ``--length``."""
    report = Report("Selective scan: forward and backward; train step of Mamba4Rec; float32", args)
    for length in args.length:
        few = random_inputs(length, min(args.batch, 8), args.device)
        pair = selective_scan(*few), selective_scan_reference(*few)
        report.agree_with_gradients(f"the scans, length {length}", *pair, few, TOLERANCE)
        inputs = random_inputs(length, args.batch, args.device)
        weights_BLE = torch.randn(args.batch, length, CHANNELS, device=args.device)
        loop, ours = (f"{name}, length {length}" for name in SCANS)
        steps = [partial(_step, scan, inputs, weights_BLE) for scan in SCANS.values()]
        over = {ours: "at least 8"}
        cases = [Case(loop, steps[0], over, once=length >= SLOW), Case(ours, steps[1])]
        report.time(cases, args.batch, args.repeats)
        _time_model(report, length, args)
        peak = {n: in_own_process(peak_bytes, n, length, args.batch, args.device) for n in SCANS}
        megabytes = " and ".join(f"{value / 1e6:,.0f} MB" for value in peak.values())
        report.notes.append(
            f"peak memory of both scans, length {length}: {megabytes}; ours takes "
            f"{peak[OURS] / max(1, peak[LOOP]):.0%} of the loop's (goal: at most a third)"
        )
    return report


def _step(scan: Callable[..., Tensor], inputs: list[Tensor], weights_BLE: Tensor) -> None:
    """Forward and backward of the sum of the outputs by weights."""
    for leaf in inputs:
        leaf.grad = None
    scan(*inputs).backward(weights_BLE)


def peak_bytes(name: str, length: int, batch_size: int, device: torch.device) -> int:
    """The memory that a scan takes forward and backward on top of its inputs and their gradients.

    It has to run in a process of its own.
    """

    def work() -> None:
        SCANS[name](*inputs).sum().backward()

    inputs = random_inputs(2, 2, device)
    work()  # so that what is loaded at the first call does not count
    inputs = random_inputs(length, batch_size, device)
    for x in inputs:
        x.grad = torch.ones_like(x)
    if device.type == "cpu":
        return with_peak(work)[1]
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def random_inputs(length: int, batch_size: int, device: torch.device) -> list[Tensor]:
    """Leaves u, delta, A, B, C, D; A is as Mamba starts it, steps are from 0.01 to 1."""
    g = torch.Generator().manual_seed(0)
    of_channels, of_state = (batch_size, length, CHANNELS), (batch_size, length, STATE)
    shapes = (of_channels, of_channels, of_state, of_state, (CHANNELS,))
    u, delta, B, C, D = (torch.randn(shape, generator=g) for shape in shapes)
    A = -torch.arange(1.0, STATE + 1).repeat(CHANNELS, 1)
    inputs = [u, F.softplus(delta - 2), A, B, C, D]
    return [x.to(device).requires_grad_() for x in inputs]


def _time_model(report: Report, length: int, args: argparse.Namespace) -> None:
    """Time a train step at MicroVideo1.7M_x2's shape with the last layer in both ways."""
    batch = random_batch(args.batch, length, args.device)
    model = build("Mamba4Rec", args, max_len=length)
    newest = MambaLayer.forward

    def forward(self: MambaLayer, x_BLW: Tensor, real: Any, last: bool = False) -> Tensor:
        h_BLW = newest(self, x_BLW, real)
        return h_BLW[:, -1:] if last else h_BLW

    def all_positions(function: Callable[..., Any]) -> Any:
        with patch.object(MambaLayer, "forward", forward):
            return function(batch)

    model.eval()
    with torch.no_grad():
        pair = [model(batch)["y_pred"]], [all_positions(model)["y_pred"]]
    report.agree(f"Mamba4Rec in both ways, length {length}", *pair, TOLERANCE)
    step, final = train_step(model.train()), f"Mamba4Rec, final state, length {length}"
    every, over = f"Mamba4Rec, all positions, length {length}", {final: "at least 3"}
    cases = [
        Case(every, lambda: all_positions(step), over),
        Case(final, lambda: step(batch)),
    ]
    report.time(cases, args.batch, args.repeats)
