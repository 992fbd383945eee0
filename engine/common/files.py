"""Files that are written whole or not at all, and a lock on an open file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from model_zoo.atomic import written_whole

from .errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, and then rename it.

    Raises:
        UserError: it cannot be written. The file is as it was before.
    """
    try:
        with written_whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read, too; errors are those of ``write_text``."""
    write_text(path, json.dumps(content, indent=2))


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write YAML as configurations have it, with keys in order and short values on one line."""
    text = yaml.dump(content, Dumper=_Plain, default_flow_style=None, sort_keys=False, width=100)
    write_text(path, text)


class _Plain(yaml.SafeDumper):
    """Writes no anchors, so that every entry can be read and copied alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def lock(file: int) -> None:
    """Take the lock of an open file, which this process holds until the file is closed.

    Args:
        file: file descriptor, open for writing.

    Raises:
        BlockingIOError: another process holds the lock.
        UserError: the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("Windows has no fcntl to lock files; use Linux, macOS or WSL") from None
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
