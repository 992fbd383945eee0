"""``compile: True``: few graphs for all lengths, the numbers of eager code, and clear refusals."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import model_zoo
from model_zoo.ops import compiled
from model_zoo.sequence_model import SequenceModel

from ..support.command_line import Workspace
from ..support.helpers import EACH_PART_ONCE, build_model, random_batch, tiny_params
from .test_all_models import spread_embeddings

# Batch size and padded length; for TWIN around its top-k of 20 and its short window of 49.
SHAPES = [(16, 60), (16, 37), (16, 14), (9, 50), (13, 44), (16, 9), (7, 23), (16, 55)]
NO_DROPOUT = {
    "attention_dropout": 0.0, "net_dropout": 0.0, "dropout": 0.0, "transformer_dropout": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def forget_graphs() -> Iterator[None]:
    """Graphs belong to the process: without those of other tests."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled._compiled.cache_clear()
    yield
    torch._dynamo.reset()
    compiled._compiled.cache_clear()


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and differentiated, but run by torch's own kernels: much faster to make."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def graphs() -> int:
    """How many were made since the start of the test."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def models(params: dict) -> list[SequenceModel]:
    """One in eager code and one compiled, with the same weights."""
    known = model_zoo.get_model(params["model"]).hyper_parameters()
    params = params | {key: rate for key, rate in NO_DROPOUT.items() if key in known}
    built = [
        spread_embeddings(build_model(params | {"compile": compile})) for compile in (False, True)
    ]
    for model in built:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):  # MIRRN's has no key
                module.p = 0.0
    return built


def outputs(model: SequenceModel, B: int, L: int) -> list[Tensor]:
    """Logits, and in training mode the loss's gradients."""
    torch.manual_seed(L)
    lengths = [L, 1, *torch.randint(0, L + 1, (B - 2,)).tolist()]
    batch = random_batch(model.feature_map, lengths, L, num_items=300, seed=L)
    with torch.set_grad_enabled(model.training):
        out = model(batch)
        if not model.training:
            return [out["logit"]]
        model.zero_grad()
        model.add_loss(out, model.get_labels(batch)).backward()
        model.forget_observed()
    return [out["logit"].detach()] + [p.grad for p in model.parameters() if p.grad is not None]


def check_graphs(params: dict, most: int, later: int = 0) -> None:
    """The numbers of eager code over all shapes, with at most so many graphs for training and as
    many for evaluation; other shapes make no more than ``later``."""
    eager, fast = models(params)
    assert list(eager.state_dict()) == list(fast.state_dict())
    start = graphs()
    for mode in ("train", "eval"):
        for shape in SHAPES:
            found = []
            for model in (eager, fast):
                torch.manual_seed(0)
                found.append(outputs(getattr(model, mode)(), *shape))
            for a, b in zip(*found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert 0 < graphs() - start <= most
        before = graphs()
        for shape in [(12, 58), (10, 31), (15, 12)]:
            outputs(fast, *shape)
        assert graphs() - before <= later
        start = graphs()


@pytest.mark.slow
def test_few_graphs_for_all_lengths(tiny_data: Path, traced_only: None) -> None:
    """Three paths of TWIN's block, shared by the global block and the ten experts, and the head."""
    check_graphs(tiny_params(tiny_data, "TWIN_MoS", verbose=0), most=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH_PART_ONCE)
def test_few_graphs_of_every_part(name: str, tiny_data: Path, traced_only: None) -> None:
    """Layers that call a kernel of their own are in several graphs, and a subsequence that is shorter
    than a convolution makes another."""
    check_graphs(tiny_params(tiny_data, name, verbose=0), most=16, later=2)


@pytest.mark.slow
def test_compiled_kernels_agree(tiny_data: Path) -> None:
    """With torch's own compiler, also together with bf16; copies and weights are as ever."""
    params = tiny_params(tiny_data, "TWIN", verbose=0, topk=100, short_seq_len=101)
    eager, fast = models(params)
    for model in (eager, fast):
        model.train()
    for shape in SHAPES[:3]:
        for a, b in zip(outputs(eager, *shape), outputs(fast, *shape), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert graphs() == 3  # a line to try the compiler, a block, the head
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert outputs(fast, 5, 8)[0].abs().sum() > 0 and not outputs(twin, 5, 8)[0].any()
    eager.amp = fast.amp = "bf16"
    a, b = outputs(eager.eval(), 16, 60)[0], outputs(fast.eval(), 16, 60)[0]
    assert (a - b).abs().max() < 0.05 * a.std()


@pytest.mark.slow
def test_dropout_follows_the_seed(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "TWIN", verbose=0, topk=100, short_seq_len=101, compile=True)
    model = spread_embeddings(build_model(params | {"attention_dropout": 0.3})).train()
    batch = random_batch(model.feature_map, [9, 5, 3], L=9)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(batch)["logit"].detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.slow
def test_without_a_compiler(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Workspace(tmp_path, tiny_data)
    space.change_model("TWIN_tiny", compile=True)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    done = space.run_expid("--expid", "TWIN_tiny")
    assert done.code == 2 and "Traceback" not in done.stderr
    assert "TWIN_tiny, compile: torch.compile does not work here" in done.stderr
    assert "write compile: False" in done.stderr
