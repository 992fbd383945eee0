"""Commands run in the process of the tests, and must leave it as it is."""

from __future__ import annotations

import pytest
import torch

from engine.bench import harness


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and memory stay as they are, and the machine is not measured."""
    for name in ("set_up_cpu", "set_up_threads"):
        monkeypatch.setattr(f"engine.bench.__main__.{name}", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    machine = {"bytes_per_s": 1e9, "flops_per_s": 1e9}
    monkeypatch.setattr(harness, "measure_machine", lambda device: machine)
