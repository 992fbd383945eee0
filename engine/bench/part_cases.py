"""Single parts of models, forward and backward: MoS's dispatch, and Mamba's selective scan.

Outputs and gradients are compared before anything is timed.

Shape suffixes: B samples, L history length, T items or windows, E experts or channels, U distinct rows,
D item width, H output width, W width.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.backbones.mamba4rec import MambaLayer
from model_zoo.history import history as history_module
from model_zoo.history.history import History
from model_zoo.moe.branch import Branch, compact
from model_zoo.ops.scan import selective_scan, selective_scan_reference

from .child import in_own_process, with_peak
from .harness import FLOAT, Case, Report
from .inputs import random_batch
from .model_cases import build, train_step

TOLERANCE = 1e-5
CHANNELS, STATE = 128, 16  # Mamba4Rec: hidden 64, expanded 2 times
SLOW = 500  # from this length on the loop, quadratic in it, runs once
LOOP, OURS = "loop over x[:, t]", "selective_scan"
SCANS = {LOOP: selective_scan_reference, OURS: selective_scan}


def dispatch(report: Report, args: Namespace) -> None:
    """Dispatch: forward and backward of TWIN_MoS's encoder, against running every expert.

    The encoder has 5 item and 5 window experts, and k = 1. The reference does what the equations say
    word by word. Every expert reads every sample, gathered into masked sequences of the full length,
    and the outputs are mixed with the gate row of the newest item. Each distinct item is routed once,
    as in the product. The item branch is timed alone, too.
    """
    model = build("TWIN_MoS", args, max_len=args.length, attention_dropout=0.0)
    embedded, target_BD = model.embed_items(random_batch(args.batch, args.length, args.device))
    rows_UD, target_BD = (x.detach().requires_grad_() for x in (embedded.rows_UD, target_BD))
    inputs = History(rows_UD, embedded.index_BL, embedded.mask_BL), target_BD
    encoder = model.encoder
    encoder.before_experts([inputs[0]], seed=0)
    item = encoder.branches["item"]
    leaves = [rows_UD, target_BD, *encoder.parameters()]
    moved = 2 * FLOAT * sum(leaf.numel() for leaf in leaves)  # each is read, its gradient written

    def step(forward: Callable[[], Tensor], few: int) -> None:
        for leaf in leaves:
            leaf.grad = None
        with patch.object(history_module, "FEW_QUERIES", few):  # 0: histories are gathered
            forward().square().mean().backward()

    exact = {"encoder": lambda: encoder(*inputs)[0], "item branch": lambda: item(*inputs)[0]}
    in_full = {"encoder": partial(every_expert_of_all_branches, encoder, *inputs)}
    in_full["item branch"] = partial(every_expert, item, *inputs)
    pair = exact["encoder"](), in_full["encoder"]()
    report.agree_with_gradients("encoder", *pair, leaves[:2], TOLERANCE)
    cases, few = [], history_module.FEW_QUERIES
    for part in exact:
        read, every = f"{part}, experts that are read", f"{part}, all experts"
        cases.append(Case(every, partial(step, in_full[part], 0), {read: "at least 4"}, moved))
        cases.append(Case(read, partial(step, exact[part], few), moved=moved))
    report.time(cases, args.batch)


def every_expert(branch: Branch, history: History, target_BD: Tensor) -> Tensor:
    """Compute eq. 6 (or 7) in full: ``sum_i G(x_newest)[i] F_i(subsequence_i)`` over all i, ``(B, H)``.

    With k = 1 the gates are constants, so that they need no gradient.
    """
    weights_BTE = branch.router.gates(history)
    outputs = []
    for expert, block in enumerate(branch.experts):
        subsequence = history.take(*compact(weights_BTE[:, :, expert] > 0))
        outputs.append(weights_BTE[:, -1, expert, None] * block(subsequence, target_BD))
    return torch.stack(outputs).sum(0)


def every_expert_of_all_branches(encoder: Any, history: History, target_BD: Tensor) -> Tensor:
    """Compute eq. 8 from the outputs of ``every_expert``, ``(B, H)``."""
    y_BH = (1 - sum(encoder.fusion.values())) * encoder.global_block(history, target_BD)
    for name, branch in encoder.branches.items():
        sequence = encoder.sequence(name, history)
        y_BH = y_BH + encoder.fusion[name] * every_expert(branch, sequence, target_BD)
    return y_BH


def scan(report: Report, args: Namespace) -> None:
    """Selective scan: forward and backward; train step of Mamba4Rec; float32.

    The rival is a loop in plain torch that indexes x[:, t]. It is our reference, and its backward pass
    fills a tensor of the whole input at every step. A layer of which only the newest position is read
    computes no other position. The train step of Mamba4Rec with one layer shows what that is worth,
    against the same with all positions by the fast scan. Peak memory is that of a process of its own,
    beyond what it held before.
    """
    for length in args.length:
        at = f", length {length}"
        few = random_inputs(length, min(args.batch, 8), args.device)
        pair = selective_scan(*few), selective_scan_reference(*few)
        report.agree_with_gradients(f"the scans{at}", *pair, few, TOLERANCE)
        inputs = random_inputs(length, args.batch, args.device)
        weights_BLE = torch.randn(args.batch, length, CHANNELS, device=args.device)
        loop, ours = (partial(_step, scan, inputs, weights_BLE) for scan in SCANS.values())
        over = {OURS + at: "at least 8"}
        cases = [Case(LOOP + at, loop, over, once=length >= SLOW), Case(OURS + at, ours)]
        report.time(cases, args.batch)
        _time_model(report, length, args)
        sizes = length, args.batch, args.device
        loop_bytes, our_bytes = (in_own_process(peak_bytes, name, *sizes) for name in SCANS)
        report.notes.append(
            f"peak memory of both scans{at}: {loop_bytes / 1e6:,.0f} MB and {our_bytes / 1e6:,.0f} MB; "
            f"ours takes {our_bytes / max(1, loop_bytes):.0%} of the loop's (goal: at most a third)"
        )


def _step(scan: Callable[..., Tensor], inputs: list[Tensor], weights_BLE: Tensor) -> None:
    """Run a scan forward and backward, from the sum of the outputs by weights."""
    for leaf in inputs:
        leaf.grad = None
    scan(*inputs).backward(weights_BLE)


def peak_bytes(name: str, length: int, batch_size: int, device: torch.device) -> int:
    """Return the bytes that a scan takes forward and backward, beyond its inputs and their gradients.

    It has to run in a process of its own.
    """

    def work() -> None:
        SCANS[name](*inputs).sum().backward()

    inputs = random_inputs(2, 2, device)
    work()  # so that what is loaded at the first call does not count
    inputs = random_inputs(length, batch_size, device)
    for x in inputs:
        x.grad = torch.ones_like(x)
    return with_peak(work, gpu=0 if device.type == "cuda" else -1)[1]


def random_inputs(length: int, batch_size: int, device: torch.device) -> list[Tensor]:
    """Draw leaves u, delta, A, B, C, D; A is as Mamba starts it, steps are from 0.01 to 1."""
    g = torch.Generator().manual_seed(0)
    of_channels, of_state = (batch_size, length, CHANNELS), (batch_size, length, STATE)
    shapes = (of_channels, of_channels, of_state, of_state, (CHANNELS,))
    u, delta, B, C, D = (torch.randn(shape, generator=g) for shape in shapes)
    A = -torch.arange(1.0, STATE + 1).repeat(CHANNELS, 1)
    inputs = [u, F.softplus(delta - 2), A, B, C, D]
    return [x.to(device).requires_grad_() for x in inputs]


def _time_model(report: Report, length: int, args: Namespace) -> None:
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
    cases = [Case(every, lambda: all_positions(step), over), Case(final, lambda: step(batch))]
    report.time(cases, args.batch)
