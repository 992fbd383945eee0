"""The files with what a run reached: its result, and its progress while it trains."""

from typing import Any

from pydantic import Field, model_validator

from ..common import schema
from ..common.schema import ABSENT, AnyFloat, Measured, Metrics, Schema, Splits
from ..datasets.prepared.card import Negatives


class Branch(Schema):
    """How a branch of a mixture routes; what is unknown is null."""

    item_share: list[AnyFloat] = Field(min_length=1)
    item_entropy: AnyFloat | None
    switch_rate: AnyFloat | None


class TestedBranch(Branch):
    """How a branch routes the test data after training."""

    sample_share: list[AnyFloat]
    sample_entropy: AnyFloat
    dead: list[int]
    consistency: AnyFloat | None
    unserved: AnyFloat | None


class Evaluation(Measured):
    """An evaluation while a model trains."""

    stage: str
    epoch: schema.NotBelow0


class Logged(Evaluation):
    """An evaluation in the result."""

    best: bool
    routing: dict[str, Branch]


class Start(Logged):
    """The evaluation of the weights that a stage starts from."""

    epoch: schema.NotBelow0 = ABSENT
    routing: dict[str, Branch] = ABSENT


class Progress(Schema):
    """The evaluations so far, and how long they took."""

    stage_log: list[Evaluation]
    fit_seconds: schema.NotBelow0 = ABSENT  # older files lack it


class Params(Schema):
    """The parameters of a run that tables and studies read."""

    max_len: schema.Size
    batch_size: schema.Size
    accumulation_steps: schema.Size = ABSENT
    epochs: schema.Above0 = ABSENT


class Seconds(Schema):
    """How long a run took."""

    total: schema.NotBelow0


class Result(Schema):
    """The result of a run."""

    expid: str
    seed: schema.Seed
    model: str
    dataset_id: schema.Name
    dataset_hash: str
    metrics: Splits
    stage_log: list[Logged] = Field(min_length=1)
    stage_start: list[Start] = ABSENT
    routing: dict[str, TestedBranch]
    params: Params
    set: dict[str, Any] = ABSENT
    bayes: Metrics
    negatives: Negatives | None = ABSENT
    versions: dict[str, Any]
    command: list[str]
    device: str
    threads: schema.Count | None = ABSENT
    num_parameters: schema.Size
    flops_per_sample: schema.Above0 | None
    flops_per_sample_error: schema.NotBelow0 | None = ABSENT
    train_samples_per_s: schema.Above0 | None
    test_samples_per_s: schema.Above0 | None
    serving_ms: schema.Above0 | None = ABSENT  # older files lack it
    peak_memory_bytes: schema.Above0 | None
    seconds: Seconds

    @model_validator(mode="after")
    def _has_the_same_experts_throughout(self) -> "Result":
        logged = [entry.routing for entry in self.stage_log]
        sizes = [{name: len(b.item_share) for name, b in routing.items()} for routing in logged]
        if any(size not in ({}, sizes[-1]) for size in sizes):
            raise ValueError("the number of experts changes in its stage_log")
        return self
