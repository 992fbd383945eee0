"""The train step of each model on data of MicroVideo1.7M_x2's shape, against LongCTR's own.

A step is forward, backward, regulariser, gradient clipping and Adam on a batch that is there already.
Both train on the same batch. LongCTR's model gets item features as a plain dictionary of rows, built
beforehand; ours gets item indices and gathers within the step. Hyper-parameters are those of the shipped
experiments, which are LongCTR's published ones. Before anything is timed, the rival's weights are loaded
into our model, and the predictions of both are compared in evaluation mode (with ``longctr_compat``, which
repeats LongCTR's short mask).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import model_zoo
from model_zoo.batch import Batch
from model_zoo.training.checkpoints import from_longctr
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.steps import Stepper
from model_zoo.training.trainable import Trainable

from ..common.errors import UserError
from . import rivals
from .harness import COMMON, FLOAT, Case, Report
from .inputs import ITEMS, WIDTH, feature_map, random_batch

TOLERANCE = 1e-4
MAX_GRADIENT_NORM = 10.0
# Over the parameters: the gradient written; it, the parameter and two moments read; three written.
ADAM_PASSES = 8


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        model: its vanilla class.
        goal: for the rival's time over ours.
        mixture_goal: for the time of its MoS over ours; empty if that is not timed.
        share: part of ``--batch`` that it gets; LongCTR's TransAct is slow.
        changes: hyper-parameters that differ from the shipped experiment.
    """

    model: str
    goal: str = ""
    mixture_goal: str = ""
    share: float = 1.0
    changes: dict[str, Any] = field(default_factory=dict)


MAX_POOL = {"concat_max_pool": True}
TWO_LAYERS = MAX_POOL | {"transformer_layers": 2}
SUBJECTS = {
    "TWIN": Subject("TWIN", "at least 5", "at most 2"),
    "SDIM": Subject("SDIM", "at least 4", "at most 2", changes={"reuse_hash": True}),
    "TransAct": Subject("TransAct", "at least 30", "", 0.25, {"concat_max_pool": False}),
    "TransAct-max-pool": Subject("TransAct", "at least 1.5", "at most 1.5", 0.25, MAX_POOL),
    "TransAct-2-layers": Subject("TransAct", "at least 1.5", "", 0.25, TWO_LAYERS),
    "MIRRN": Subject("MIRRN", "at least 3"),
    "Mamba4Rec": Subject("Mamba4Rec", "", "at most 1.5"),
}
DEFAULTS = COMMON | {"models": [*SUBJECTS], "length": 200, "amp": None, "compile": False}
DEFAULTS |= {"longctr": None}


def measure(args: argparse.Namespace) -> Report:
    """Time the models of ``--models`` one after the other, each in turns with its rival and its MoS."""
    for name in args.models:
        if name not in SUBJECTS:
            raise UserError(f"--models {name}: write some of {', '.join(SUBJECTS)}")
    report = Report("Train step: forward, backward, optimiser; MicroVideo1.7M_x2's shape", args)
    for name in args.models:
        subject, ours = SUBJECTS[name], f"our {name}"
        samples = max(1, round(subject.share * args.batch))
        batch = random_batch(samples, args.length, args.device)
        seen = len(batch[1].index.unique())
        changes = subject.changes | {"max_len": args.length}
        own = changes | {"amp": args.amp, "compile": args.compile}
        cases = [step_case(ours, build(subject.model, args, **own), batch, seen)]
        if args.longctr and subject.model in rivals.MODELS:
            rows = (batch[0], dict(batch[1]), batch[2])
            rival = build(subject.model, args, args.longctr, **changes)
            compatible = build(subject.model, args, **changes, longctr_compat=True)
            compatible.load_state_dict(from_longctr(compatible, rival.state_dict()))
            pair = _prediction(compatible, batch), _prediction(rival, rows)
            report.agree(f"predictions, {name}", *pair, TOLERANCE)
            over = {ours: subject.goal}
            cases.insert(0, step_case(f"LongCTR's {name}", rival, rows, seen, over))
        if subject.mixture_goal:
            mixture, over = build(f"{subject.model}_MoS", args, **own), {ours: subject.mixture_goal}
            cases.append(step_case(f"{ours}, MoS", mixture, batch, seen, over))
        report.time(cases, samples, args.repeats)
    return report


@torch.no_grad()
def _prediction(model: Any, batch: Batch) -> list[torch.Tensor]:
    """What a model predicts in evaluation mode."""
    torch.manual_seed(0)  # for hashes that are drawn anew
    found = model.eval()(batch)["y_pred"]
    model.train()
    return [found]


# ---------------------------------------------------------------- a step, for other commands too


def build(
    name: str,
    args: argparse.Namespace,
    checkout: str | None = None,
    items: int = ITEMS,
    **changes: Any,
) -> Any:
    """A model in training mode, always with the same first weights.

    Args:
        name: of the model.
        args: the command's options; of them the device is read, and the folder for checkpoints.
        checkout: LongCTR's root folder, if its model of that name is wanted instead of ours.
        items: rows of the item table.
        changes: hyper-parameters that differ from the shipped experiment's.
    """
    options = rivals.published(name) | {"metrics": ["AUC"], "verbose": 0}
    options |= {"model_root": str(args.folder), "gpu": 0 if args.device.type == "cuda" else -1}
    model_class = rivals.load_model(checkout, name) if checkout else model_zoo.get_model(name)
    torch.manual_seed(0)
    return model_class(feature_map(items), **options | changes).train()


def train_step(model: Any) -> Any:
    """A function that trains the model on a batch, for ours as for LongCTR's."""
    if not isinstance(model, Trainable):
        model._max_gradient_norm = MAX_GRADIENT_NORM  # as FuxiCTR's ``fit`` sets it before it
        model._batch_index = 0
        return model.train_step
    stepper = Stepper(model, build_optimizer(model), MAX_GRADIENT_NORM)
    return lambda batch: stepper.step(batch, step=1, steps=1)


def step_case(
    name: str, model: Any, batch: Batch, seen: int, over: Mapping[str, str] | None = None
) -> Case:
    """The train step of a model on a batch. A mixture is in its joint stage, with codes of k-means.

    Args:
        name: of the case.
        model: ours or LongCTR's.
        batch: what it trains on.
        seen: distinct items of the batch.
        over: as in ``Case``.
    """
    if hasattr(model, "before_experts"):
        model.before_experts([batch], seed=0)
    step, width = train_step(model), 3 * WIDTH
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # An embedding and a gradient of each distinct item; of each position its index and its item.
    positions = batch[2].numel() + len(batch[2])
    items = 2 * FLOAT * seen * width + positions * (8 + FLOAT * width)
    moved = ADAM_PASSES * FLOAT * parameters + items
    return Case(name, lambda: step(batch), over or {}, moved)
