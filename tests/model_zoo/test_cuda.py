"""On CUDA every model gives what it gives on a CPU, and a whole run comes to its end."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import model_zoo
from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict

from ..support.command_line import ROOT, Workspace
from ..support.helpers import build_model, random_batch, tiny_params
from .test_all_models import spread_embeddings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")

LENGTHS = [0, 1, 4, 20, 60, 33, 8, 60]


def on_cuda(batch: Batch) -> Batch:
    batch_dict, items, mask = batch
    tables = {name: table.cuda() for name, table in items.tables.items()}
    batch_dict = {name: column.cuda() for name, column in batch_dict.items()}
    return batch_dict, ItemDict(tables, items.index.cuda()), mask.cuda()


def outputs(model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Logits, and the gradient of each parameter that has one."""
    out = model(batch)
    model.add_loss(out, model.get_labels(batch)).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"logit": out["logit"].detach()} | gradients


@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_logits_and_gradients(name: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name, verbose=0)
    cpu = spread_embeddings(build_model(params))
    gpu = build_model(params | {"gpu": 0})
    gpu.load_state_dict(cpu.state_dict())
    batch = random_batch(cpu.feature_map, LENGTHS, L=60)
    wanted = outputs(cpu.double().eval(), batch)
    found = outputs(gpu.double().eval(), on_cuda(batch))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(
            found[key].cpu(), value, rtol=1e-6, atol=1e-9 + 1e-7 * float(value.abs().max())
        )


def test_whole_runs(tiny_data: Path, tmp_path: Path) -> None:
    """A run comes to its end, and a second one to the same numbers."""
    results = []
    for name in ("first", "second"):
        space = Workspace(tmp_path / name, tiny_data)
        words = ["--config", str(space.config), "--expid", "TWIN_MoS_tiny", "--seed", "1"]
        command = [sys.executable, str(ROOT / "run_expid.py"), *words, "--gpu", "0"]
        done = subprocess.run(command, cwd=space.cwd, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results.append(space.result("TWIN_MoS_tiny", 1))
    assert results[0]["device"] == torch.cuda.get_device_name(0)
    assert results[1]["metrics"]["test"] == pytest.approx(results[0]["metrics"]["test"], abs=1e-5)
