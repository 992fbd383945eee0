"""Trials on a Ray cluster of two nodes on this machine, one of which is lost; runs only pretend."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import UserError
from engine.tuner import command

from ...support.command_line import wait_for
from ...support.fake_tuner import FakeTuner, start
from ...support.helpers import without_package
from .test_tuner_scheduler import GRID


@pytest.mark.slow
def test_a_lost_node_is_nobodys_failure(cluster: Any, tmp_path: Path) -> None:
    """Its trials run again, and the reports are those of one machine."""
    calm, lossy = FakeTuner(tmp_path / "calm"), FakeTuner(tmp_path / "lossy")
    lost = tmp_path / "lost"
    for tuner, plan in ((calm, {}), (lossy, {"until": str(lost)})):
        tuner.path.mkdir()
        tuner.write(GRID, epochs=3, **plan)
    assert calm.run(jobs=4) == 0

    def devices() -> list[str]:
        """Where the attempts of all trials ran; a lost one on "a machine"."""
        return [a["device"] for status in lossy.status().values() for a in status["attempts"]]

    second = cluster.add_node(num_cpus=1)
    states = lossy.out / "runs" / "tiny"
    with start(lossy, "ray") as process:
        # One on each node, and both wait, so that none ends before the loss is noticed.
        wait_for(lambda: len(list(states.glob("*.resume"))) == 2, seconds=180)
        cluster.remove_node(second, allow_graceful=False)
        wait_for(lambda: "a machine" in devices(), seconds=180)
        lost.touch()
        shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    assert lossy.reports() == {
        name: text.replace(str(calm.path), str(lossy.path)) for name, text in calm.reports().items()
    }
    assert len(devices()) > 12
    assert "raylet" not in shown and "a machine was lost, back in the queue" in shown


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_runs_end_with_the_tuner(
    how: signal.Signals, code: int, cluster: Any, tmp_path: Path
) -> None:
    tuner = FakeTuner(tmp_path)
    tuner.write({"topk": [1, 2]}, epochs=500, seconds=0.1)
    with start(tuner, "ray") as process:
        wait_for(lambda: list((tuner.out / "runs").glob("tiny/*.resume")))
        process.send_signal(how)
        shown, _ = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in shown, shown

    def progress() -> list[str]:
        return [file.read_text() for file in (tuner.out / "runs").glob("tiny/*.resume")]

    def stands_still() -> bool:
        before = progress()
        time.sleep(0.5)
        return before == progress()

    wait_for(stands_still)


@pytest.mark.slow
def test_a_cluster_without_gpu_is_said(cluster: Any) -> None:
    import ray

    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        command.make_engine([0], 1, ray=True)
    ray.shutdown()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "ray", "engine.tuner.ray_engine", "engine.common.ray_cluster")
    with pytest.raises(UserError, match="pip install ray==2"):
        command.make_engine([-1], 1, ray=True)
