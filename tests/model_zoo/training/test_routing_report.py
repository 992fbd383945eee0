"""The routing report against counting by hand: each history alone, item by item.

Shape suffixes: B samples, L history length, T items or windows, E experts, D item width.
"""

import logging
import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from model_zoo.sequence_model import SequenceModel
from model_zoo.training.routing_report import log_report, routing_report

from ...support.helpers import build_model, codebooks, loader, random_batch, tiny_params
from ..moe.test_mixtures import windows_of
from ..test_all_models import spread_embeddings

LENGTHS = [0, 1, 2, 30, 30, 13, 8, 21]
MODELS = ["TWIN_MoS", "TWIN_GShard", "TWIN_DSelectK", "TWIN_ExpertChoice"]


def make_model(data: Path, name: str, **changes: Any) -> SequenceModel:
    """A float64 model whose gates differ from item to item."""
    model = build_model(tiny_params(data, name, **changes), seed=3)
    for branch in model.branches.values():
        if name != "TWIN_MoS":
            for parameter in branch.router.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
    return spread_embeddings(model).double().eval()


def make_batches(model: SequenceModel, count: int) -> list[tuple]:
    """Ragged batches of few items, so that most appear often; item 39 only once."""
    batches = [
        random_batch(model.feature_map, LENGTHS, 30, num_items=39, seed=seed)
        for seed in range(count)
    ]
    for _, items, _ in batches:  # one table for all, as a loader has
        items.tables = random_batch(model.feature_map, [1], 1, num_items=40)[1].tables
    batches[0][1].index[5, -2] = 39
    return batches


def spread_of(counts: Counter, num_experts: int) -> list[float]:
    total = sum(counts.values())
    return [counts[e] / total for e in range(num_experts)]


def evenness(share_E: list[float]) -> float:
    """Entropy over that of an even spread."""
    return -sum(s * math.log(s) for s in share_E if s > 0) / math.log(len(share_E))


@torch.no_grad()
def counted(model: SequenceModel, batches: list[tuple], name: str) -> dict[str, Any]:
    """What the report should say of one branch, with loops; each history without its padding."""
    router = model.branches[name].router
    E = router.num_experts
    load, read, served, switches, pairs = Counter(), Counter(), [], 0, 0
    homes: dict[int, Counter] = defaultdict(Counter)
    for batch in batches:
        history, _ = model.embed_items(batch)
        for b, mask_L in enumerate(history.mask_BL):
            x_TD = history.embed()[b][mask_L]
            if name == "window":
                x_TD = windows_of(x_TD, 8, 4)
            if not len(x_TD):
                continue
            gates_TE = router(x_TD[None], torch.ones(1, len(x_TD), dtype=torch.bool)).weights_BTE[0]
            best = [int(gate_E.argmax()) if gate_E.any() else None for gate_E in gates_TE]
            for gate_E in gates_TE:
                load.update(e for e in range(E) if gate_E[e] > 0)
            read.update(e for e in range(E) if gates_TE[-1, e] > 0)
            served.append(bool(gates_TE[-1].any()))
            for older, newer in pairwise(best):
                if older is not None and newer is not None:
                    pairs += 1
                    switches += older != newer
            if name != "window":
                for item, home in zip(batch[1].index[b, :-1][mask_L].tolist(), best, strict=True):
                    if home is not None:
                        homes[item][home] += 1
    repeated = [homes[item] for item in sorted(homes) if homes[item].total() > 1]
    appearances = sum(c.total() for c in repeated)
    item_share, sample_share = spread_of(load, E), spread_of(read, E)
    return {
        "item_share": item_share,
        "sample_share": sample_share,
        "item_entropy": evenness(item_share),
        "sample_entropy": evenness(sample_share),
        "unserved": served.count(False) / len(served),
        "dead": [e for e in range(E) if item_share[e] < 0.01],
        "switch_rate": switches / pairs,
        "consistency": sum(max(c.values()) for c in repeated) / appearances if repeated else None,
        "most_popular": spread_of(max(repeated, key=Counter.total), E) if repeated else None,
        "least_popular": spread_of(min(repeated, key=Counter.total), E) if repeated else None,
    }


def assert_same(branch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(branch) == {*expected, "code_cosine"}
    for key, value in expected.items():
        if value is None or key == "dead":
            assert branch[key] == value, key
        else:
            assert branch[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize("name", MODELS)
def test_report_is_what_counting_gives(tiny_data: Path, name: str) -> None:
    tight = {"eval_capacity_factor": 0.5} if name == "TWIN_GShard" else {}
    model = make_model(tiny_data, name, **tight)
    batches = make_batches(model, 4)
    report = routing_report(model, batches)
    assert list(report) == (["item", "window"] if name == "TWIN_MoS" else ["moe"])
    for branch in report:
        expected = counted(model, batches, branch)
        assert_same(report[branch], expected)
        assert len(set(expected["sample_share"])) > 1 and 0 < expected["switch_rate"] < 1
    if name == "TWIN_MoS":
        assert report["item"]["consistency"] == 1  # its theme depends on the item alone
        assert max(report["item"]["least_popular"]) == 1
        assert report["window"]["consistency"] is None
    elif name != "TWIN_DSelectK":
        assert 0.2 < report["moe"]["consistency"] < 1  # rivals in the sequence decide too


def test_two_experts_per_item_and_a_dead_one(tiny_data: Path) -> None:
    """k = 2 counts both experts; the code of expert 4 is the opposite of the items' mean."""
    model = make_model(tiny_data, "TWIN_MoS", router_topk=2)
    batches = make_batches(model, 2)
    branch = model.branches["item"]
    with torch.no_grad():
        z_NZ = branch.router.projections(model.embed_items(batches[0])[0])
        branch.router.codebook.codes_EC[4] = -z_NZ.mean(0)
    report = routing_report(model, batches)["item"]
    assert_same(report, counted(model, batches, "item"))
    assert report["dead"] == [4] and report["item_share"][4] == 0


@pytest.mark.parametrize("name", MODELS)
def test_code_cosines(tiny_data: Path, name: str) -> None:
    model = make_model(tiny_data, name)
    for branch, entry in routing_report(model, make_batches(model, 1)).items():
        router = model.branches[branch].router
        if name == "TWIN_DSelectK":
            assert entry["code_cosine"] is None
            continue
        codes = router.codebook.codes_EC if name == "TWIN_MoS" else router.gate.weight
        for i, a in enumerate(codes):
            for j, b in enumerate(codes):
                cosine = float(a.detach() @ b.detach() / (a.detach().norm() * b.detach().norm()))
                assert entry["code_cosine"][i][j] == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_dictionary_gives_the_same_without_items(tiny_data: Path, name: str) -> None:
    model = make_model(tiny_data, name)
    batches = make_batches(model, 2)
    plain = [(batch, dict(items), mask) for batch, items, mask in batches]
    expected = routing_report(model, batches)
    for branch, entry in routing_report(model, plain).items():
        for key in ("consistency", "most_popular", "least_popular"):
            assert entry.pop(key) is None
        assert entry == {key: expected[branch][key] for key in entry}


@pytest.mark.parametrize("name", MODELS)
def test_the_report_changes_nothing_in_the_model(tiny_data: Path, name: str) -> None:
    params = tiny_params(tiny_data, name)
    model = build_model(params).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    report = routing_report(model, loader(params, "valid"))
    assert report == routing_report(model, loader(params, "valid"))  # of evaluation mode
    assert torch.equal(torch.get_rng_state(), random_state)
    for codebook in codebooks(model):
        assert not codebook.count_E.any() and not codebook.sum_EC.any()
    model.after_step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("shares", "warning"),
    [
        ({"item": [0.2, 0.8], "window": [0.5, 0.5]}, None),
        ({"item": [0.01, 0.09, 0.9]}, None),  # the limits themselves are fine
        ({"item": [0.009, 0.391, 0.6]}, "item expert 0 has 0.9%"),
        ({"moe": [0.05, 0.91, 0.04]}, "moe expert 1 has 91.0%"),
        ({"item": [0.0, 1.0], "window": [0.005, 0.995]}, "window expert 1 has 99.5%"),
        ({"moe": [1.0]}, None),  # a single expert cannot collapse
    ],
)
def test_collapse_is_one_line_of_warning(
    shares: dict[str, list[float]], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rest = {"item_entropy": 0.75, "switch_rate": 0.125, "consistency": None}
    log_report({name: {"item_share": share_E, **rest} for name, share_E in shares.items()})
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == (warning is not None)
    if warning is not None:
        assert warning in warnings[0] and "\n" not in warnings[0]
        small_or_large = [s for share_E in shares.values() for s in share_E if not 0.01 <= s <= 0.9]
        assert warnings[0].count(" expert ") == len(small_or_large)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len(lines) == len(shares)
    for line, name in zip(lines, shares, strict=True):
        assert line.startswith(name) and "0.75" in line and "consistency" not in line
