"""Training: what a stage freezes, early stopping, the best checkpoint, NaN, resume, pairing."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model_zoo.sequence_model import SequenceModel
from model_zoo.training import optimizer as optimization
from model_zoo.training.loop import Trainer
from model_zoo.training.progress import TrainingError

from ...support.helpers import build_model, improving, killed_after, loader, tiny_params


@pytest.fixture
def params(tiny_data: Path, tmp_path: Path) -> dict:
    return tiny_params(tiny_data, model_root=str(tmp_path), verbose=0)


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed_parts(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Which parts of the model differ from a snapshot."""
    parts = {
        "embedding_layer.": "embedding",
        "classifier.": "head",
        "encoder.global_block.": "global",
        "encoder.branches.item.experts.": "item experts",
        "encoder.branches.item.router.h.": "item router",
        "encoder.branches.item.router.codebook.": "item codebook",
        "encoder.branches.window.experts.": "window experts",
        "encoder.branches.window.router.h.": "window router",
        "encoder.branches.window.router.codebook.": "window codebook",
    }
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    return {part for prefix, part in parts.items() if any(n.startswith(prefix) for n in changed)}


EXPERTS = {
    "item experts", "item router", "item codebook",
    "window experts", "window router", "window codebook",
}  # fmt: skip


@pytest.mark.parametrize(
    ("warmups", "stage", "expected"),
    [
        ((1.0, 0.0), "backbone", {"embedding", "head", "global"}),
        ((0.0, 1.0), "experts", EXPERTS),
        ((0.0, 0.0), "joint", {"embedding", "head", "global"} | EXPERTS),
    ],
)
def test_a_stage_changes_its_own_parameters_only(
    params: dict, warmups: tuple[float, float], stage: str, expected: set[str]
) -> None:
    # Two experts per item, so that the routers' h gets gradient (eq. 2 with k = 1 gives none).
    params |= {"router_topk": 2, "batch_norm": True, "codebook_init": "random"}
    params |= dict(zip(("backbone_warmup_epochs", "expert_warmup_epochs"), warmups, strict=True))
    model = improving(build_model(params))
    before = snapshot(model)
    stages = [s for s in model.encoder.stages(1 if stage == "joint" else 0.5) if s.name == stage]
    train, valid = loader(params), loader(params, "valid")
    Trainer(model, train, valid, seed=0).run_stage(stages[0])
    assert changed_parts(model, before) == expected
    if stage == "experts":  # the head's batch-norm statistics stood still
        for name, value in model.state_dict().items():
            assert not name.startswith("classifier.") or value.equal(before[name]), name
    assert all(p.requires_grad for p in model.parameters())


def test_stages_run_in_order_and_are_logged(params: dict) -> None:
    params |= {"backbone_warmup_epochs": 1.0, "expert_warmup_epochs": 0.5}
    model = build_model(params)
    model.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=2)
    assert [(e["stage"], e["epoch"]) for e in model.stage_log] == [
        ("backbone", 1), ("experts", 0.5), ("joint", 1), ("joint", 2)
    ]  # fmt: skip
    assert not model.stage_log[0]["routing"]
    joint = model.stage_log[-1]
    assert set(joint["routing"]) == {"item", "window"} and math.isfinite(joint["train_loss"])
    assert model.encoder.fusion == {"item": 0.25, "window": 0.25}
    moved = [e["routing"]["item"]["code_movement"] for e in model.stage_log[1:]]
    assert all(0 < m < 2 for m in moved)


def test_code_movement_is_since_the_evaluation_before(params: dict) -> None:
    """Equal to that between the checkpoints of an undisturbed run; routers without codes have none."""
    params |= {"backbone_warmup_epochs": 0.0, "expert_warmup_epochs": 0.0, "codebook_decay": 0.9}
    model = build_model(params)
    codes = []

    def keep(_: list) -> None:
        codes.append(model.branches["item"].router.codebook.codes_EC.double().clone())

    model.fit(loader(params), loader(params, "valid"), epochs=3, on_evaluation=keep)
    for (before, after), entry in zip(pairwise(codes), model.stage_log[1:], strict=True):
        cosines = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1))
        expected = 1 - float(cosines.mean())
        assert entry["routing"]["item"]["code_movement"] == pytest.approx(expected, abs=1e-6)
        assert expected > 1e-6
    model = build_model(params | {"model": "TWIN_DSelectK"})
    model.fit(loader(params), loader(params, "valid"), epochs=1)
    assert model.stage_log[-1]["routing"]["moe"]["code_movement"] is None


def test_backbone_stage_equals_the_vanilla_model(params: dict) -> None:
    """Paired runs: the same seed gives the same start, order and first stage."""
    vanilla = build_model(params | {"model": "TWIN"})
    mos = build_model(params | {"backbone_warmup_epochs": 1.0, "expert_warmup_epochs": 0.0})
    for name, value in vanilla.state_dict().items():
        assert mos.state_dict()[name].equal(value), name
    vanilla.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=1, seed=3)
    mos.fit(loader(params, shuffle=True), loader(params, "valid"), epochs=1, seed=3)
    assert vanilla.stage_log[0]["logloss"] == mos.stage_log[0]["logloss"]


def test_kmeans_starts_the_codebooks_once(params: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    model = build_model(params)
    real = model.before_experts
    monkeypatch.setattr(
        model, "before_experts", lambda *a: (calls.append(len(model.stage_log)), real(*a))
    )
    before = snapshot(model)
    model.fit(loader(params), loader(params, "valid"), epochs=2)
    assert calls == [1] and "item codebook" in changed_parts(model, before)


@pytest.mark.slow
def test_more_restarts_of_kmeans_find_a_nearer_partition(params: dict) -> None:
    """Squared distances of the items to their centres, one restart against many; some seed must gain."""
    gains = []
    for seed in range(8):
        inertia = {}
        for restarts in (1, 40):
            model = build_model(params | {"codebook_restarts": restarts, "num_experts": 8})
            loaded = loader(params)
            model.before_experts(loaded, seed)
            items = [model.embed_items(batch)[0] for batch in loaded]
            branch = model.branches["item"]
            h_NC = torch.cat([branch.router.projections(history) for history in items])
            inertia[restarts] = torch.cdist(h_NC, branch.router.codes()).amin(1).square().sum()
        gains.append(float(1 - inertia[40] / inertia[1]))
    assert min(gains) > -1e-4 and max(gains) > 1e-3


def test_early_stop_keeps_the_best_weights_and_lowers_the_learning_rate(
    params: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    params |= {"model": "TWIN", "early_stop_patience": 2, "monitor": "AUC", "metrics": ["AUC"]}
    model = build_model(params)
    scores = iter([0.4, 0.5, 0.7, 0.6, 0.7, 0.9])  # an equal score is no improvement
    weights: list[dict] = []

    def evaluate(_) -> dict[str, float]:
        weights.append(snapshot(model))
        return {"AUC": next(scores)}

    monkeypatch.setattr(model, "evaluate", evaluate)
    model.fit(loader(params), loader(params, "valid"), epochs=9)
    assert [entry["best"] for entry in model.stage_log] == [True, True, False, False]
    rates = [entry["learning_rate"] for entry in model.stage_log]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4])
    for name, value in model.state_dict().items():
        assert value.equal(weights[2][name])


def test_a_stage_ends_no_worse_than_it_began(params: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every epoch is worse, the first weights win; patience and rate do not count them."""
    params |= {"early_stop_patience": 2, "monitor": "AUC", "metrics": ["AUC"]}
    params |= {"backbone_warmup_epochs": 1.0, "expert_warmup_epochs": 0.0}
    model = build_model(params)
    scores = iter([0.5, 0.8, 0.9, 0.6, 0.7, 0.65, 0.65])
    weights: list[dict] = []

    def evaluate(_) -> dict[str, float]:
        weights.append(snapshot(model))
        return {"AUC": next(scores)}

    monkeypatch.setattr(model, "evaluate", evaluate)
    model.fit(loader(params), loader(params, "valid"), epochs=9)
    starts = [(entry["stage"], entry["AUC"], entry["best"]) for entry in model.stage_start]
    assert starts == [("backbone", 0.5, True), ("joint", 0.9, True)]
    assert [entry["best"] for entry in model.stage_log] == [True] + 4 * [False]
    rates = [entry["learning_rate"] for entry in model.stage_log]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 1e-4])
    for name, value in model.state_dict().items():
        assert value.equal(weights[2][name]), name
    assert changed_parts(model, weights[1]) == {"item codebook", "window codebook"}  # by k-means


def test_a_start_that_cannot_be_evaluated_ends_the_run(params: dict) -> None:
    model = build_model(params | {"model": "TWIN"})
    with torch.no_grad():
        model.classifier.dnn.mlp[0].weight[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"stage joint, epoch 0: .* predictions are NaN"):
        model.fit(loader(params), loader(params, "valid"), epochs=1)
    assert not Path(model.checkpoint).exists()


def test_a_model_that_scores_all_alike_can_start(params: dict) -> None:
    model = build_model(params | {"model": "TWIN"})
    torch.nn.init.zeros_(model.classifier.dnn.mlp[-1].weight)
    model.fit(loader(params), loader(params, "valid"), epochs=0.25)
    assert model.stage_start[0]["AUC"] == model.stage_start[0]["gAUC"] == 0.5


def test_eval_steps_evaluates_within_an_epoch(params: dict) -> None:
    model = build_model(params | {"model": "TWIN", "eval_steps": 3})
    model.fit(loader(params), loader(params, "valid"), epochs=1)
    assert [entry["epoch"] for entry in model.stage_log] == [0.375, 0.75, 1.0]  # of 8 steps


def test_nan_in_the_loss_stops_and_keeps_the_checkpoint(params: dict) -> None:
    params |= {"model": "TWIN", "learning_rate": 1e-3}
    model = build_model(params)
    model.fit(loader(params), loader(params, "valid"), epochs=1)
    kept = Path(model.checkpoint).read_bytes()
    model.add_loss = lambda *_: model.classifier.dnn.mlp[0].weight.sum() * torch.nan
    with pytest.raises(TrainingError, match="training loss became nan in stage joint"):
        model.fit(loader(params), loader(params, "valid"), epochs=1)
    assert Path(model.checkpoint).read_bytes() == kept


def test_nan_in_validation_never_becomes_best(
    params: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    params |= {"model": "TWIN", "monitor": "AUC", "metrics": ["AUC"]}
    model = build_model(params)
    scores = iter([0.5, 0.7, math.nan])
    monkeypatch.setattr(model, "evaluate", lambda _: {"AUC": next(scores)})
    with pytest.raises(TrainingError, match="monitor is nan"):
        model.fit(loader(params), loader(params, "valid"), epochs=3)
    assert [entry["best"] for entry in model.stage_log] == [True]


@pytest.mark.parametrize(
    "stop_after", [pytest.param(n, marks=pytest.mark.slow) if n != 3 else n for n in range(1, 8)]
)
def test_resume_gives_the_same_numbers(params: dict, tmp_path: Path, stop_after: int) -> None:
    """Stop after any epoch, also the last one, or where a stage starts; the rest equals an undisturbed
    run bit for bit, and evaluates no start again."""
    params |= {"attention_dropout": 0.2, "net_dropout": 0.2, "router_topk": 2}

    def fit(model, resume_file: Path) -> None:
        train = loader(params, shuffle=True, seed=5)
        model.fit(train, loader(params, "valid"), epochs=2, seed=5, resume_file=str(resume_file))

    whole = build_model(params)
    fit(whole, tmp_path / "whole")

    params["model_id"] = "killed"
    with killed_after(stop_after):
        fit(build_model(params), tmp_path / "killed")
    resumed = build_model(params, seed=99)
    fit(resumed, tmp_path / "killed")
    for name, value in whole.state_dict().items():
        assert resumed.state_dict()[name].equal(value), name
    for a, b in zip(untimed(whole), untimed(resumed), strict=True):
        assert a == b


def test_a_driver_that_torch_cannot_use_does_not_stop_a_cpu(
    params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are counted without the driver's runtime, and only a use of them fails."""

    def fail() -> None:
        raise RuntimeError("the NVIDIA driver on your system is too old")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", fail)
    model = build_model(params | {"model": "TWIN"})
    for epochs in (0.25, 0.5):
        model.fit(
            loader(params), loader(params, "valid"), epochs=epochs, resume_file=str(tmp_path / "s")
        )
    assert [entry["epoch"] for entry in model.stage_log] == [0.25, 0.5]


def untimed(model: SequenceModel) -> list[dict]:
    """What training logged, without what a clock says."""
    timing = ("samples_per_s", "valid_seconds")
    entries = [*model.stage_start, *model.stage_log]
    return [{k: v for k, v in entry.items() if k not in timing} for entry in entries]


def test_accumulated_batches_equal_one_large_batch(params: dict) -> None:
    """Also the last, incomplete group of an epoch is stepped."""
    params |= {"model": "TWIN_MoS", "optimizer": "SGD", "codebook_init": "random"}
    params |= {"backbone_warmup_epochs": 0.0, "expert_warmup_epochs": 0.0, "learning_rate": 0.5}
    params |= {"attention_dropout": 0.0}
    one = improving(build_model(params))
    split = improving(build_model(params | {"accumulation_steps": 4}))
    # 960 samples: 4 batches of 240, or 16 of 60; fp32 sums differ by rounding only.
    one.fit(loader(params, batch_size=240), loader(params, "valid"), epochs=1)
    split.fit(loader(params, batch_size=60), loader(params, "valid"), epochs=1)
    for (name, a), b in zip(one.state_dict().items(), split.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6, msg=name)
    tail = improving(
        build_model(params | {"accumulation_steps": 7})
    )  # groups of 7, 7 and 2 batches
    before = snapshot(tail)
    steps = []
    tail.after_step = lambda: steps.append(1)
    tail.fit(loader(params, batch_size=60), loader(params, "valid"), epochs=1)
    assert len(steps) == 3 and changed_parts(tail, before) >= {"head", "embedding"}


@pytest.mark.parametrize("regularizer", [0.01, "l1(0.001)", "l1_l2(0.001,0.01)"])
def test_regularizer_gradient_is_that_of_fuxictrs_loss(params: dict, regularizer) -> None:
    model = build_model(
        params | {"embedding_regularizer": regularizer, "net_regularizer": regularizer}
    )
    model.regularization_loss().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimization.add_regularizer_gradient(model)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], msg=name)


def test_adam_is_torchs_adam() -> None:
    """Step by step, over a saved and loaded state, and for a group that joins later."""

    def trained(optimizer_class: type[torch.optim.Adam]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        first, second = (torch.nn.Parameter(torch.randn(7, n)) for n in (3, 5))
        optimizer = optimizer_class([first], lr=1e-2, fused=True)
        optimizer.add_param_group({"params": [second], "lr": 1e-1})
        for step in range(6):
            ((first**4).sum() + (first @ torch.ones(3, 5) * second).sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert first.grad is None and second.grad is None
            if step == 2:
                state = optimizer.state_dict()
                optimizer = optimizer_class([first], lr=1.0, fused=True)
                optimizer.add_param_group({"params": [second]})
                optimizer.load_state_dict(state)
        return [first, second]

    pairs = zip(trained(optimization.Adam), trained(torch.optim.Adam), strict=True)
    assert all(own.equal(reference) for own, reference in pairs)
