"""The progress of a training run, and the files of weights and state that it writes."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import written_whole

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
        best: the best monitor of this stage, including the evaluation at its start.
        best_trained: the best monitor of this stage, without the evaluation at its start.
        bad_evaluations: how many evaluations followed the one with ``best_trained``.
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
        """Begin a stage whose first weights have this monitor and these codes."""
        self.done, self.best, self.best_trained = 0.0, score, -math.inf
        self.bad_evaluations, self.codes = 0, codes

    def judge(self, score: float) -> bool:
        """Count an evaluation; return True if its weights are the best of the stage so far."""
        improved = score > self.best + MIN_DELTA
        if improved:
            self.best = score
        self.bad_evaluations += 1
        if score > self.best_trained + MIN_DELTA:
            self.best_trained, self.bad_evaluations = score, 0
        return improved


def save_atomically(state: dict[str, Any], path: str | Path) -> None:
    """Save with ``torch.save``; after a kill there is the old file or the new one, both whole.

    Raises:
        TrainingError: the file cannot be written, for example on a full disk. The old file is kept.
    """
    try:
        with written_whole(path) as file:
            torch.save(state, file)
    except BaseException as error:
        # When torch's writer closes, it fails again with another error and hides the first.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            why = f"{path}: cannot be written ({cause.strerror}); the last good files are kept"
            raise TrainingError(why) from None
        raise (cause or error) from None


def load_state(path: str | Path, peek: bool = False) -> dict[str, Any] | None:
    """Read the whole state of a run; None if the file is missing or damaged.

    Args:
        path: file of the state.
        peek: for a look at its ``identity``: say nothing of damage, and leave tensors in the file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=peek)
        return state if state["identity"] is not None else None
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception as error:  # a damaged file may make torch raise anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        if not peek:
            logging.warning(f"{path} is damaged ({reason}); the run starts at its beginning")
        return None
