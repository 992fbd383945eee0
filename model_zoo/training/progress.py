"""The progress of a training run, and the files of weights and state that it writes."""

import hashlib
import logging
import math
import os
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import written_whole

MARK = b"sha256:"  # begins what is appended to a file
TAIL = len(MARK) + 64
START = "the run starts at its beginning"
MIN_DELTA = 1e-6  # the least gain that counts as an improvement, as in FuxiCTR


class TrainingError(RuntimeError):
    """Training cannot go on. The message says why and, where possible, what to try."""


@dataclass
class Progress:
    """How far a training run has come. Weights, optimizer and random state are saved with it.

    Attributes:
        stage_index: the number of the present stage, from 0.
        done: how many epochs of this stage are done; may be a fraction.
        epochs_seen: how many epochs all stages have begun; it decides the order of samples.
        step: how many steps of the epoch are done.
        evaluated: how many of these came before the last evaluation.
        total_loss, samples, seconds: of the steps since the last evaluation.
        best: the best monitor of this stage, including the evaluation at its start.
        best_trained: the best monitor of this stage, without the evaluation at its start.
        bad_evaluations: how many evaluations followed the one with ``best_trained``.
        checkpoint: the digest of the checkpoint with the best weights of this stage.
        codes: the experts' codes of each branch at the last evaluation.
        stage_log, stage_start: see ``Trainable``.
    """

    stage_index: int = 0
    done: float = 0.0
    epochs_seen: int = 0
    step: int = 0
    evaluated: int = 0
    total_loss: Tensor | float = 0.0
    samples: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_trained: float = -math.inf
    bad_evaluations: int = 0
    checkpoint: str = ""
    codes: dict[str, Tensor] = field(default_factory=dict)
    stage_log: list[dict[str, Any]] = field(default_factory=list)
    stage_start: list[dict[str, Any]] = field(default_factory=list)

    def start_stage(self, score: float, codes: dict[str, Tensor]) -> None:
        """Begin a stage whose first weights have this monitor and these codes."""
        self.done, self.best, self.best_trained = 0.0, score, -math.inf
        self.bad_evaluations, self.codes, self.step = 0, codes, 0
        self.start_window()

    def start_window(self) -> None:
        """Begin to count anew, after an evaluation."""
        self.evaluated, self.total_loss, self.samples, self.seconds = self.step, 0.0, 0, 0.0

    @property
    def mean_loss(self) -> float:
        """The mean loss since the last evaluation. Reading it waits for the device."""
        return float(self.total_loss / (self.step - self.evaluated))

    def judge(self, score: float) -> bool:
        """Count an evaluation; return True if its weights are the best of the stage so far."""
        improved = score > self.best + MIN_DELTA
        if improved:
            self.best = score
        self.bad_evaluations += 1
        if score > self.best_trained + MIN_DELTA:
            self.best_trained, self.bad_evaluations = score, 0
        return improved


def save_atomically(state: dict[str, Any], path: str | Path) -> str:
    """Save with ``torch.save``; after a kill there is the old file or the new one, both whole.

    A digest of the content is appended, which ``torch.load`` does not read.

    Returns:
        The digest.

    Raises:
        TrainingError: the file cannot be written, for example on a full disk. The old file is kept.
    """
    try:
        with written_whole(path) as file:
            torch.save(state, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.write(MARK + digest.encode())
        return digest
    except BaseException as error:
        # When torch's writer closes, it fails again with another error and hides the first.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            why = f"{path}: cannot be written ({cause.strerror}); the last good files are kept"
            raise TrainingError(why) from None
        raise (cause or error) from None


def digest_of(path: str | Path) -> str:
    """The digest that ``save_atomically`` has appended to a file; empty if it carries none.

    Raises:
        TrainingError: the content has another digest.
    """
    if not os.path.exists(path) or os.path.getsize(path) <= TAIL:
        return ""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        mark, known = data[-TAIL:-64], data[-64:].decode(errors="replace")
        if mark != MARK:
            return ""
        with memoryview(data) as content, content[:-TAIL] as body:
            if hashlib.sha256(body).hexdigest() != known:
                raise TrainingError(f"{path} is damaged: its content is not what was saved")
    return known


def load_saved(path: str | Path, digest: str = "") -> Any:
    """Read a file of weights, after a comparison with the digest that it carries, and with ``digest``.

    Raises:
        TrainingError: the content has another digest. Of a file that is none, torch raises anything.
    """
    if digest_of(path) != digest and digest:
        raise TrainingError(
            f"{path} has weights of another run than the result beside it; restore it, or train again"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def state_before(path: str | Path) -> Path:
    """Where the state before the one in ``path`` is kept."""
    return Path(f"{path}.before")


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Save the state of a run, and keep the one before. Errors are those of ``save_atomically``."""
    if os.path.exists(path):
        os.replace(path, state_before(path))
    save_atomically(state, path)


def load_state(path: str | Path, peek: bool = False) -> dict[str, Any] | None:
    """Read the state of a run, or else the one before it; None if neither is there and whole.

    Args:
        path: file of the state; if it is damaged, it is deleted.
        peek: only look at its ``identity``: say and delete nothing, and leave tensors in the file.
    """
    for file in filter(os.path.exists, (Path(path), state_before(path))):
        try:
            if not digest_of(file):
                raise TrainingError(f"{file} is damaged, or of an earlier version")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=peek)
        except TrainingError as error:
            if not peek:
                file.unlink()  # the next state must not take the place of a whole one
                used = "the state before it is used" if state_before(path).exists() else START
                logging.warning(f"{error}; {used}")
    return None
