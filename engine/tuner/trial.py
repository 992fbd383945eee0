"""A trial: one combination of parameters, known by a digest of all of them, and what became of it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..config.read import DATA_PATHS

QUEUED, RUNNING, DONE, FAILED, PRUNED = "queued", "running", "done", "failed", "pruned"
HALVINGS = 5  # of the batch size after running out of memory
DIGITS = 12  # of the digest, in a trial's name
# Where files are, what they are called, and how much is shown.
NOT_OF_THE_TRIAL = ("model_root", "model_id", "verbose", "num_workers", *DATA_PATHS)

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass
class Trial:
    """One combination of parameters; all but ``params`` is in its status file.

    Attributes:
        name: ``<base_expid>_<digest>``.
        params: of the model and of the data set, as the tuner file gives them.
        tuned: the part of them that the tuner file varies.
        status: one of the five above.
        changes: parameters changed after running out of memory.
        attempts: start, end, exit code and device of each run; the end is missing after a kill.
        reason: why it failed, in one line; ``log_tail``: the last lines of its output.
        metrics: of validation and test, when done; ``dataset_hash``: of the data they are on.
        label: the experiment id where several trials share it, as the seeds of a study do.
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
        """Its experiment id. A changed batch size is another one: the run starts afresh."""
        return (self.label or self.name) + (
            f"_batch{self.changes['batch_size']}" if self.changes else ""
        )

    @property
    def run_name(self) -> str:
        """``<dataset_id>/<expid>_seed<seed>``, what the files of its run start with."""
        return f"{self.params['dataset_id']}/{self.expid}_seed{self.params['seed']}"

    def final_params(self) -> dict[str, Any]:
        """The parameters with the changes."""
        return self.params | self.changes

    def halve_batch(self) -> bool:
        """Half the batch, twice the batches per step: the same samples per step in less memory.
        False where it cannot be halved again."""
        params = self.final_params()
        batch_size, steps = int(params["batch_size"]), int(params.get("accumulation_steps", 1))
        if batch_size < 2 or int(self.params["batch_size"]) // batch_size >= 2**HALVINGS:
            return False
        self.changes = {"batch_size": batch_size // 2, "accumulation_steps": steps * 2}
        return True

    def to_json(self) -> dict[str, Any]:
        """What the status file holds."""
        return {key: value for key, value in vars(self).items() if key != "params"}

    def back_to_queue(self) -> None:
        """Run it again; what made it run out of memory may be gone."""
        if self.status == FAILED:
            self.changes = {}
        self.status = QUEUED

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up what a status file holds; a trial that was running goes back into the queue."""
        for key in ("status", "changes", "attempts", "reason", "log_tail", "metrics"):
            setattr(self, key, saved[key])
        self.dataset_hash = saved["dataset_hash"]
        if self.status == DONE:
            _ = self.metrics["valid"], self.metrics["test"]  # KeyError in a damaged file
        if self.status == RUNNING:
            self.status = QUEUED


def digest(params: dict[str, Any]) -> str:
    """The start of the SHA-256 of all parameters, in any order and spelling of numbers."""
    kept = {key: value for key, value in params.items() if key not in NOT_OF_THE_TRIAL}
    return hashlib.sha256(canonical(kept).encode()).hexdigest()[:DIGITS]


def canonical(value: Any) -> str:
    """One text for equal values: ``1``, ``1.0`` and ``'1e0'`` are the same number."""
    return json.dumps(_plain(value), sort_keys=True)


def number(value: Any) -> Any:
    """``'1e-3'``, which YAML 1.1 takes for a text, as the number it is; anything else as it is."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def as_text(value: Any) -> str:
    """A parameter's value, or several, as in YAML."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {as_text(entry)}" for key, entry in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    value = number(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value
