"""The interface between the training loop and a model: FuxiCTR's ``BaseModel`` with stages.

A model that defines neither stages nor experts, such as LongCTR's, trains in a single stage.
"""

import logging
from abc import ABC
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from .. import ranks
from ..batch import Batch
from ..history.history import History
from ..moe.branch import Branch
from ..moe.stages import Stage, StageName
from .metrics import correction, evaluate_metrics


class Trainable(BaseModel, ABC):
    """A model that reads LongCTR's batches and that ``Trainer`` can train.

    A subclass defines ``forward``, which gives ``y_pred (B, 1)``, and ``add_loss``.

    Args:
        feature_map: FuxiCTR's feature map.
        learning_rate: learning rate at the start of each stage.
        optimizer: name of the optimizer in FuxiCTR.
        accumulation_steps: batches per optimiser step.
        negative_sampling_rate: the share of the possible negatives that the data have, if they were
            sampled. ``calibration`` and ``ECE`` are corrected by it.
        kwargs: passed on to FuxiCTR.

    Attributes:
        embedding_regularizer: regulariser of the embedding tables, in FuxiCTR's notation.
        net_regularizer: regulariser of all other parameters, in FuxiCTR's notation.
        eval_steps: batches between two evaluations; None means once per epoch.
        early_stop_patience: a stage ends after this many evaluations without a gain.
        reduce_lr_on_plateau: divide the learning rate by ten after an evaluation without a gain.
        verbose: show a progress bar.
        checkpoint: path of the file with the best weights.
        stage_log: log of the last ``fit``, with one entry per evaluation after training.
        stage_start: log of the last ``fit``, with one entry per stage about its first weights.
    """

    def __init__(
        self,
        feature_map: FeatureMap,
        *,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        accumulation_steps: int = 1,
        negative_sampling_rate: float = 1.0,
        verbose: int = 1,
        **kwargs: Any,
    ) -> None:
        kwargs |= dict(optimizer=optimizer, accumulation_steps=accumulation_steps, verbose=verbose)
        super().__init__(feature_map, learning_rate=learning_rate, **kwargs)
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.accumulation_steps = accumulation_steps
        self.negative_sampling_rate = negative_sampling_rate
        # FuxiCTR keeps these in private attributes; here they are public.
        self.embedding_regularizer = self._embedding_regularizer
        self.net_regularizer = self._net_regularizer
        self.eval_steps = self._eval_steps
        self.early_stop_patience = self._early_stop_patience
        self.reduce_lr_on_plateau = self._reduce_lr_on_plateau
        self.verbose = self._verbose

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def evaluate(
        self,
        data_generator: Iterable[Batch],
        metrics: list[str] | None = None,
        skip_undefined: bool = False,
    ) -> dict[str, float]:
        """Compute metrics over all samples of all ranks, in one pass; by default the configured ones.

        Args:
            data_generator: the batches.
            metrics: their names.
            skip_undefined: leave out a metric that is undefined, with a warning.

        Raises:
            ValueError: a prediction is not finite, or a metric is undefined.
        """
        self.eval()
        scores, labels, groups = [], [], []
        for batch in data_generator:
            scores.append(self.forward(batch)["y_pred"].flatten())
            labels.append(self.get_labels(batch).flatten())
            if self.feature_map.group_id is not None:
                groups.append(self.get_group_id(batch).flatten())
        known = [torch.cat(part).cpu() for part in (scores, labels, groups) if part]
        y_pred, y_true, *group_id = (ranks.gathered(part).numpy() for part in known)
        rate, metrics = self.negative_sampling_rate, metrics or self.validation_metrics
        group = group_id[0] if group_id else None
        results = evaluate_metrics(y_true, y_pred, metrics, group, rate, skip_undefined)
        log_metrics(results, rate)
        return results

    def monitored(self, metrics: Mapping[str, float]) -> float:
        """The monitor, by which the best weights are chosen; more is always better."""
        value = self._monitor.get_value(metrics)
        return -value if self._monitor_mode == "min" else value

    def get_labels(self, inputs: Batch) -> Tensor:
        """The labels ``(B, 1)``, float32, on the model's device."""
        labels = inputs[0][self.feature_map.labels[0]]
        return labels.to(self.device, non_blocking=True).float().view(-1, 1)

    def get_group_id(self, inputs: Batch) -> Tensor:
        """The user or impression of each sample ``(B,)``, for metrics of groups."""
        return inputs[0][self.feature_map.group_id]

    # ---------------------------------------------------------------- stages, by default a single one

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training in order; ``epochs`` is the length of the joint stage."""
        return [Stage(StageName.JOINT, epochs)]

    def enter(self, stage: StageName) -> None:
        """Prepare the model for a stage that is about to begin."""

    def backbone_parts(self) -> tuple[nn.Module, ...]:
        """The parts that the vanilla backbone also has."""
        return (self,)

    def expert_parts(self) -> tuple[nn.Module, ...]:
        """All other parts: experts and routers."""
        return ()

    # ---------------------------------------------------------------- experts, by default none

    @property
    def branches(self) -> Mapping[str, Branch]:
        """The groups of sparse experts by name."""
        return {}

    def routed(self, inputs: Batch) -> dict[str, History]:
        """The sequences of a batch that each branch routes, by the name of the branch."""
        return {}

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Learn what the model has to know of the training data, in one pass over them."""

    def before_experts(self, batches: Iterable[Batch], seed: int) -> None:
        """Prepare the experts for the first stage that trains them.

        Args:
            batches: batches of the training data, of which only as many as needed are read.
            seed: seed of everything random.
        """

    def after_step(self) -> None:
        """Tell the routers that an optimiser step is done."""
        for branch in self.branches.values():
            branch.router.after_step()

    def forget_observed(self) -> None:
        """Drop everything that the routers observed since the last optimiser step."""
        for branch in self.branches.values():
            branch.router.forget()


def log_metrics(metrics: Mapping[str, float], negative_rate: float = 1.0) -> None:
    """Log metrics as one line in FuxiCTR's form, with a remark if some are corrected."""
    line = " - ".join(f"{k}: {v:{'.4g' if k == 'ECE' else '.6f'}}" for k, v in metrics.items())
    remark = correction(metrics, negative_rate)
    logging.info(f"[Metrics] {line}" + (f" ({remark})" if remark else ""))
