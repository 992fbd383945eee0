"""The page on scaling divides a table by rows among processes; the losses are those of a whole table."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from engine.predict.scores import evaluate

from ...support.command_line import ROOT
from .test_torchrun import EXPID, SEED, Torchrun, workspace

NEEDED = ("torchrec", "fbgemm_gpu", "tensordict")


def write_model(zoo: Path) -> None:
    """Write the model of the page, for tables of any size."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    title, text = re.findall(r'^```python title="mine/(.*)"\n([\s\S]*?)^```$', page, re.M)[0]
    zoo.mkdir()
    (zoo / title).write_text(text.replace("LARGE = 1_000_000", "LARGE = 0"))


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="torchrec is not installed")
def test_a_divided_table_trains_as_a_whole_one(tiny_data: Path, tmp_path: Path) -> None:
    write_model(zoo := tmp_path / "mine")
    alone, space = workspace(tmp_path / "1", tiny_data), workspace(tmp_path / "2", tiny_data)
    given = "--model-zoo", str(zoo)
    for each in (alone, space):
        each.change_model(
            EXPID,
            model="ShardedTWIN_MoS",
            epochs=1,
            eval_steps=3,
            learning_rate=0.01,
            monitor="AUC",
        )
    done = alone.run_expid("--expid", EXPID, "--seed", str(SEED), *given)
    assert done.code == 0, done.stderr
    done = Torchrun(space, *given).wait()
    assert done.code == 0, done.stderr

    one, two = alone.result(EXPID, SEED), space.result(EXPID, SEED)
    assert two["num_parameters"] < one["num_parameters"]  # the rows of the first process
    assert len(one["stage_log"]) == 9
    for key in ("train_loss", "logloss"):
        whole, divided = ([entry[key] for entry in r["stage_log"]] for r in (one, two))
        assert divided == pytest.approx(whole, abs=1e-6)
    assert any(entry["best"] for entry in two["stage_log"][6:])  # so these weights were trained
    weights = [torch.load(each.file(EXPID, SEED, "model")) for each in (alone, space)]
    torch.testing.assert_close(*reversed(weights), rtol=0, atol=1e-3)
    assert evaluate(space.file(EXPID, SEED, "json")) == pytest.approx(
        two["metrics"]["test"], abs=1e-6
    )
