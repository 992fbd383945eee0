"""The index of a study, ``study.json``."""

from typing import Any

from pydantic import Field, model_validator

from ..common.schema import ABSENT, Count, Metrics, Schema, Seed, Share, Size

# What each experiment varies, which its figure reads.
VARIES = {
    "length": ["max_len"], "experts": ["num_experts"], "alphas": ["alpha_item", "alpha_window"],
    "start": ["embedding_initializer"],
}  # fmt: skip


class Varied(Schema):
    """The keys that a cell sets."""

    max_len: Size = ABSENT
    num_experts: Count = ABSENT
    alpha_item: Share = ABSENT
    alpha_window: Share = ABSENT
    embedding_initializer: str = ABSENT


class PlannedCell(Schema):
    """A configuration that a study compares."""

    experiment: str
    model: str
    varied: Varied
    expid: str
    seeds: list[Seed] = Field(min_length=1)
    budget: Size
    changes: dict[str, Any]

    @model_validator(mode="after")
    def _varies_what_its_figure_reads(self) -> "PlannedCell":
        for key in VARIES.get(self.experiment, ()):
            if getattr(self.varied, key) is ABSENT:
                raise ValueError(f"is of {self.experiment}, and lacks varied.{key}")
        return self


class Tuned(Schema):
    """A trial of tuning."""

    model: str
    expid: str
    seed: Seed
    tuned: dict[str, Any]
    valid: Metrics
    chosen: bool


class Study(Schema):
    """The index of a study: its calls, its cells, and the tuning of their models."""

    dataset_id: str
    dataset_hash: str = ABSENT
    studies: list[dict[str, Any]] = ABSENT
    cells: list[PlannedCell]
    tuning: list[Tuned] = ABSENT
