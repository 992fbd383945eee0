"""A trial: one combination of parameters and its outcome. A digest of the parameters is its name."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from ..common.errors import UserError
from ..common.schema import Metrics, Schema, Size, one_of, rule
from ..config.read import DATA_PATHS, monitor_modes

QUEUED, RUNNING, DONE, FAILED, PRUNED = "queued", "running", "done", "failed", "pruned"
ENDED = (DONE, FAILED, PRUNED)
HALVINGS = 5  # how often the batch size is halved after a trial ran out of memory
DIGITS = 12  # the length of the digest in a trial's name
# Keys that do not change a result: paths and names of files, and how much is shown.
NOT_OF_THE_TRIAL = ("model_root", "model_id", "verbose", "num_workers", *DATA_PATHS)


class Status(Schema):
    """What the status file of a trial holds of it."""

    status: Annotated[str, one_of(QUEUED, RUNNING, *ENDED)]
    tuned: dict[str, Any]
    changes: Annotated[
        dict[str, Size], rule("lacks batch_size", lambda c: "batch_size" in c or not c)
    ]
    attempts: list[dict[str, Any]]
    reason: str | None
    log_tail: list[str]
    metrics: dict[str, Metrics]
    dataset_hash: str | None

    @model_validator(mode="after")
    def _is_measured_once_done(self) -> "Status":
        if self.status == DONE and not {"valid", "test"} <= self.metrics.keys():
            raise ValueError("is done, and lacks metrics of valid or test")
        return self


@dataclass
class Trial:
    """One combination of parameters. Its status file has all attributes but ``params``.

    Attributes:
        name: ``<base_expid>_<digest>``.
        params: the parameters of the model and of the data set.
        tuned: the parameters that the grid varies.
        status: one of the five constants at the top of this file.
        changes: the parameters that were changed after running out of memory.
        attempts: start, end, exit code and device of each run. The end is missing if the tuner was killed.
        reason: why the trial failed, in one line.
        log_tail: the last lines of the output of a failed run.
        metrics: the metrics on validation and test data, once the trial is done.
        dataset_hash: the hash of the data that the metrics come from.
        label: an experiment id that several trials share, such as the seeds of a study.
    """

    name: str
    params: dict[str, Any]
    tuned: dict[str, Any]
    status: str = QUEUED
    changes: dict[str, int] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    log_tail: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    dataset_hash: str | None = None
    label: str = ""

    @property
    def expid(self) -> str:
        """The experiment id. A changed batch size gives another id, so that the run starts afresh."""
        ending = f"_batch{self.changes['batch_size']}" if self.changes else ""
        return (self.label or self.name) + ending

    @property
    def run_name(self) -> str:
        """The start of the names of the run's files: ``<dataset_id>/<expid>_seed<seed>``."""
        return f"{self.params['dataset_id']}/{self.expid}_seed{self.params['seed']}"

    def final_params(self) -> dict[str, Any]:
        """The parameters that the next run gets."""
        return self.params | self.changes

    def halve_batch(self) -> bool:
        """Halve the batch and double the batches per step, which takes less memory.

        Returns:
            False if the batch cannot be halved again.
        """
        params = self.final_params()
        batch_size, steps = int(params["batch_size"]), int(params.get("accumulation_steps", 1))
        if batch_size < 2 or int(self.params["batch_size"]) // batch_size >= 2**HALVINGS:
            return False
        self.changes = {"batch_size": batch_size // 2, "accumulation_steps": steps * 2}
        return True

    def to_json(self) -> dict[str, Any]:
        """The content of the status file."""
        return {key: value for key, value in vars(self).items() if key != "params"}

    def back_to_queue(self) -> None:
        """Queue the trial again. If it failed, its batch size is restored, in case there is memory now."""
        if self.status == FAILED:
            self.changes = {}
        self.status = QUEUED

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the trial from a ``Status``. If it was running, it goes back into the queue."""
        for key in self.to_json().keys() - {"name", "tuned", "label"}:
            setattr(self, key, saved[key])
        if self.status == RUNNING:
            self.status = QUEUED

    def require_monitored(self, file: Path) -> None:
        """Raise a UserError if the trial is done, but a metric of its monitor is not in its file."""
        for metric in monitor_modes(self.params.get("monitor", {})) if self.status == DONE else ():
            if metric not in self.metrics["valid"]:
                raise UserError(f"{file}: lacks {metric} of {self.name}; delete it to run it again")


def digest(params: dict[str, Any]) -> str:
    """The start of the SHA-256 of all parameters.

    It depends neither on the order of the keys nor on whether a number is written ``1`` or ``1.0``.
    """
    kept = {key: value for key, value in params.items() if key not in NOT_OF_THE_TRIAL}
    floats = json.loads(json.dumps(kept), parse_int=float)
    return hashlib.sha256(json.dumps(floats, sort_keys=True).encode()).hexdigest()[:DIGITS]


def as_text(value: Any) -> str:
    """Write the value of a parameter, or a mapping of several, as in YAML."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(entry)}" for key, entry in value.items())
    return value if isinstance(value, str) else json.dumps(value)
