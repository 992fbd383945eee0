"""Train steps as they are used in training, on data of MicroVideo1.7M_x2's shape.

A step is forward, backward, regulariser, gradient clipping and Adam on a batch that is there already.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

import model_zoo
from model_zoo.batch import Batch
from model_zoo.training.loop import Trainer
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.trainable import Trainable

from . import rivals
from .harness import FLOAT, Case
from .inputs import ITEMS, WIDTH, feature_map

MAX_GRADIENT_NORM = 10.0
# Over the parameters: the gradient written; it, the parameter and two moments read; three written.
ADAM_PASSES = 8


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
    none: Any = []
    trainer = Trainer(model, none, none, MAX_GRADIENT_NORM, seed=0, resume_file=None)
    trainer.optimizer = build_optimizer(model)
    return lambda batch: trainer.train_step(batch, step=1, steps=1)


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
