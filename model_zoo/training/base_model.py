"""FuxiCTR's ``BaseModel`` as something that this project can train: one stage, no experts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from numpy.typing import ArrayLike
from torch import Tensor

from ..batch import Batch, Loader
from . import loop
from .hyper_parameters import chosen, keywords
from .metrics import evaluate_metrics
from .trainable import Trainable


class StagedModel(BaseModel, Trainable):
    """The base of every model on LongCTR's batches with a ``forward`` and an ``add_loss``.

    As it stands it trains in a single stage. ``SequenceModel`` adds stages and experts.

    Args:
        feature_map: FuxiCTR's feature map.
        learning_rate, optimizer: as in FuxiCTR.
        accumulation_steps: batches per optimiser step.
        kwargs: go to FuxiCTR.

    Attributes:
        any_keyword: ``hyper_parameters`` need not name everything that the model reads.
    """

    any_keyword = False
    device: torch.device
    feature_map: FeatureMap
    validation_metrics: list[str]
    _monitor: Any
    _monitor_mode: str

    def __init__(
        self,
        feature_map: FeatureMap,
        *,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        accumulation_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        keys = dict(optimizer=optimizer, accumulation_steps=accumulation_steps)
        super().__init__(feature_map, learning_rate=learning_rate, **keys, **kwargs)
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.accumulation_steps = accumulation_steps
        private: Any = self  # FuxiCTR keeps the other keys to itself; here they become public
        self.embedding_regularizer = private._embedding_regularizer
        self.net_regularizer = private._net_regularizer
        self.eval_steps = private._eval_steps
        self.early_stop_patience = private._early_stop_patience
        self.reduce_lr_on_plateau = private._reduce_lr_on_plateau
        self.verbose = private._verbose
        self.stage_log: list[dict[str, Any]] = []
        self.stage_start: list[dict[str, Any]] = []

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """Name and type of every configuration key that the model or its training reads."""
        return keywords(cls, loop.fit)

    # ---------------------------------------------------------------- training and evaluation

    def fit(self, data_generator: Loader, validation_data: Loader, **kwargs: Any) -> None:
        """Train in stages, then load the best checkpoint; see ``loop.fit``."""
        loop.fit(self, data_generator, validation_data, **chosen(kwargs, loop.fit))

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

    def evaluate_metrics(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        metrics: list[str],
        group_id: ArrayLike | None = None,
    ) -> dict[str, float]:
        """The metrics of given predictions; see ``metrics.evaluate_metrics``."""
        return evaluate_metrics(y_true, y_pred, metrics, group_id)

    def monitored(self, metrics: Mapping[str, float]) -> float:
        value = self._monitor.get_value(metrics)
        return -value if self._monitor_mode == "min" else value

    def get_labels(self, inputs: Batch) -> Tensor:
        """Labels ``(B, 1)``, float32."""
        labels = inputs[0][self.feature_map.labels[0]]
        return labels.to(self.device, non_blocking=True).float().view(-1, 1)

    def get_group_id(self, inputs: Batch) -> Tensor:
        """The user of each sample, for gAUC."""
        return inputs[0][self.feature_map.group_id]


def log_metrics(metrics: Mapping[str, float]) -> None:
    """Log metrics as one line in FuxiCTR's form."""
    logging.info("[Metrics] " + " - ".join(f"{k}: {v:.6f}" for k, v in metrics.items()))
