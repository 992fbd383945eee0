"""Two ranks train as one process does on the same batches: losses, gradients, metrics, routing."""

import os
import signal
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from model_zoo import ranks
from model_zoo.history.rare_ids import RareIds
from model_zoo.training import sparse_embedding
from model_zoo.training.optimizer import build_optimizer, clip_gradients, frozen_modules
from model_zoo.training.routing_report import routing_report
from model_zoo.training.steps import Stepper

from ..support.helpers import build_model, loader, tiny_params

STEPS = 3
ALIKE = dict(verbose=0, net_dropout=0.0, attention_dropout=0.0, embedding_regularizer=1e-3)
SURE = {"second_threshold": 1e-12}  # or GShard's second expert is a matter of chance
MOS = {"codebook_init": "random", "router_topk": 2, "codebook_decay": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "TWIN": {},
    "SIM": {},
    "TWIN_GShard": SURE,
    "TWIN_DSelectK": {"entropy_coef": 0.1, "num_experts": 5},
    "TWIN_ExpertChoice": {},
    "TWIN_Ensemble": {},
    "TWIN_MoS": MOS | {"revive_after": 1},
    "sparse": MOS | {"model": "TWIN_MoS", "sparse_embedding": True},
    "groups of batches": SURE | {"model": "TWIN_GShard", "accumulation_steps": 2},
    "frozen": {"model": "TWIN_DSelectK", "stage": "experts"},
    "an expert that one rank reads": MOS | {"model": "TWIN_MoS", "num_experts": 16},
}


def train(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """What this rank, or one process alone, knows after three steps on batches of seven samples."""
    changes = ALIKE | CASES[name]
    stage, model_name = changes.pop("stage", "joint"), changes.pop("model", name)
    params = tiny_params(data, model_name, model_root=str(folder), **changes)
    seen: list[dict[str, Any]] = []
    with patch.object(sparse_embedding, "SMALL_TABLE", 0):
        model = build_model(params).double()
    model.get_labels = lambda batch: type(model).get_labels(model, batch).double()
    ranks.align(model)  # which changes nothing here
    model.enter(stage)
    train_loader, valid_loader = loader(params, batch_size=7, shuffle=True), loader(params, "valid")
    train_loader.share = valid_loader.share = ranks.share()

    def keep(parameters: Any, norm: float) -> None:
        gradients = {n: p.grad for n, p in model.named_parameters()}
        seen.append({n: g if g is None else g.to_dense() for n, g in gradients.items()})

    with frozen_modules(model, stage), patch("model_zoo.training.steps.clip_gradients", keep):
        stepper = Stepper(model, build_optimizer(model))
        losses = []
        for _ in stepper.epoch(train_loader, STEPS, name):
            losses.append(float(stepper.progress.total_loss))
    return {
        "losses": losses,
        "gradients": seen,
        "weights": model.state_dict(),
        "metrics": model.evaluate(valid_loader),
        "routing": {
            n: b | {"code_cosine": 0} for n, b in routing_report(model, valid_loader).items()
        },
        "samples": stepper.progress.samples,
    }


def fit(model_id: str, data: Path, folder: Path, stop_at: int = 0) -> list[Any]:
    """Loss and metrics after an epoch with dropout; Ctrl-C reaches rank 1 alone in the step ``stop_at``."""
    dropout = {"attention_dropout": 0.2, "net_dropout": 0.2}
    params = tiny_params(data, "TWIN", model_root=str(folder), verbose=0, **dropout)
    model = build_model(params | {"model_id": model_id})
    loaders = loader(params, shuffle=True), loader(params, "valid")
    for each in loaders:
        each.share = ranks.share()
    real, calls = Stepper.step, count(1)

    def step(*args: Any) -> torch.Tensor:
        if next(calls) == stop_at and ranks.rank():
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    with patch.object(Stepper, "step", step):
        model.fit(*loaders, epochs=1, seed=5, resume_file=str(folder / model_id))
    return [model.stage_log[-1][key] for key in ("train_loss", "logloss", "AUC")]


def hidden() -> torch.Tensor:
    """The chances by which ids are hidden, which both ranks count."""
    ids = RareIds({"item": 1}, rate=1.0)
    ids.count([{"item": torch.tensor([2, 3, 3, 4])[ranks.share()]}], {"item": 6})
    return ids._hidden["item"]


def divided() -> list[list[float]]:
    """The weight and the clipped gradient of a parameter that is divided, and the gradient of a common one."""
    module = nn.Module()
    module.own = nn.Parameter(torch.tensor([float(ranks.rank())]))
    module.common = nn.Parameter(torch.ones(1))
    module.own.divided = True
    ranks.align(module)
    module.own.grad = torch.tensor([[3.0, 6.0][ranks.rank()]])
    module.common.grad = torch.tensor([[1.0, 3.0][ranks.rank()]])
    ranks.average_gradients(module.parameters())
    clip_gradients(module.parameters(), max_norm=1.0)  # of 7, the norm of 3, 6 and 2
    return [x.tolist() for x in (module.own, module.own.grad, module.common.grad)]


def _rank(rank: int, store: str, data: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    os.environ["LOCAL_RANK"] = str(rank)
    found: dict[str, Any] = {name: train(name, data, folder) for name in CASES}
    found["hidden"], found["divided"] = hidden(), divided()
    found["first"] = ranks.on_first(lambda: [ranks.rank(), torch.ones(2)])
    found["most"] = ranks.most(rank, -rank)
    with pytest.raises(ZeroDivisionError if not rank else SystemExit):
        ranks.on_first(lambda: 1 // rank)
    found["whole"] = fit("whole", data, folder)
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", data, folder, stop_at=3)
    found["resumed"] = fit("stopped", data, folder)
    torch.save(found, folder / f"{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks knows."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, (str(folder / "store"), tiny_data, folder), nprocs=2)
    return [torch.load(folder / f"{rank}") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one_process(
    name: str, two: list[dict[str, Any]], tiny_data: Path, tmp_path: Path
) -> None:
    one, first, second = train(name, tiny_data, tmp_path), two[0][name], two[1][name]
    assert first["losses"] == second["losses"] and first["metrics"] == second["metrics"]
    assert all(w.equal(second["weights"][n]) for n, w in first["weights"].items())
    for key in ("losses", "gradients", "weights", "metrics"):
        torch.testing.assert_close(first[key], one[key], rtol=0, atol=1e-9)
    assert first["routing"] == one["routing"]


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_they_resume_with_their_own_dropout(
    two: list[dict[str, Any]],
) -> None:
    for found in two:
        assert found["resumed"] == found["whole"] == two[0]["whole"]


@pytest.mark.slow
def test_all_ranks_know_the_same(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["hidden"].equal(hidden()) and found["most"] == [1, 0]
        assert found["first"][0] == 0


@pytest.mark.slow
def test_a_divided_parameter_stays_the_ranks_own_and_counts_whole_in_the_norm(
    two: list[dict[str, Any]],
) -> None:
    for rank, found in enumerate(two):
        own, gradient, common = (x[0] for x in found["divided"])
        assert own == rank
        assert gradient == pytest.approx([3 / 7, 6 / 7][rank]) and common == pytest.approx(2 / 7)
