"""The train step of each model on data of MicroVideo1.7M_x2's shape, against LongCTR's own.

Forward, backward, regulariser, gradient clipping and Adam on a batch that is there already, the same
content for all: LongCTR's model gets item features as a plain dictionary of rows, built beforehand;
ours gets item indices and gathers within the step. Hyper-parameters are those of the shipped
experiments (``<model>_MicroVideo1.7M_x2``), LongCTR's published ones. Before anything is timed, the
rival's weights are loaded into our model, and the predictions of both are compared in evaluation mode
(with ``longctr_compat``, which repeats LongCTR's short mask). The mixture is in its joint stage, with
codebooks of k-means.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import model_zoo
from model_zoo.batch import Batch
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.checkpoints import from_longctr
from model_zoo.training.loop import Trainer
from model_zoo.training.optimizer import build_optimizer

from ..run.flop_counter import count_flops
from . import longctr, microvideo
from .floor import Work, measure_machine, step_bytes
from .gpu_use import describe_use
from .timing import Report, alternate, require_close

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        model: its vanilla class.
        changes: what differs from the shipped experiment.
        goal: of the rival's time over ours.
        mixture_goal: of the time of its MoS over ours; None if that is not timed.
        share: of ``--batch``; LongCTR's TransAct is slow.
    """

    model: str
    changes: dict[str, Any]
    goal: str = ""
    mixture_goal: str | None = None
    share: float = 1.0


CASES = {
    "TWIN": Case("TWIN", {}, "at least 5", "at most 2"),
    "SDIM": Case("SDIM", {"reuse_hash": True}, "at least 4", "at most 2"),
    "TransAct": Case("TransAct", {"concat_max_pool": False}, "at least 30", share=0.25),
    "TransAct-max-pool": Case(
        "TransAct", {"concat_max_pool": True}, "at least 1.5", "at most 1.5", share=0.25
    ),
    "TransAct-2-layers": Case(
        "TransAct",
        {"concat_max_pool": True, "transformer_layers": 2},
        "at least 1.5",
        share=0.25,
    ),
    "MIRRN": Case("MIRRN", {}, "at least 3"),
    "Mamba4Rec": Case("Mamba4Rec", {}, mixture_goal="at most 1.5"),
}


def measure(
    checkout: str | None,
    names: list[str],
    length: int,
    batch_size: int,
    repeats: int,
    device: torch.device,
    own: dict[str, Any],
) -> Report:
    """See the module.

    Args:
        checkout: LongCTR's root folder, or None for ours alone.
        names: of ``CASES``.
        length: L; some of LongCTR's models need their short window, 50, or more.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
        own: hyper-parameters that our models have on top (``amp``, ``compile``).
    """
    if checkout:
        longctr.require_length(length)
    settings = {"batch": batch_size, "length": length, "device": str(device), "repeats": repeats}
    settings |= own
    report = Report(
        title="Train step: forward, backward and optimiser, MicroVideo1.7M_x2's shape",
        settings=settings,
        samples={},
        seconds={},
        machine=measure_machine(device),
        notes=[] if checkout else [longctr.MISSING],
    )
    for name in names:
        _measure_case(report, name, checkout, length, batch_size, repeats, device, own)
    return report


def _measure_case(
    report: Report,
    name: str,
    checkout: str | None,
    length: int,
    batch_size: int,
    repeats: int,
    device: torch.device,
    own: dict[str, Any],
) -> None:
    """Time one model, its rival and its MoS in turns, and add them to the report."""
    case = CASES[name]
    batch_size = max(1, round(case.share * batch_size))
    batch = microvideo.random_batch(batch_size, length, device)
    ours, rival, mixture = f"our {name}", f"LongCTR's {name}", f"our {name}, MoS"
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        options = model_options(case.model, folder, device) | case.changes | {"max_len": length}
        model = build(model_zoo.get_model(case.model), options | own)
        models: dict[str, nn.Module] = {ours: model}
        steps = {ours: our_step(model, batch)}
        if checkout and case.model in longctr.MODELS:
            models[rival] = build(longctr.load_model(checkout, case.model), options)
            rows = (batch[0], dict(batch[1]), batch[2])
            compat = build(type(model), options | {"longctr_compat": True})
            report.differences[f"predictions, {name}"] = _compare(
                compat, models[rival], batch, rows
            )
            steps = {rival: longctr_step(models[rival], rows)} | steps
            report.ratios[f"{rival} / {ours}"] = (rival, ours, case.goal)
        if case.mixture_goal is not None:
            shipped = model_options(f"{case.model}_MoS", folder, device)
            models[mixture] = build(
                model_zoo.get_model(f"{case.model}_MoS"), shipped | options | own
            )
            models[mixture].before_experts([batch], seed=0)
            steps[mixture] = our_step(models[mixture], batch)
            report.ratios[f"{mixture} / {ours}"] = (mixture, ours, case.mixture_goal)
        distinct = len(batch[1].index.unique())
        for step_name, step in steps.items():
            step()
            moved = step_bytes(models[step_name], batch_size, length, distinct, model.item_dim)
            report.work[step_name] = Work(moved, count_flops(step))
            report.samples[step_name] = batch_size
        report.seconds |= alternate(steps, repeats, device)
        if device.type == "cuda":
            for step_name, step in steps.items():
                facts = (report.seconds[step_name], report.work[step_name], device)
                report.notes.append(f"{step_name}: {describe_use(step, *facts)}")


def model_options(model: str, model_root: str, device: torch.device) -> dict[str, Any]:
    """The shipped hyper-parameters of a model on MicroVideo1.7M_x2."""
    options = longctr.published(model)
    gpu = 0 if device.type == "cuda" else -1
    return options | {"metrics": ["AUC"], "verbose": 0, "model_root": model_root, "gpu": gpu}


def our_step(model: SequenceModel, batch: Batch) -> Callable[[], torch.Tensor]:
    """The product's own train step on a batch."""
    train = train_step(model)
    return lambda: train(batch)


def train_step(model: SequenceModel) -> Callable[[Batch], torch.Tensor]:
    """The product's own train step, in training mode, on any batch."""
    trainer = Trainer(model, [], [], max_gradient_norm=10.0, seed=0, resume_file=None)
    trainer.optimizer = build_optimizer(model)
    model.train()
    return lambda batch: trainer.train_step(batch, step=1, steps=1)


def longctr_step(model: nn.Module, batch: Batch) -> Callable[[], torch.Tensor]:
    """LongCTR's own train step, with what FuxiCTR's ``fit`` would set before it."""
    model._max_gradient_norm = 10.0
    model._batch_index = 0
    model.train()
    return lambda: model.train_step(batch)


def build(model_class: type[nn.Module], options: dict[str, Any]) -> Any:
    """A model on MicroVideo1.7M_x2's features, always with the same first weights."""
    torch.manual_seed(0)
    return model_class(microvideo.feature_map(), **options)


@torch.no_grad()
def _compare(ours: SequenceModel, rival: nn.Module, batch: Batch, rows: Batch) -> float:
    """Give ours the rival's weights; the largest difference of their predictions."""
    ours.load_state_dict(from_longctr(ours, rival.state_dict()))
    found = []
    for model, inputs in ((ours.eval(), batch), (rival.eval(), rows)):
        torch.manual_seed(0)  # hashes that are drawn anew
        found.append(model(inputs)["y_pred"])
    return require_close(type(ours).__name__, *found, TOLERANCE)
