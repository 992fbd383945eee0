"""Find the commit of the code that makes a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

CODE = ("run_expid.py", "engine", "model_zoo")


def commit_of(root: Path) -> str:
    """The commit that is checked out in ``root``, with ``-dirty`` at its end if code was changed.

    It is empty without git, and if ``root`` only lies inside another repository.
    """
    try:
        if not _git(root, "ls-files", "--", *CODE):
            return ""
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):  # no git, no checkout, or no commit yet
        return ""
    return commit + ("-dirty" if changed else "")


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", *words]
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
