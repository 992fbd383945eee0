"""What the documents say exists: experiment ids, commands and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config.read import list_experiments

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md", "data/README.md", "model_zoo/README.md", "benchmark_results/README.md", "docs/performance.md", "docs/results.md",
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_experiment_ids_and_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    known = list_experiments(ROOT / "config")
    own = [
        line for line in text.splitlines() if "--config" not in line
    ]  # the shipped configuration
    for expids in re.findall(r"--expid ((?:[\w.]+ ?)+)", "\n".join(own)):
        for expid in expids.split():
            assert expid in known, expid
    for path in re.findall(r"`([\w/]+\.(?:py|yaml|md|txt))`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (engine[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_first_screen_has_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text()[:2500]
    assert len(re.findall(r"^python3 -m venv .*$", first_screen, re.M)) == 2
    assert re.search(r"^python3 -m venv .*pytest$", first_screen, re.M)


def test_experiments_are_named_after_model_and_data_set() -> None:
    for expid, (model, dataset_id) in list_experiments(ROOT / "config").items():
        assert expid == f"{model}_{dataset_id}"
