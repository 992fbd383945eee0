"""Commands run in the process of the tests, and must leave it as it is."""

import pytest
import torch

from engine.bench import harness


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Threads and memory stay as they are, and the machine is not measured.

    By default nothing starts a process of its own, which takes seconds; slow tests do.
    """
    for name in ("__main__.set_up_cpu", "__main__.set_up_threads", "data_cases.keep_freed_memory"):
        monkeypatch.setattr(f"engine.bench.{name}", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    machine = {"bytes_per_s": 1e9, "flops_per_s": 1e9}
    monkeypatch.setattr(harness, "measure_machine", lambda device: machine)
    if "slow" not in request.keywords:
        for name in ("data_cases", "inputs", "part_cases"):
            monkeypatch.setattr(
                f"engine.bench.{name}.in_own_process", lambda work, *args: work(*args)
            )
