"""Files of weights and state that a kill leaves whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


def save_atomically(state: dict[str, Any], path: str | Path) -> None:
    """Write beside ``path`` and rename, so that a kill leaves the old file or the new one.

    Raises:
        TrainingError: it cannot be written, on a full disk for one; the old file is kept.
        KeyboardInterrupt: of Ctrl-C while it is written; the old file is kept.
    """
    temporary = Path(f"{path}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the name without the content
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # On closing, torch's writer fails a second time, with an error of its own.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        if isinstance(cause, OSError):
            raise TrainingError(
                f"{path}: cannot be written ({cause.strerror}); the last good files are kept"
            ) from None
        raise
