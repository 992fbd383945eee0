"""What training, evaluation and the routing report use of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..batch import Batch
from ..history.history import History
from ..moe.branch import Branch
from ..moe.stages import Stage, StageName


class Trainable(nn.Module, ABC):
    """A model that ``loop.fit`` can train, in a single stage or in several.

    Attributes:
        optimizer_name: FuxiCTR's name of the optimizer.
        learning_rate: where each stage starts.
        accumulation_steps: batches per optimiser step.
        embedding_regularizer, net_regularizer: in FuxiCTR's notation, of embedding tables and of
            all other parameters.
        eval_steps: optimiser steps between two evaluations; None is once per epoch.
        early_stop_patience: evaluations without a gain that end a stage.
        reduce_lr_on_plateau: an evaluation without a gain divides the learning rate by ten.
        verbose: show a progress bar.
        checkpoint: the file of the best weights.
        stage_log: the last ``fit`` writes one entry per evaluation after training.
        stage_start: the last ``fit`` writes one entry per stage, about the weights it began with.
    """

    optimizer_name: str
    learning_rate: float
    accumulation_steps: int
    embedding_regularizer: float | str | None
    net_regularizer: float | str | None
    eval_steps: int | None
    early_stop_patience: int
    reduce_lr_on_plateau: bool
    verbose: int
    checkpoint: str
    stage_log: list[dict[str, Any]]
    stage_start: list[dict[str, Any]]

    # ---------------------------------------------------------------- one batch

    @abstractmethod
    def forward(self, inputs: Batch) -> dict[str, Tensor]:
        """The prediction ``y_pred (B, 1)`` and whatever ``add_loss`` reads."""

    @abstractmethod
    def get_labels(self, inputs: Batch) -> Tensor:
        """The labels ``(B, 1)``, float32, on the model's device."""

    @abstractmethod
    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """The loss of a forward pass, a scalar, without regularisation."""

    # ---------------------------------------------------------------- evaluation

    @abstractmethod
    def evaluate(self, data_generator: Iterable[Batch]) -> dict[str, float]:
        """The metrics of the configuration over all samples.

        Raises:
            ValueError: a prediction is not finite, or a metric is undefined.
        """

    @abstractmethod
    def monitored(self, metrics: Mapping[str, float]) -> float:
        """The number that chooses the best weights; more is better."""

    @abstractmethod
    def load_weights(self, checkpoint: str) -> None:
        """Load weights from a file."""

    # ---------------------------------------------------------------- stages, by default a single one

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of training in their order; ``epochs`` is the length of the joint one."""
        return [Stage(StageName.JOINT, epochs)]

    def enter(self, stage: StageName) -> None:
        """Prepare for a stage."""

    def backbone_parts(self) -> tuple[nn.Module, ...]:
        """The parts that the vanilla backbone has too; all others belong to ``branches``."""
        return (self,)

    # ---------------------------------------------------------------- experts, by default none

    @property
    def branches(self) -> Mapping[str, Branch]:
        """The groups of sparse experts by name."""
        return {}

    def routed(self, inputs: Batch) -> dict[str, History]:
        """The sequences that each branch routes, by the name of the branch."""
        return {}

    def before_experts(self, batches: Iterable[Batch], seed: int) -> None:
        """Prepare the experts for the first stage that trains them.

        Args:
            batches: of the training data; as many are read as needed.
            seed: of everything random.
        """

    def after_step(self) -> None:
        """Let the routers act on what forward passes observed; called after each optimiser step."""
        for branch in self.branches.values():
            branch.router.after_step()

    def forget_observed(self) -> None:
        """Drop what the routers observed since the last step."""
        for branch in self.branches.values():
            branch.router.forget()
