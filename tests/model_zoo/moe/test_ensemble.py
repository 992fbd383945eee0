"""The ensemble: the mean of its blocks, each on the whole history, in the stages of MoS.

Shape suffixes: B samples, D item width.
"""

from pathlib import Path

import pytest
import torch

from model_zoo.backbones.twin import TWINBlock
from model_zoo.moe.ensemble import Ensemble
from model_zoo.training.optimizer import frozen_modules

from ...support.helpers import build_model, loader, ragged_history, tiny_params

D, L = 6, 12
LENGTHS = [0, 1, 3, 12, 9]


@pytest.mark.parametrize("k", [1, 2])
def test_the_output_is_the_mean_of_the_blocks_of_a_stage(k: int) -> None:
    ensemble = Ensemble(lambda: TWINBlock(D, attention_dim=8, topk=4), D, router_topk=k).double()
    blocks = [ensemble.global_block, *ensemble.blocks]
    assert len(blocks) == 1 + 2 * k
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    each = torch.stack([block(history, target_BD) for block in blocks])
    assert (each[0] - each[1]).abs().max() > 1e-3
    expected = {"backbone": each[0], "experts": each[1:].mean(0), "joint": each.mean(0)}
    assert [stage.name for stage in ensemble.stages(3)] == list(expected)
    for stage in ensemble.stages(3):
        ensemble.enter(stage.name)
        torch.testing.assert_close(ensemble(history, target_BD)[0], expected[stage.name])
    with pytest.raises(ValueError, match="router_topk=0 is too small"):
        Ensemble(lambda: TWINBlock(D), D, router_topk=0)


def test_it_trains_in_the_stages_of_mos_and_reports_no_routing(
    tiny_data: Path, tmp_path: Path
) -> None:
    keys = dict(model_root=str(tmp_path), backbone_warmup_epochs=0.1, expert_warmup_epochs=0.1)
    params = tiny_params(tiny_data, "TWIN_Ensemble", verbose=0, **keys)
    model, twin = build_model(params), build_model(tiny_params(tiny_data, "TWIN", verbose=0))
    start = model.state_dict()
    assert all(value.equal(start[name]) for name, value in twin.state_dict().items())
    parts = {False}, {True}, {False, True}
    for stage, trains in zip(model.stages(1.0), parts, strict=True):
        with frozen_modules(model, stage.name):
            named = model.named_parameters()
            assert {"encoder.blocks" in name for name, p in named if p.requires_grad} == trains
    model.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=0.1)
    assert [entry["stage"] for entry in model.stage_log] == ["backbone", "experts", "joint"]
    assert all(entry["routing"] == {} for entry in model.stage_log)
