"""MoS's dispatch: only the experts that the read-out uses, against all experts on all samples.

A case is forward and backward of the encoder of TWIN_MoS, with 5 item and 5 window experts, k = 1. The
reference is what the equations say word by word: every expert reads every sample, gathered into masked
sequences of the full length, and the outputs are mixed with the gate row of the newest item. It routes
each distinct item once, as the product does. Outputs and gradients are compared before anything is timed.

Shape suffixes: B samples, T items or windows, E experts, U distinct rows, D item width, H output width.
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

from model_zoo.history import history as history_module
from model_zoo.history.history import History
from model_zoo.moe.branch import Branch, compact

from .harness import COMMON, FLOAT, Case, Report
from .inputs import IMAGE, random_batch
from .step_cases import build

TOLERANCE = 1e-5
DEFAULTS = COMMON | {"length": 200}


def measure(args: argparse.Namespace) -> Report:
    """Time the whole encoder, and its item branch alone."""
    title = "Dispatch: forward and backward of TWIN_MoS's encoder, 5 + 5 experts, k = 1"
    report = Report(title, args)
    encoder = build("TWIN_MoS", args, max_len=args.length, attention_dropout=0.0).encoder
    history, target_BD = _inputs(args)
    encoder.before_experts([history], seed=0)
    item = encoder.branches["item"]
    leaves = [history.rows_UD, target_BD, *encoder.parameters()]
    moved = 2 * FLOAT * sum(leaf.numel() for leaf in leaves)  # each is read, its gradient written

    def step(forward: Callable[[], Tensor], few: int) -> None:
        for leaf in leaves:
            leaf.grad = None
        with patch.object(history_module, "FEW_QUERIES", few):  # 0: histories are gathered
            forward().square().mean().backward()

    inputs = (history, target_BD)
    forwards: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "encoder": (
            partial(every_expert_of_all_branches, encoder, *inputs),
            lambda: encoder(*inputs)[0],
        ),
        "item branch": (partial(every_expert, item, *inputs), lambda: item(*inputs)[0]),
    }
    reference, ours = (forward() for forward in forwards["encoder"])
    report.agree_with_gradients("encoder", ours, reference, leaves[:2], TOLERANCE)
    cases = []
    for name, (in_full, exact) in forwards.items():
        read, every = f"{name}, experts that are read", f"{name}, all experts"
        cases.append(Case(every, partial(step, in_full, 0), {read: "at least 4"}, moved))
        cases.append(Case(read, partial(step, exact, history_module.FEW_QUERIES), moved=moved))
    report.time(cases, args.batch, args.repeats)
    return report


def every_expert(branch: Branch, history: History, target_BD: Tensor) -> Tensor:
    """Eq. 6 (7) in full: ``sum_i G(x_newest)[i] F_i(subsequence_i)`` over all i, ``(B, H)``.

    With k = 1 the gates are constants, so that they need no gradient.
    """
    weights_BTE = branch.router.gates(history)
    outputs = []
    for expert, block in enumerate(branch.experts):
        subsequence = history.take(*compact(weights_BTE[:, :, expert] > 0))
        outputs.append(weights_BTE[:, -1, expert, None] * block(subsequence, target_BD))
    return torch.stack(outputs).sum(0)


def every_expert_of_all_branches(encoder: Any, history: History, target_BD: Tensor) -> Tensor:
    """Eq. 8 over ``every_expert``."""
    y_BH = (1 - sum(encoder.fusion.values())) * encoder.global_block(history, target_BD)
    for name, branch in encoder.branches.items():
        sequence = encoder.sequence(name, history)
        y_BH = y_BH + encoder.fusion[name] * every_expert(branch, sequence, target_BD)
    return y_BH


def _inputs(args: argparse.Namespace) -> tuple[History, Tensor]:
    """The history and the targets of a batch, item vectors drawn around themes; both are leaves."""
    _, items, mask_BL = random_batch(args.batch, args.length, args.device)
    columns, row_BL1 = items.distinct()
    image = columns[IMAGE]
    rows_UD = torch.cat([image, image.flip(1), -image], dim=1) / 2
    target_BD = F.embedding(row_BL1[:, -1], rows_UD).requires_grad_()
    mask_BL = mask_BL.to(args.device) > 0
    return History(rows_UD.requires_grad_(), row_BL1[:, :-1], mask_BL), target_BD
