"""Where a training run stands, and the files of weights and state that it writes."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import written_whole

MIN_DELTA = 1e-6  # the least gain that counts as an improvement, as in FuxiCTR


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


@dataclass
class Progress:
    """Where a run stands, without weights, optimizer and random numbers.

    Attributes:
        stage_index: the number of the present stage, from 0.
        done: its epochs that are done.
        epochs_seen: the epochs of all stages. They decide the order of samples.
        best: the best monitor of the stage, that of its first weights included.
        best_trained: the best monitor after training.
        bad_evaluations: evaluations since then.
        codes: the experts' codes of each branch at the last evaluation.
        stage_log, stage_start: see ``Trainable``.
    """

    stage_index: int = 0
    done: float = 0.0
    epochs_seen: int = 0
    best: float = -math.inf
    best_trained: float = -math.inf
    bad_evaluations: int = 0
    codes: dict[str, Tensor] = field(default_factory=dict)
    stage_log: list[dict[str, Any]] = field(default_factory=list)
    stage_start: list[dict[str, Any]] = field(default_factory=list)

    def start_stage(self, score: float, codes: dict[str, Tensor]) -> None:
        """Begin a stage with weights of this monitor and these codes."""
        self.done, self.best, self.best_trained = 0.0, score, -math.inf
        self.bad_evaluations, self.codes = 0, codes

    def judge(self, score: float) -> bool:
        """Count an evaluation after training; True if its weights are the best of the stage."""
        improved = score > self.best + MIN_DELTA
        if improved:
            self.best = score
        self.bad_evaluations += 1
        if score > self.best_trained + MIN_DELTA:
            self.best_trained, self.bad_evaluations = score, 0
        return improved


def save_atomically(state: dict[str, Any], path: str | Path) -> None:
    """Save with ``torch.save``, so that a kill leaves the old file or the new one.

    Raises:
        TrainingError: the file cannot be written, as on a full disk; the old one is kept.
    """
    try:
        with written_whole(path) as file:
            torch.save(state, file)
    except BaseException as error:
        # On closing, torch's writer fails a second time, with an error of its own.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            why = f"{path}: cannot be written ({cause.strerror}); the last good files are kept"
            raise TrainingError(why) from None
        raise (cause or error) from None


def load_state(path: str | Path) -> tuple[Progress, dict[str, Any]] | None:
    """The state of a run with its progress; None where there is no file or it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Progress(**{part.name: state[part.name] for part in fields(Progress)}), state
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception as error:  # a damaged file may make torch raise anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        logging.warning(f"{path}: damaged ({reason}); the run starts at its beginning")
        return None
