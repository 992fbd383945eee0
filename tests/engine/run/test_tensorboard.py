"""``tensorboard: True``: what TensorBoard reads is what the result says."""

import sys
from pathlib import Path

import pytest

from engine.common.errors import UserError
from engine.run.artifacts import ScalarWriter

from ...support.command_line import Workspace


@pytest.mark.slow
def test_scalars_are_those_of_the_stage_log(tmp_path: Path, tiny_data: Path) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    space = Workspace(tmp_path, tiny_data)
    space.change_model("TWIN_MoS_tiny", tensorboard=True, epochs=2)
    for _ in range(2):  # the second run replaces the first one's scalars
        outcome = space.run_expid("--expid", "TWIN_MoS_tiny")
        assert outcome.code == 0, outcome.stderr
    folder = space.checkpoints / "tiny" / "tensorboard" / "TWIN_MoS_tiny_seed2024"
    reader = events.EventAccumulator(str(folder))
    reader.Reload()
    log = space.result("TWIN_MoS_tiny", 2024)["stage_log"]
    for tag, key in (("train/train_loss", "train_loss"), ("valid/gAUC", "gAUC")):
        written = reader.Scalars(tag)
        assert [event.step for event in written] == list(range(1, len(log) + 1))
        assert [event.value for event in written] == pytest.approx([entry[key] for entry in log])
    with_experts = [entry["routing"]["window"] for entry in log if entry["routing"]]
    for expert in range(5):
        loads = [event.value for event in reader.Scalars(f"routing/window/load/{expert}")]
        assert loads == pytest.approx([branch["item_share"][expert] for branch in with_experts])
    assert not any("best" in tag or "epoch" in tag for tag in reader.Tags()["scalars"])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install -r requirements-extras"):
        ScalarWriter(tmp_path / "scalars")
    assert not (tmp_path / "scalars").exists()
