"""Every model with match features: what its head reads, and what it can be combined with."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.run.flops import describe, flops_per_sample
from model_zoo import get_model
from model_zoo.history.history import History
from model_zoo.moe.branch import Branch
from model_zoo.sequence_model import SequenceModel

from ..support.helpers import all_models, build_model, loader, random_batch, rows_of, tiny_params
from .test_all_models import spread_embeddings

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


def expert_numbers(branch: Branch, history: History, batch: tuple, b: int) -> tuple[int, list]:
    """The expert of a sample, and what its target shares with the expert's items, one by one."""
    real = batch[2][b] > 0
    gates_TE = branch.router.gates(history)[b][real]
    expert = int(gates_TE[-1].argmax())
    own = batch[1].index[b, :-1][real][gates_TE[:, expert] > 0].tolist()
    counts, shares, closeness = [], [], []
    for table in (t for t in batch[1].tables.values() if t.dtype == torch.long):
        value = table[batch[1].index[b, -1]]
        places = [len(own) - i for i, item in enumerate(own) if table[item] == value]
        counts.append(math.log1p(len(places)))
        shares.append(len(places) / len(own))
        closeness.append(1 / min(places, default=math.inf))
    return expert, counts + shares + closeness


@pytest.mark.parametrize("name", ["TWIN_MoS", "Mamba4Rec_GShard"])
def test_an_expert_adds_what_matches_in_its_part(name: str, tiny_data: Path) -> None:
    """Counted one by one, whatever stands in the padding or in other samples of the batch."""
    model, _ = built(tiny_data, name, expert_match=True, router_topk=1)
    spread_embeddings(model).double().eval()
    lengths = [0, 1, 5, 20, 13]
    batch = random_batch(model.feature_map, lengths, L=20)
    for table in batch[1].tables.values():
        if table.dtype == torch.long:
            table[1:] = table[1:] % 4 + 1  # so few values that some match
    branch_name, branch = next(iter(model.branches.items()))
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_hook(lambda *args: seen.append(args[2][0].detach()))
    model(batch)
    assert branch.match_EMH is not None and not branch.match_EMH.any()
    torch.nn.init.normal_(branch.match_EMH)
    logit = model(batch)["logit"]
    history, _ = model.embed_items(batch)
    gates_BE = branch.router.gates(history)[:, -1]
    for b, length in enumerate(lengths):
        added = torch.zeros_like(seen[0][b])
        if length:
            expert, numbers = expert_numbers(branch, history, batch, b)
            linear = torch.tensor(numbers, dtype=torch.float64) @ branch.match_EMH[expert]
            added = model.encoder.alphas[branch_name] * gates_BE[b, expert] * linear.detach()
        torch.testing.assert_close(seen[1][b] - seen[0][b], added, rtol=1e-6, atol=1e-6)
        alone = model(rows_of(batch, [b], cut=20 - max(length, 1)))["logit"]
        torch.testing.assert_close(alone[0], logit[b])
    model.train().add_loss(model(batch), model.get_labels(batch)).backward()
    assert branch.match_EMH.grad.abs().sum() > 0


def test_experts_need_match_features_to_read_matches(tiny_data: Path) -> None:
    with pytest.raises(ValueError, match="expert_match: needs match_features"):
        build_model(tiny_params(tiny_data, "TWIN_MoS", expert_match=True, verbose=0))
