"""Every model with match features: what its head reads, and what it can be combined with."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.run.flops import describe, flops_per_sample
from model_zoo import get_model
from model_zoo.sequence_model import SequenceModel

from ..support.helpers import all_models, build_model, loader, tiny_params

WINDOWS = [60.0]


def built(data: Path, name: str, **changes: Any) -> tuple[SequenceModel, dict[str, Any]]:
    params = tiny_params(data, name, match_features=True, verbose=0, **changes)
    return build_model(params), params


@pytest.mark.parametrize("name", all_models())
def test_the_head_reads_what_the_loader_counts(name: str, tiny_data: Path, tmp_path: Path) -> None:
    model, params = built(tiny_data, name, model_root=str(tmp_path))
    batch = next(iter(loader(params, match_features=True, batch_size=32)))
    model.eval()
    found = model(batch)["logit"]
    assert found.shape == (32, 1)
    batch[1].matches[5] += 1
    changed = (model(batch)["logit"] != found).flatten()
    assert changed.tolist() == [row == 5 for row in range(32)]
    assert flops_per_sample(model, batch).mean > 0
    model.train().add_loss(model(batch), model.get_labels(batch)).backward()


@pytest.mark.parametrize(
    "changes", [{"amp": "bf16"}, {"sparse_embedding": True}, {"longctr_compat": True}]
)
def test_other_keys_keep_the_counts(changes: dict, tiny_data: Path, tmp_path: Path) -> None:
    model, params = built(tiny_data, "TWIN_MoS", model_root=str(tmp_path), **changes)
    train, valid = (loader(params, split, match_features=True) for split in ("train", "valid"))
    model.fit(train, valid, epochs=0.2, seed=1)
    assert model.evaluate(valid)["AUC"] > 0


def test_a_checkpoint_without_the_numbers_does_not_fit(tiny_data: Path, tmp_path: Path) -> None:
    changes = {"model_root": str(tmp_path)}
    for name, on in (("without", False), ("with", True)):
        model = build_model(tiny_params(tiny_data, "TWIN", match_features=on, **changes))
        torch.save(model.state_dict(), tmp_path / name)
    built(tiny_data, "TWIN_MoS", backbone_checkpoint=str(tmp_path / "with"), **changes)
    with pytest.raises(ValueError, match=r"size mismatch for classifier.* the configuration that"):
        built(tiny_data, "TWIN_MoS", backbone_checkpoint=str(tmp_path / "without"), **changes)


@pytest.mark.parametrize("windows", [None, WINDOWS])
def test_flops_of_random_histories(windows: list | None, tiny_data: Path, tmp_path: Path) -> None:
    counted = {}
    about = {"match_windows": windows, "model_root": str(tmp_path)}
    for on in (False, True):
        params = tiny_params(tiny_data, "TWIN", match_features=on, **about)
        counted[on] = describe(params, get_model("TWIN"), 20)
    reader = built(tiny_data, "TWIN", **about)[0].matches
    assert reader is not None
    weights = params["dnn_hidden_units"][0] * reader.width
    assert counted[True][0] - counted[False][0] == weights
    assert counted[True][1].mean - counted[False][1].mean >= 2 * weights
