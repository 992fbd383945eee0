"""A net under every model: names of its state, first losses and the metrics of a short run.

``kept/net.json`` holds what the models computed before the code was rearranged. Everything runs in
float64, so that another processor gives the same numbers. ``python -m tests.test_net`` writes the
file anew, after a change of the numbers that is meant: look at its diff.
"""

import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.datasets import synthetic
from engine.datasets.prepared import layout

from .support.helpers import NEARLY_ALL, all_models, build_model, loader, tiny_params

EXPECTED = Path(__file__).parent / "kept" / "net.json"
STEPS = 5
BATCH = 64


def net_params(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """The parameters with which a model is caught in the net."""
    changes = {"backbone_warmup_epochs": 0.5, "expert_warmup_epochs": 0.5}
    params = tiny_params(data, name, batch_size=BATCH, model_root=str(folder), verbose=0)
    params |= {key: value for key, value in changes.items() if key in params or "_" in name}
    return params


def state(params: dict[str, Any]) -> dict[str, list[int]]:
    """Name and shape of everything that a checkpoint holds."""
    return {name: list(value.shape) for name, value in build_model(params).state_dict().items()}


def first_losses(params: dict[str, Any]) -> list[float]:
    """The losses of the first steps of Adam, dropout included."""
    model = build_model(params).double().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    torch.manual_seed(1)
    for batch in islice(loader(params, shuffle=True, seed=3), STEPS):
        loss = model.add_loss(model(batch), model.get_labels(batch).double())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    return losses


def short_run(params: dict[str, Any]) -> dict[str, float]:
    """The test metrics after half an epoch of each stage, and the training loss of each stage."""
    model = build_model(params).double()
    model.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=0.5, seed=5)
    losses = {f"loss of {entry['stage']}": entry["train_loss"] for entry in model.stage_log}
    return model.evaluate(loader(params, "test")) | losses


MODELS = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else dict.fromkeys(NEARLY_ALL)


@pytest.mark.parametrize("name", MODELS)
def test_the_first_losses_are_what_they_were(name: str, tiny_data: Path, tmp_path: Path) -> None:
    params = net_params(name, tiny_data, tmp_path)
    assert state(params) == MODELS[name]["state"]
    found, expected = first_losses(params), MODELS[name]["losses"]
    assert found[:2] == pytest.approx(expected[:2], abs=1e-9)
    # Adam enlarges the rounding of gradients near zero, which differs between processors.
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", all_models(["TWIN", "TWIN_MoS"], list(MODELS)))
def test_a_short_run_ends_where_it_did(name: str, tiny_data: Path, tmp_path: Path) -> None:
    metrics = short_run(net_params(name, tiny_data, tmp_path))
    assert metrics == pytest.approx(MODELS[name]["metrics"], abs=1e-6)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "session_hopping_tiny"
        layout.write(synthetic.generate(synthetic.SIZES["tiny"], seed=1), data)
        found = {}
        for name in NEARLY_ALL:
            params = net_params(name, data, Path(folder))
            found[name] = {
                "state": state(params),
                "losses": first_losses(params),
                "metrics": short_run(params),
            }
    lines = [
        f'  "{name}": {{\n'
        + ",\n".join(f'    "{key}": {json.dumps(value)}' for key, value in entry.items())
        + "\n  }"
        for name, entry in found.items()
    ]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
