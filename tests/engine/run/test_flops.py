"""FLOPs by formula against torch's counter, for every model, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import model_zoo
from engine.loader.random_batch import one_sample
from engine.run.flops import counted_flops, describe, measure

from ...support.command_line import Outcome, Workspace, run_module
from ...support.helpers import build_model, random_batch, tiny_params


@pytest.mark.parametrize("name", model_zoo.MODELS)
@pytest.mark.parametrize("length", [3, 60])
def test_formula_agrees_with_the_counter(name: str, length: int, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name)
    found = describe(params, model_zoo.get_model(name), length)
    flops = found["flops"]
    assert flops.counted > 0
    assert flops.products == pytest.approx(flops.counted, rel=0.02)
    assert flops.elementwise >= 0
    assert found["parameters"] == sum(p.numel() for p in build_model(params).parameters())


def test_static_gates_are_counted_too(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "TWIN_DSelectK", dselect_mode="static")
    flops = describe(params, model_zoo.get_model("TWIN_DSelectK"), 20)["flops"]
    assert flops.products == pytest.approx(flops.counted, rel=0.02)


def test_ragged_samples_count_alone_and_without_padding(tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, "TransAct_MoS"))
    lengths = [0, 1, 7, 30, 30]
    batch = random_batch(model.feature_map, lengths, L=30)
    alone = [counted_flops(model, one_sample(batch, b)) for b in range(len(lengths))]
    assert alone[0] < alone[1] < alone[2] < min(alone[3:])
    flops = measure(model, batch)
    assert flops.counted == pytest.approx(sum(alone) / len(alone))
    assert flops.products == pytest.approx(flops.counted, rel=0.02)


def test_experts_that_do_not_run_are_not_counted(tiny_data: Path) -> None:
    """With five experts the cost is that of the one that is read; without alphas, of the backbone."""
    vanilla = build_model(tiny_params(tiny_data, "TransAct"))
    params = tiny_params(tiny_data, "TransAct_MoS", alpha_window=0.0)
    mos = build_model(params)
    batch = random_batch(vanilla.feature_map, [40] * 8, L=40)
    base = measure(vanilla, batch).counted
    one = build_model(params | {"num_experts": 1, "router_topk": 1})
    assert base < measure(mos, batch).counted < measure(one, batch).counted
    none = build_model(params | {"alpha_item": 0.0})
    assert measure(none, batch).counted == base


def test_command_line(tmp_path: Path, tiny_data: Path) -> None:
    space = Workspace(tmp_path, tiny_data)

    def flops(*expids: str) -> Outcome:
        return run_module("engine.flops", "--config", str(space.config), "--expid", *expids)

    done = flops("TWIN_tiny", "TWIN_MoS_tiny")
    assert done.code == 0, done.stderr
    vanilla, mos = (line.split() for line in done.stdout.splitlines()[-2:])
    assert vanilla[0] == "TWIN_tiny" and vanilla[-1] == "1.00"
    assert mos[0] == "TWIN_MoS_tiny" and float(mos[-1]) > 1
    done = flops("TWIN_tini")
    assert done.code == 2 and "did you mean `TWIN_tiny`" in done.stderr
