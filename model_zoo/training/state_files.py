"""Files of weights and training state, and the error that ends a training run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..atomic import written_whole


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


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
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        if isinstance(cause, OSError):
            raise TrainingError(
                f"{path}: cannot be written ({cause.strerror}); the last good files are kept"
            ) from None
        raise


def load_state(path: str | Path) -> dict[str, Any] | None:
    """The state that ``save_atomically`` wrote; None where there is no file or it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception as error:  # a damaged file may make torch raise anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        logging.warning(f"{path}: damaged ({reason}); the run starts at its beginning")
        return None
