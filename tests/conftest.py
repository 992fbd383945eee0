"""Shared fixtures: the tiny data set; one thread, for small tensors only lose by more."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.datasets import synthetic
from engine.datasets.prepared import layout

from .support.command_line import ROOT

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which parts of torch do


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny synthetic data set, written once; tests must not change it."""
    folder = tmp_path_factory.mktemp("data") / "session_hopping_tiny"
    layout.write(synthetic.generate(synthetic.SIZES["tiny"], seed=1), folder)
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of one machine with one core, to which a test can add others."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()
