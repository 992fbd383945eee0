"""The train step: our TWIN and TWIN_MoS against LongCTR's TWIN, at LongCTR's published widths.

One step is forward, backward, gradient clipping and Adam on a batch that is there already, the same
content for all: LongCTR's model gets item features as a plain dictionary of rows, built beforehand;
ours gets item indices and gathers within the step. The two TWINs get the same weights, and their
predictions are compared in evaluation mode before anything is timed. TWIN_MoS is in its joint
stage, with codebooks of k-means.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import model_zoo
from model_zoo.codebook_init import load_kmeans_codes
from model_zoo.optimization import build_optimizer
from model_zoo.sequence_model import Batch, SequenceModel
from model_zoo.training import Trainer

from ..errors import UserError
from . import longctr, microvideo
from .timing import Report, alternate, require_close

RIVAL, TWIN, MOS = "LongCTR's TWIN", "our TWIN", "our TWIN_MoS"
TOLERANCE = 1e-4
WIDTHS: dict[str, Any] = {
    "embedding_dim": microvideo.WIDTH,
    "attention_dim": 256,
    "num_heads": 1,
    "topk": 50,
    "short_seq_len": 50,
    "dnn_hidden_units": [1024, 512, 256],
    "dnn_activations": "relu",
    "batch_norm": True,
    "net_dropout": 0.1,
    "attention_dropout": 0.1,
    "embedding_regularizer": 1e-5,
    "learning_rate": 1e-3,
}
FUXICTR = {
    "optimizer": "adam",
    "loss": "binary_crossentropy",
    "metrics": ["AUC"],
    "verbose": 0,
}


def measure(
    checkout: str | None, length: int, batch_size: int, repeats: int, device: torch.device
) -> Report:
    """See the module.

    Args:
        checkout: LongCTR's root folder, or None for ours alone.
        length: L; LongCTR's TWIN needs its short window, 50, or more.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    if checkout and length < WIDTHS["short_seq_len"]:
        raise UserError(
            f"--length {length}: LongCTR's TWIN crashes on batches shorter than its short window; "
            f"write {WIDTHS['short_seq_len']} or more, or leave --longctr out"
        )
    rival_class = checkout and longctr.load_class(checkout, longctr.TWIN, "TWIN")
    batch = microvideo.random_batch(batch_size, length, device)
    cases: dict[str, Callable[[], torch.Tensor]] = {}
    ratios = {f"{MOS} / {TWIN}": (MOS, TWIN, "")}
    differences = {}
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        gpu = 0 if device.type == "cuda" else -1
        options = {**WIDTHS, **FUXICTR, "model_root": folder, "gpu": gpu}
        twin = _build(model_zoo.get_model("TWIN"), options)
        mos = _build(model_zoo.get_model("TWIN_MoS"), options)
        load_kmeans_codes(mos, [batch], seed=0)
        if rival_class:
            rival = _build(rival_class, options)
            rows = (batch[0], dict(batch[1]), batch[2])
            differences["predictions of the two TWINs"] = _compare(twin, rival, batch, rows)
            cases[RIVAL] = longctr_step(rival, rows)
            ratios[f"{RIVAL} / {TWIN}"] = (RIVAL, TWIN, "at least 3")
            ratios[f"{RIVAL} / {MOS}"] = (RIVAL, MOS, "")
        cases |= {TWIN: our_step(twin, batch), MOS: our_step(mos, batch)}
    for case in cases.values():
        case()
    return Report(
        title="Train step: forward, backward and optimiser, MicroVideo1.7M_x2's shape",
        settings={"batch": batch_size, "length": length, "device": str(device), "repeats": repeats},
        samples=batch_size,
        seconds=alternate(cases, repeats, device),
        ratios=ratios,
        differences=differences,
        notes=[] if checkout else [longctr.MISSING],
    )


def our_step(model: SequenceModel, batch: Batch) -> Callable[[], torch.Tensor]:
    """The product's own train step, in training mode."""
    trainer = Trainer(model, [], [], max_gradient_norm=10.0, seed=0, resume_file=None)
    trainer.optimizer = build_optimizer(model)
    model.train()
    return lambda: trainer.train_step(batch, step=1, steps=1)


def longctr_step(model: nn.Module, batch: Batch) -> Callable[[], torch.Tensor]:
    """LongCTR's own train step, with what FuxiCTR's ``fit`` would set before it."""
    model._max_gradient_norm = 10.0
    model._batch_index = 0
    model.train()
    return lambda: model.train_step(batch)


def _build(model_class: type[nn.Module], options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return model_class(microvideo.feature_map(), **options)


@torch.no_grad()
def _compare(ours: SequenceModel, rival: nn.Module, batch: Batch, rows: Batch) -> float:
    """Give the rival our weights; the largest difference of their predictions."""
    weights = {}
    for name, value in ours.state_dict().items():
        name = name.removeprefix("encoder.global_block.").removeprefix("classifier.")
        weights[name.replace("long_attention.W_k", "long_attention.W_h")] = value
    rival.load_state_dict(weights)
    ours.eval()
    rival.eval()
    return require_close("TWIN", ours(batch)["y_pred"], rival(rows)["y_pred"], TOLERANCE)
