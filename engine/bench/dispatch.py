"""MoS's dispatch: only the experts that the read-out uses, against all experts on all samples.

Forward and backward of an encoder with TWIN blocks, 5 item and 5 window experts, k = 1. The
reference is what the equations say word by word: every expert reads every sample, gathered into masked
sequences of the full length, and the outputs are mixed with the gate row of the newest item. It routes
each distinct item once, as the product does. "Read in place" is the same without the gather, so that the
rest of the difference is the dispatch alone. Outputs and
gradients are compared before anything is timed. The encoder of vanilla TWIN, one block, shows what
the mixture adds.

Shape suffixes: B samples, L history length, T items or windows, U distinct rows, E experts,
D item width, H output width.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.backbones.twin import TWINBlock
from model_zoo.history import history as history_module
from model_zoo.history.history import History
from model_zoo.moe.experts import SubsequenceExperts, compact
from model_zoo.moe.mos import MoS

from ..run.flop_counter import count_flops
from . import microvideo
from .floor import FLOAT, Work, measure_machine
from .timing import Report, alternate, require_close

ITEM_DIM = 3 * microvideo.WIDTH
ATTENTION_DIM, TOPK = 256, 50  # LongCTR's published widths
TOLERANCE = 1e-5
OURS, ALL, VANILLA = "MoS, experts that are read", "MoS, all experts", "vanilla, one block"
IN_PLACE = "MoS, all experts, read in place"


def measure(length: int, batch_size: int, repeats: int, device: torch.device) -> Report:
    """See the module.

    Args:
        length: L.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    torch.manual_seed(0)
    encoder = MoS(_block, ITEM_DIM, router_topk=1).to(device).train()
    history, target_BD = _inputs(length, batch_size, device)
    _spread_codes(encoder, history)
    differences = _compare(encoder, history, target_BD)
    leaves = [history.rows_UD, target_BD, *encoder.parameters()]

    def step(forward: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            forward().square().mean().backward()

        return run

    item = encoder.branches["item"]
    cases = {
        ALL: gathered(step(lambda: _all_experts_encoder(encoder, history, target_BD))),
        IN_PLACE: step(lambda: _all_experts_encoder(encoder, history, target_BD)),
        OURS: step(lambda: encoder(history, target_BD)[0]),
        VANILLA: step(lambda: encoder.global_block(history, target_BD)),
        "item branch, all experts": gathered(step(lambda: all_experts(item, history, target_BD))),
        "item branch, experts that are read": step(lambda: item(history, target_BD)[0]),
    }
    for case in cases.values():
        case()
    moved = 2 * FLOAT * sum(leaf.numel() for leaf in leaves)  # each is read, its gradient written
    branch = ("item branch, all experts", "item branch, experts that are read", "at least 4")
    return Report(
        title="Dispatch: forward and backward of an encoder with TWIN blocks, 5 + 5 experts, k = 1",
        settings={
            "batch": batch_size,
            "length": length,
            "item width": ITEM_DIM,
            "attention_dim": ATTENTION_DIM,
            "topk": TOPK,
            "device": str(device),
            "repeats": repeats,
        },
        samples=batch_size,
        seconds=alternate(cases, repeats, device),
        ratios={
            "all experts / experts that are read, encoder": (ALL, OURS, "at least 4"),
            "all experts / experts that are read, item branch": branch,
            "all experts in place / experts that are read, encoder": (IN_PLACE, OURS, ""),
            "MoS / vanilla, encoder": (OURS, VANILLA, ""),
        },
        differences=differences,
        work={name: Work(moved, count_flops(case)) for name, case in cases.items()},
        machine=measure_machine(device),
        notes=[f"samples by expert: {_loads(encoder, history)}"],
    )


def gathered(case: Callable[[], None]) -> Callable[[], None]:
    """The case with every history gathered before it is read."""

    def run() -> None:
        with patch.object(history_module, "FEW", 0):
            case()

    return run


def all_experts(branch: SubsequenceExperts, history: History, target_BD: Tensor) -> Tensor:
    """Eq. 6 (7) in full: ``sum_i G(x_newest)[i] F_i(subsequence_i)`` over all i, ``(B, H)``."""
    newest = history.last(1)
    readout_BE = branch.router(newest.embed(), newest.mask_BL).weights_BTE[:, -1]
    with torch.no_grad():
        rows_1UD = history.table.values()[None]
        every_1U = torch.ones_like(rows_1UD[:, :, 0], dtype=torch.bool)
        sent_1UE = branch.router(rows_1UD, every_1U).weights_BTE > 0
        sent_BTE = F.embedding(history.index_BL, sent_1UE[0].float()) > 0
        sent_BTE &= history.mask_BL[:, :, None]
    y_BH = 0
    for expert, block in enumerate(branch.experts):
        index_BT, mask_BT = compact(sent_BTE[:, :, expert])
        subsequence = history.take(index_BT, mask_BT)
        y_BH = y_BH + readout_BE[:, expert, None] * block(subsequence, target_BD)
    return y_BH


def _all_experts_encoder(encoder: MoS, history: History, target_BD: Tensor) -> Tensor:
    """Eq. 8 over ``all_experts``."""
    y_BH = (1 - sum(encoder.fusion.values())) * encoder.global_block(history, target_BD)
    for name, branch in encoder.branches.items():
        sequence = encoder.sequence(name, history)
        y_BH = y_BH + encoder.fusion[name] * all_experts(branch, sequence, target_BD)
    return y_BH


def _block() -> TWINBlock:
    return TWINBlock(ITEM_DIM, attention_dim=ATTENTION_DIM, topk=TOPK)


def _inputs(length: int, batch_size: int, device: torch.device) -> tuple[History, Tensor]:
    """A history of a MicroVideo batch, item vectors drawn around themes; both are leaves."""
    _, items, mask_BL = microvideo.random_batch(batch_size, length, device)
    columns, row_BL1 = items.distinct()
    image = columns[f"image_emb_dim{microvideo.WIDTH}"]
    rows_UD = torch.cat([image, image.flip(1), -image], dim=1) / 2
    target_BD = F.embedding(row_BL1[:, -1], rows_UD).requires_grad_()
    return History(rows_UD.requires_grad_(), row_BL1[:, :-1], mask_BL.to(device) > 0), target_BD


@torch.no_grad()
def _spread_codes(encoder: MoS, history: History) -> None:
    """Codes at items far from each other, much as k-means puts them: all experts get work."""
    for name, branch in encoder.branches.items():
        h_NC = F.normalize(
            branch.router.projections(encoder.sequence(name, history))[:5_000], dim=-1
        )
        chosen = [0]
        while len(chosen) < len(branch.experts):
            nearest_N = (h_NC @ h_NC[chosen].T).amax(1)
            chosen.append(int(nearest_N.argmin()))
        branch.router.codebook.load(h_NC[chosen])


def _compare(encoder: MoS, history: History, target_BD: Tensor) -> dict[str, float]:
    """Outputs of the two forms, and their gradients at the targets and the items."""
    found = []
    for forward in (
        lambda: encoder(history, target_BD)[0],
        lambda: _all_experts_encoder(encoder, history, target_BD),
    ):
        y_BH = forward()
        gradients = torch.autograd.grad(y_BH.square().sum(), [target_BD, history.rows_UD])
        found.append([y_BH.detach(), *gradients])
    names = ("outputs", "gradient at the targets", "gradient at the items")
    differences = {}
    for name, ours, reference in zip(names, *found, strict=True):
        scale = max(1.0, float(reference.abs().max()))
        differences[name] = require_close(name, ours / scale, reference / scale, TOLERANCE)
    return differences


@torch.no_grad()
def _loads(encoder: MoS, history: History) -> str:
    """How many samples each expert serves."""
    served = []
    for name, branch in encoder.branches.items():
        weights_BTE = branch.router.gates(encoder.sequence(name, history))
        served.append(f"{name} {(weights_BTE[:, -1] > 0).sum(0).tolist()}")
    return ", ".join(served)
