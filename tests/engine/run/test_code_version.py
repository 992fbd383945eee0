"""The commit that a result names."""

import subprocess
from pathlib import Path

import pytest

from engine.run.experiment import commit_of


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a module, and one file that is not code."""
    root = tmp_path / "outer" / "checkout"
    (root / "engine").mkdir(parents=True)
    (root / "engine" / "run.py").write_text("1\n")
    (root / "results.json").write_text("1\n")
    git(root, "init", "-q")
    commit(root)
    return root


def git(root: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "all")


def test_clean_changed_and_new_code(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")[:12]
    assert commit_of(checkout) == head
    (checkout / "results.json").write_text("2\n")
    assert commit_of(checkout) == head  # no code
    new = checkout / "engine" / "new.py"
    new.write_text("1\n")
    assert commit_of(checkout) == f"{head}-dirty"
    new.unlink()
    (checkout / "engine" / "run.py").write_text("2\n")
    assert commit_of(checkout) == f"{head}-dirty"


def test_no_git_no_checkout_and_a_repository_around(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = checkout / "vendored"
    (copy / "engine").mkdir(parents=True)
    (copy / "engine" / "run.py").write_text("1\n")
    assert commit_of(copy) == ""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent.parent))
    assert commit_of(checkout.parent) == ""
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) == ""
