"""GShard's router against its text (Lepikhin et al. 2020, top-2 gating), evaluated in float64 with
one loop per item: gates, capacity, the random second choice, and the balance loss.

Shape suffixes: B samples, T items, E experts, D item width.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_zoo.moe.gshard import GShardRouter

from ...support.helpers import build_model, tiny_params

D, E, T = 4, 5, 20
LENGTHS = [0, 1, 2, 20, 20, 9, 13]


def make_router(seed: int = 0, **settings: float) -> GShardRouter:
    """A float64 router with gates that differ."""
    torch.manual_seed(seed)
    router = GShardRouter(D, E, **settings).double()
    torch.nn.init.normal_(router.gate.weight, std=0.6)
    return router


def ragged(lengths: list[int] = LENGTHS, length: int = T) -> tuple[Tensor, Tensor]:
    """Random items, noise in the padding, and which items are real (left padded)."""
    mask_BT = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), length, D, dtype=torch.float64), mask_BT


def softmax(z_E: np.ndarray) -> np.ndarray:
    e = np.exp(z_E - z_E.max())
    return e / e.sum()


def one_sequence(
    x_TD: np.ndarray, W_ED: np.ndarray, k: int, factor: float, threshold: float
) -> tuple[np.ndarray, float]:
    """The gates of a sequence and ``E * sum_e m_e c_e``: two choices, kept if there is room, first
    choices before second ones, the newest item before older ones; no renormalisation."""
    gates_TE = np.array([softmax(W_ED @ x) for x in x_TD])
    length, num_experts = gates_TE.shape
    capacity = max(1, math.ceil(factor * k * length / num_experts))
    first = [int(p.argmax()) for p in gates_TE]
    weights_TE, load = np.zeros_like(gates_TE), [0] * num_experts
    for t in reversed(range(length)):
        p, e1 = gates_TE[t], first[t]
        e2 = max((e for e in range(num_experts) if e != e1), key=lambda e: p[e])
        if load[e1] < capacity:
            load[e1] += 1
            weights_TE[t, e1] = p[e1] if k == 1 else p[e1] / (p[e1] + p[e2] + 1e-9)
    for t in reversed(range(length)) if k == 2 else ():
        p, e1 = gates_TE[t], first[t]
        e2 = max((e for e in range(num_experts) if e != e1), key=lambda e: p[e])
        share = p[e2] / (p[e1] + p[e2] + 1e-9)
        if share > threshold and load[e2] < capacity:
            load[e2] += 1
            weights_TE[t, e2] = share
    balance = sum(
        gates_TE[:, e].sum() / length * first.count(e) / length for e in range(num_experts)
    )
    return weights_TE, num_experts * balance


def whole_batch(
    x_BTD: Tensor, mask_BT: Tensor, W_ED: np.ndarray, k: int, factor: float, threshold: float
) -> tuple[np.ndarray, float]:
    """Gates of each bare sequence, zero at padding, and the mean balance of those not empty."""
    weights_BTE, balances = np.zeros((*mask_BT.shape, len(W_ED))), []
    for b, mask_T in enumerate(mask_BT.numpy()):
        if mask_T.any():
            x_TD = x_BTD[b].detach().numpy()[mask_T]
            weights_BTE[b, mask_T], balance = one_sequence(x_TD, W_ED, k, factor, threshold)
            balances.append(balance)
    return weights_BTE, float(np.mean(balances))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("factor", [0.25, 0.75, 2.0])
def test_gates_and_balance_are_those_of_the_text(k: int, factor: float) -> None:
    router = make_router(router_topk=k, eval_capacity_factor=factor, capacity_factor=9.0).eval()
    x_BTD, mask_BT = ragged()
    routing = router(x_BTD, mask_BT)
    W_ED = router.gate.weight.detach().numpy()
    expected, balance = whole_batch(x_BTD, mask_BT, W_ED, k, factor, 0.2)
    np.testing.assert_allclose(routing.weights_BTE.detach().numpy(), expected, rtol=1e-10)
    assert routing.aux_loss.item() == pytest.approx(0.01 * balance, rel=1e-12)
    # The case is not trivial: items keep none, one and two of their choices.
    kept = set((expected > 0).sum(-1)[mask_BT.numpy()].tolist())
    assert kept == ({1, 2} if factor == 2 else {0, 1, 2}) if k == 2 else kept <= {0, 1}


def test_training_has_its_own_capacity_and_a_sure_second_choice_at_a_tiny_threshold() -> None:
    settings = {"capacity_factor": 0.75, "eval_capacity_factor": 9.0, "second_threshold": 1e-9}
    router = make_router(seed=1, **settings)
    x_BTD, mask_BT = ragged()
    weights = router(x_BTD, mask_BT).weights_BTE.detach().numpy()
    W_ED = router.gate.weight.detach().numpy()
    expected, _ = whole_batch(x_BTD, mask_BT, W_ED, 2, 0.75, 0.0)
    np.testing.assert_allclose(weights, expected, rtol=1e-10)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_of_gates_and_balance_are_the_slopes_of_the_text(k: int) -> None:
    """The slope sees the counts c as constants, so the balance trains through m alone."""
    router = make_router(seed=2, router_topk=k, eval_capacity_factor=0.75, balance_coef=0.3).eval()
    x_BTD, mask_BT = ragged()
    routing = router(x_BTD, mask_BT)
    read_BTE, way_ED = torch.randn_like(routing.weights_BTE), torch.randn(E, D).double()
    W_ED = router.gate.weight

    def slope(which: int) -> float:
        def at(step: float) -> float:
            moved = (W_ED + step * way_ED).detach().numpy()
            weights, balance = whole_batch(x_BTD, mask_BT, moved, k, 0.75, 0.2)
            return (weights * read_BTE.numpy()).sum() if which == 0 else 0.3 * balance

        return (at(1e-6) - at(-1e-6)) / 2e-6

    for which, loss in enumerate([(routing.weights_BTE * read_BTE).sum(), routing.aux_loss]):
        (gradient_ED,) = torch.autograd.grad(loss, W_ED, retain_graph=True)
        assert (gradient_ED * way_ED).sum().item() == pytest.approx(slope(which), rel=1e-6)


def shares_as_logits(shares: list[float]) -> Tensor:
    """Logits of items whose second choice has these shares of the two best."""
    logits_TE = torch.full((len(shares), E), -30.0, dtype=torch.float64)
    logits_TE[:, 3] = 0
    logits_TE[:, 1] = torch.tensor([math.log(g2 / (1 - g2)) for g2 in shares])
    return logits_TE


@pytest.mark.parametrize("threshold", [0.2, 0.45])
def test_second_choice_is_random_in_training_with_the_probability_of_the_text(
    threshold: float,
) -> None:
    shares, B = [0.02, 0.05, 0.1, 0.15, 0.19, 0.3, 0.46], 5000
    router = GShardRouter(D, E, capacity_factor=E, second_threshold=threshold)
    p_BTE = shares_as_logits(shares).softmax(-1).expand(B, -1, -1)
    mask_BT = torch.ones(B, len(shares), dtype=torch.bool)
    torch.manual_seed(5)
    weights_BTE = router.assign(p_BTE, mask_BT).weights_BTE
    kept_BT = (weights_BTE[:, :, 1] > 0).double()
    for t, g2 in enumerate(shares):
        probability = min(1.0, g2 / threshold)
        spread = math.sqrt(probability * (1 - probability) / B)
        assert abs(float(kept_BT[:, t].mean()) - probability) <= 4.5 * spread
        kept_weight = weights_BTE[kept_BT[:, t] > 0, t]
        assert kept_weight[0, 1].item() == pytest.approx(g2, rel=1e-6)
        # A lost second choice leaves the first one's share as it is.
        assert torch.allclose(weights_BTE[:, t, 3], torch.tensor(1 - g2).double(), atol=1e-6)
    # One draw per item, not per sequence or batch.
    correlation = torch.corrcoef(kept_BT[:, :4].T) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / math.sqrt(B)
    torch.manual_seed(5)
    assert torch.equal(router.assign(p_BTE, mask_BT).weights_BTE, weights_BTE)
    assert not torch.equal(router.assign(p_BTE, mask_BT).weights_BTE, weights_BTE)


def test_evaluation_keeps_the_second_choice_above_the_threshold_without_a_draw() -> None:
    router = GShardRouter(D, E, eval_capacity_factor=E).eval()
    state = torch.get_rng_state()
    p_BTE = shares_as_logits([0.1, 0.199, 0.201, 0.4]).softmax(-1)[None]
    weights_BTE = router.assign(p_BTE, torch.ones(1, 4, dtype=torch.bool)).weights_BTE
    assert (weights_BTE[0, :, 1] > 0).tolist() == [False, False, True, True]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("factor", [1e10, math.inf])
def test_any_large_capacity_is_no_capacity(factor: float) -> None:
    router = make_router(capacity_factor=factor, eval_capacity_factor=factor).eval()
    x_BTD, mask_BT = ragged()
    p_BTE = router.project(x_BTD)
    weights_BTE = router(x_BTD, mask_BT).weights_BTE
    assert torch.equal(weights_BTE.gather(-1, p_BTE.argmax(-1, keepdim=True))[..., 0] > 0, mask_BT)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_newest_item_keeps_its_first_choice_at_any_capacity(k: int, training: bool) -> None:
    router = make_router(router_topk=k, capacity_factor=1e-3, eval_capacity_factor=1e-3).train(
        training
    )
    x_BTD, mask_BT = ragged()
    x_BTD[3:5] = x_BTD[3:5, -1:]  # equal items, which all want the same expert
    weights_BTE = router(x_BTD, mask_BT).weights_BTE
    assert ((weights_BTE > 0).sum(1) <= 1).all()  # a capacity of one item
    best_B = router.project(x_BTD[:, -1]).argmax(-1)
    newest_B = weights_BTE[torch.arange(len(x_BTD)), -1, best_B]
    assert torch.equal(newest_B > 0, mask_BT[:, -1])
    assert not weights_BTE[3:5, :-1].any() or k == 2


def test_balance_is_1_at_perfect_balance_and_counts_before_capacity() -> None:
    mask_BT = torch.ones(1, E, dtype=torch.bool)
    even_BTE = (3 * torch.eye(E, dtype=torch.float64)[None]).softmax(-1)
    router = GShardRouter(D, E, balance_coef=0.5)
    assert float(router.assign(even_BTE, mask_BT).aux_loss) == pytest.approx(0.5)
    one_sided = even_BTE[:, :1].expand(1, E, E)
    losses = [
        float(GShardRouter(D, E, capacity_factor=f).assign(one_sided, mask_BT).aux_loss)
        for f in (1e-3, 9.0)
    ]
    assert losses[0] == losses[1] == pytest.approx(0.01 * E * float(one_sided[0, 0, 0]))
    assert float(router.assign(even_BTE, ~mask_BT).aux_loss) == 0


def test_padding_and_batch_mates_never_matter_in_evaluation() -> None:
    router = make_router(seed=4, eval_capacity_factor=0.75).eval()
    x_BTD, mask_BT = ragged()
    together = router(x_BTD, mask_BT)
    noise_BTD = torch.where(mask_BT[:, :, None], x_BTD, 100 * torch.randn_like(x_BTD))
    wider = torch.cat([torch.randn(len(LENGTHS), 30, D).double(), noise_BTD], 1)
    padded = router(wider, torch.cat([mask_BT.new_zeros(len(LENGTHS), 30), mask_BT], 1))
    torch.testing.assert_close(padded.weights_BTE[:, 30:], together.weights_BTE)
    assert not padded.weights_BTE[:, :30].any()
    torch.testing.assert_close(padded.aux_loss, together.aux_loss)
    for b, mask_T in enumerate(mask_BT):
        alone = router(x_BTD[b][mask_T][None], mask_T[mask_T][None]).weights_BTE[0]
        torch.testing.assert_close(alone, together.weights_BTE[b][mask_T])


def test_the_keys_of_the_configuration_reach_the_router(tiny_data: Path) -> None:
    keys = dict(
        capacity_factor=0.5, eval_capacity_factor=0.7, second_threshold=0.3, balance_coef=0.04
    )
    params = tiny_params(tiny_data, "TWIN_GShard", router_topk=1, **keys)
    router = build_model(params).branches["moe"].router
    assert router.max_experts == 1
    assert {name: getattr(router, name) for name in keys} == keys


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"router_topk": 3}, "router_topk=3 is not possible.*write 1 or 2"),
        ({"router_topk": 0}, "router_topk=0"),
        ({"capacity_factor": 0.0}, "capacity_factor=0"),
        ({"eval_capacity_factor": -1.0}, "eval_capacity_factor=-1"),
        ({"second_threshold": 0.0}, "second_threshold=0"),
    ],
)
def test_bad_settings_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GShardRouter(D, E, **settings)
