"""The time to score one user's candidates: it leaves the model alone, and its failure loses no run."""

import copy
import logging
from pathlib import Path

import pytest
import torch

from engine.config.load import load
from engine.config.options import RunOptions
from engine.run import serving_time
from engine.run.experiment import _build
from engine.run.flops import spread_batch
from engine.run.serving_time import serving_ms
from model_zoo.serving import ServedModel


@pytest.mark.parametrize("model", ["TWIN_MoS", "Mamba4Rec"])
def test_timing_leaves_the_model_as_it_is(tiny_data: Path, model: str) -> None:
    options = RunOptions(data_root=tiny_data.parent)
    trained, loaders = _build(load(f"{model}_session_hopping_tiny", options), "run")
    before, needs = (
        copy.deepcopy(trained.state_dict()),
        [p.requires_grad for p in trained.parameters()],
    )
    drawn = torch.get_rng_state()
    found = serving_ms(trained, spread_batch(loaders["test"]), 50)
    assert found is not None and found > 0
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert [p.requires_grad for p in trained.parameters()] == needs
    assert torch.equal(torch.get_rng_state(), drawn)
    shared = ServedModel(trained, 50).model.embedding_layer.parameters()  # tables may be large
    own = trained.embedding_layer.parameters()
    assert [p.data_ptr() for p in shared] == [p.data_ptr() for p in own]


def test_a_serving_time_that_cannot_be_measured_is_told(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained, loaders = _build(
        load("TWIN_session_hopping_tiny", RunOptions(data_root=tiny_data.parent)), "run"
    )

    def fail(*_: object) -> float:
        raise RuntimeError("the block reads the whole batch")

    monkeypatch.setattr(serving_time, "ServedModel", fail)
    with caplog.at_level(logging.WARNING):
        assert serving_ms(trained, spread_batch(loaders["test"]), 50) is None
    assert "was not measured (RuntimeError: the block reads the whole batch)" in caplog.text
