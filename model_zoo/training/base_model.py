"""What training and evaluation ask of a model, with FuxiCTR's answers: one stage, no experts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from ..moe.codebook import Codebook
from ..moe.mixtures import Stage
from . import loop as training
from .metrics import evaluate_metrics

Batch = tuple[dict[str, Tensor], Mapping[str, Tensor], Tensor]
"""LongCTR's batch: ``batch_dict`` (B rows each), ``item_dict`` (B * (L + 1) rows each, history
then target), ``mask`` (B, L), non-zero at real items, left padded."""


class StagedModel(BaseModel):
    """A FuxiCTR model that ``training.fit`` can train.

    As it stands it is the base of any model on LongCTR's batches with ``forward`` and ``add_loss``;
    ``SequenceModel`` adds stages and experts.

    Args:
        feature_map: FuxiCTR's feature map.
        learning_rate, optimizer: as in FuxiCTR.
        accumulation_steps: batches per optimiser step.

    Attributes:
        stage_log: one entry per evaluation of the last ``fit``.
        any_keyword: ``hyper_parameters`` need not name everything that the model reads.
    """

    any_keyword = False

    def __init__(
        self,
        feature_map: FeatureMap,
        *,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        accumulation_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        training_keys = dict(
            learning_rate=learning_rate,
            optimizer=optimizer,
            accumulation_steps=accumulation_steps,
        )
        super().__init__(feature_map, **training_keys, **kwargs)
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.accumulation_steps = accumulation_steps
        self.stage_log: list[dict[str, Any]] = []

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """Name and type of every configuration key that the model or its training reads."""
        return keywords(cls) | keywords(training.fit)

    # ---------------------------------------------------------------- stages and experts

    @property
    def branches(self) -> Mapping[str, nn.Module]:
        """The groups of sparse experts by name."""
        return {}

    def backbone_parts(self) -> tuple[nn.Module, ...]:
        """The parts that vanilla has too; the rest are the mixture's experts and routers."""
        return (self,)

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training; ``epochs`` is the length of the last, joint one."""
        return [Stage("joint", epochs)]

    def enter(self, stage: str) -> None:
        """What changes with a stage."""

    def after_step(self) -> None:
        """What follows an optimiser step: the codebooks move (eq. 4)."""
        for codebook in self.codebooks():
            codebook.step()

    def forget_observed(self) -> None:
        """Drop what the codebooks observed since the last step."""
        for codebook in self.codebooks():
            codebook.forget()

    def codebooks(self) -> list[Codebook]:
        """The codebooks of the routers that have one."""
        routers = [branch.router for branch in self.branches.values()]
        return [router.codebook for router in routers if hasattr(router, "codebook")]

    # ---------------------------------------------------------------- training and evaluation

    def fit(
        self, data_generator: Iterable[Batch], validation_data: Iterable[Batch], **kwargs: Any
    ) -> None:
        """Train in stages, then load the best checkpoint; see ``training.fit``."""
        training.fit(self, data_generator, validation_data, **chosen(training.fit, kwargs))

    @torch.no_grad()
    def evaluate(
        self, data_generator: Iterable[Batch], metrics: list[str] | None = None
    ) -> dict[str, float]:
        """The metrics (default: those of the configuration) over all samples, in one pass."""
        self.eval()
        scores, labels, groups = [], [], []
        for batch in data_generator:
            scores.append(self.forward(batch)["y_pred"].flatten())
            labels.append(self.get_labels(batch).flatten())
            if self.feature_map.group_id is not None:
                groups.append(self.get_group_id(batch).flatten())
        y_pred, y_true = (torch.cat(part).cpu().numpy() for part in (scores, labels))
        group_id = torch.cat(groups).cpu().numpy() if groups else None
        results = self.evaluate_metrics(
            y_true, y_pred, metrics or self.validation_metrics, group_id
        )
        log_metrics(results)
        return results

    def evaluate_metrics(self, y_true, y_pred, metrics, group_id=None) -> dict[str, float]:
        """See ``metrics.evaluate_metrics``."""
        return evaluate_metrics(y_true, y_pred, metrics, group_id)

    def get_labels(self, inputs: Batch) -> Tensor:
        """Labels ``(B, 1)``, float32."""
        return self.on_device(inputs[0][self.feature_map.labels[0]]).float().view(-1, 1)

    def on_device(self, x: Tensor) -> Tensor:
        """A part of a batch on the model's device; the host does not wait for pinned memory."""
        return x.to(self.device, non_blocking=True)

    def get_group_id(self, inputs: Batch) -> Tensor:
        """The user of each sample, for gAUC."""
        return inputs[0][self.feature_map.group_id]


def log_metrics(metrics: dict[str, float]) -> None:
    """FuxiCTR's line."""
    logging.info("[Metrics] " + " - ".join(f"{k}: {v:.6f}" for k, v in metrics.items()))


def keywords(reader: Any) -> dict[str, Any]:
    """Name and type of the keyword-only parameters of a function or of a class: of its
    constructor, and of its bases' as long as what is left over goes on to them."""
    found: dict[str, Any] = {}
    names = {"Batch": Batch, "StagedModel": StagedModel}
    for function in _constructors(reader) if isinstance(reader, type) else [reader]:
        hints = get_type_hints(function, localns=names)
        parameters = inspect.signature(function).parameters.values()
        found = {
            p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY
        } | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def chosen(reader: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a flat configuration that ``keywords(reader)`` names."""
    return {name: config[name] for name in keywords(reader) if name in config}


def _constructors(cls: type) -> list[Any]:
    """The constructors along the line of bases, down to those of FuxiCTR and torch."""
    return [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
