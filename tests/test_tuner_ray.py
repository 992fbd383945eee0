"""Trials on a Ray cluster of two nodes on this machine, one of which is lost; runs only pretend."""

from __future__ import annotations

import builtins
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.tuner import tune

from .command_line import ROOT
from .fake_tuner import FakeTuner
from .test_tuner_scheduler import GRID, MODES, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def test_a_lost_node_is_nobodys_failure(cluster: Any, tmp_path: Path) -> None:
    """And with everything else that can happen, the reports are those of one machine."""
    calm, lossy = FakeTuner(tmp_path / "calm"), FakeTuner(tmp_path / "lossy")
    for tuner in (calm, lossy):
        tuner.path.mkdir()
        tuner.write(GRID, modes=MODES, epochs=3, seconds=0.3)
    assert calm.run(jobs=4) == 1
    second = cluster.add_node(num_cpus=1)

    def lose() -> None:
        wait_for(lambda: len(list((lossy.out / "trials").glob("*.json"))) >= 3)
        time.sleep(0.4)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        assert lossy.run(engine=tune.make_engine([-1], 1, ray=True)) == 1
    finally:
        thread.join()
    assert lossy.reports() == {
        name: text.replace(str(calm.path), str(lossy.path)) for name, text in calm.reports().items()
    }
    attempts = [a for status in lossy.status().values() for a in status["attempts"]]
    assert "a machine" in {attempt["device"] for attempt in attempts}
    assert len(attempts) > sum(len(s["attempts"]) for s in calm.status().values())


def test_no_gpu_and_no_cluster_are_said(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        tune.make_engine([0], 1, ray=True)
    ray.shutdown()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "engine.tuner.ray_engine", raising=False)
    with pytest.raises(UserError, match="pip install ray==2"):
        tune.make_engine([-1], 1, ray=True)
