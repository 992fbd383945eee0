"""Shared fixtures: the tiny data set; one thread, for small tensors only lose by more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from engine.datasets import layout, synthetic

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which parts of torch do


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny synthetic data set, written once; tests must not change it."""
    folder = tmp_path_factory.mktemp("data") / "session_hopping_tiny"
    layout.write(synthetic.generate(synthetic.SIZES["tiny"], seed=1), folder)
    return folder
