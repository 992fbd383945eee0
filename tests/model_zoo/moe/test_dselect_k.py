"""DSelect-k's router against its text (Hazimeh et al. 2021), evaluated in float64 with one loop per
item, selector and bit: the smooth step, codes, gates, regularisers and the start.

Shape suffixes: B samples, T items, E experts, K selectors, Q bits, D item width.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_zoo.moe.dselect_k import DSelectKRouter, smooth_step

from ...support.helpers import build_model, tiny_params

D, T = 4, 20
LENGTHS = [0, 1, 2, 20, 20, 9, 13]


def make_router(
    num_experts: int = 5, k: int = 2, std: float = 0.3, seed: int = 0, **settings: float | str
) -> DSelectKRouter:
    """A float64 router with gates that differ; the larger ``std``, the more bits saturate."""
    torch.manual_seed(seed)
    router = DSelectKRouter(D, num_experts, router_topk=k, **settings).double()
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return router


def ragged(lengths: list[int] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random items, noise in the padding, and which items are real (left padded)."""
    mask_BT = torch.arange(T) >= T - torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), T, D, dtype=torch.float64), mask_BT


def step(z: float, gamma: float) -> float:
    """The smooth step as printed."""
    if z <= -gamma / 2:
        return 0.0
    if z >= gamma / 2:
        return 1.0
    return -2 * z**3 / gamma**3 + 3 * z / (2 * gamma) + 0.5


def one_item(
    x_D: np.ndarray, router: DSelectKRouter, num_experts: int, k: int, gamma: float, keep: int
) -> tuple[np.ndarray, float, float]:
    """An item's gate, its entropy and its ``sum_j 1 / (mass on real experts) - 1``; the gate has its
    ``keep`` largest entries and is renormalised, both sums no smaller than 1/1000."""
    bits = math.ceil(math.log2(num_experts))
    affine = []
    for part in (router.choice, router.mix):
        weight = 0.0 if part.weight is None else part.weight.detach().numpy() @ x_D
        affine.append(weight + part.bias.detach().numpy())
    share_K = np.exp(affine[1]) / np.exp(affine[1]).sum()
    gate_E, entropy, reach = np.zeros(num_experts), 0.0, 0.0
    for j in range(k):
        mass = 0.0
        for expert in range(num_experts):
            r = 1.0
            for bit, digit in enumerate(format(expert, f"0{bits}b")):  # most significant first
                s = step(affine[0][j * bits + bit], gamma)
                r *= s if digit == "1" else 1 - s
            gate_E[expert] += share_K[j] * r
            entropy -= r * math.log(r + 1e-6)
            mass += r
        if num_experts != 2**bits:
            reach += 1 / max(mass, 1e-3) - 1
    gate_E[np.argsort(-gate_E, kind="stable")[keep:]] = 0
    return gate_E / max(gate_E.sum(), 1e-3), entropy, reach


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_smooth_step_and_its_slope(gamma: float) -> None:
    z = (torch.linspace(-1.5, 1.5, 301, dtype=torch.float64) * gamma).requires_grad_()
    s = smooth_step(z, gamma)
    np.testing.assert_allclose(s.tolist(), [step(v, gamma) for v in z.tolist()], atol=1e-12)
    low, high = z <= -gamma / 2, z >= gamma / 2
    assert (s[low] == 0).all() and (s[high] == 1).all()  # exactly
    (slope,) = torch.autograd.grad(s.sum(), z)
    inside = 1.5 / gamma - 6 * z.detach() ** 2 / gamma**3
    expected = torch.where(low | high, 0.0, inside)
    torch.testing.assert_close(slope, expected, atol=1e-9, rtol=0)  # 0 at the ends from both sides
    assert not slope[z.abs() > 0.51 * gamma].any()


@pytest.mark.parametrize("num_experts", [2, 3, 5, 8])
def test_expert_codes_have_the_most_significant_bit_first(num_experts: int) -> None:
    bits = math.ceil(math.log2(num_experts))
    router = DSelectKRouter(D, num_experts, router_topk=1)
    for expert in range(num_experts):
        z_Q = [1.0 if digit == "1" else -1.0 for digit in format(expert, f"0{bits}b")]
        z_11Z = torch.tensor([[[*z_Q, 0.0]]])
        weights_E = router.assign(z_11Z, torch.ones(1, 1)).weights_BTE[0, 0]
        assert torch.equal(weights_E, torch.eye(num_experts)[expert])


@pytest.mark.parametrize("mode", ["per_item", "static"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("num_experts", "k"), [(2, 1), (3, 2), (4, 2), (5, 1), (5, 2), (8, 3)])
def test_gates_and_regularisers_are_those_of_the_text(
    num_experts: int, k: int, training: bool, mode: str
) -> None:
    gamma = 1.4
    settings = {"smooth_step_width": gamma, "entropy_coef": 0.3, "dselect_mode": mode}
    router = make_router(num_experts, k, **settings).train(training)
    x_BTD, mask_BT = ragged()
    routing = router(x_BTD, mask_BT)
    weights_BTE, losses = routing.weights_BTE.detach().numpy(), []
    for b in range(len(LENGTHS)):
        for t in range(T):
            if not mask_BT[b, t]:
                assert not weights_BTE[b, t].any()
                continue
            gate_E, entropy, reach = one_item(
                x_BTD[b, t].numpy(), router, num_experts, k, gamma, num_experts if training else k
            )
            np.testing.assert_allclose(weights_BTE[b, t], gate_E, rtol=1e-9, atol=1e-14)
            assert np.array_equal(weights_BTE[b, t] > 0, gate_E > 0)
            losses.append(0.3 * entropy + reach)
    assert routing.aux_loss.item() == pytest.approx(np.mean(losses), rel=1e-9)
    assert len(losses) == sum(LENGTHS)
    sent = (weights_BTE > 0).sum(-1)[mask_BT.numpy()]
    assert sent.max() == (num_experts if training else k)
    same_gate = len(np.unique(weights_BTE[mask_BT.numpy()].round(12), axis=0)) == 1
    assert same_gate == (mode == "static")
    assert len(list(router.parameters())) == (2 if mode == "static" else 4)


@pytest.mark.parametrize("num_experts", [4, 5])
def test_gradients_are_the_slopes_of_the_text(num_experts: int) -> None:
    """Of gates and regularisers together, along a random way in all parameters."""
    router = make_router(num_experts, entropy_coef=0.3, smooth_step_width=2.0, seed=1)
    x_BTD, mask_BT = ragged([3, 7])
    routing = router(x_BTD, mask_BT)
    read_BTE = torch.randn_like(routing.weights_BTE)
    loss = (routing.weights_BTE * read_BTE).sum() + 7 * routing.aux_loss
    parameters = list(router.parameters())
    ways = [torch.randn_like(parameter) for parameter in parameters]
    gradients = torch.autograd.grad(loss, parameters)
    starts = [parameter.detach().clone() for parameter in parameters]

    def at(size: float) -> float:
        total, items = 0.0, int(mask_BT.sum())
        with torch.no_grad():
            for parameter, start, way in zip(parameters, starts, ways, strict=True):
                parameter.copy_(start + size * way)
        for b, t in mask_BT.nonzero().tolist():
            x_D, read_E = x_BTD[b, t].numpy(), read_BTE[b, t].numpy()
            gate_E, entropy, reach = one_item(x_D, router, num_experts, 2, 2.0, num_experts)
            total += float(gate_E @ read_E) + 7 * (0.3 * entropy + reach) / items
        return total

    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    along = sum((g * way).sum().item() for g, way in zip(gradients, ways, strict=True))
    assert along == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_with_five_experts_the_gate_sums_to_1_before_saturation(training: bool) -> None:
    """At the official start a selector has only 5/8 of its mass on real experts."""
    router = make_router(5, std=1e-3).train(training)
    routing = router(*ragged([T, T]))
    torch.testing.assert_close(routing.weights_BTE.sum(-1), torch.ones(2, T).double())
    assert routing.aux_loss.item() == pytest.approx(2 * (8 / 5 - 1), rel=1e-2)
    assert make_router(4)(*ragged()).aux_loss.item() == 0  # a power of two: nothing to avoid


@pytest.mark.parametrize("std", [0.05, 1e4])
def test_one_expert_gets_everything(std: float) -> None:
    x_BTD, mask_BT = ragged()
    weights_BTE = make_router(1, 1, std=std)(x_BTD, mask_BT).weights_BTE
    torch.testing.assert_close(weights_BTE[:, :, 0], mask_BT.double())


@pytest.mark.parametrize("size", [0.49999, 0.5, 50.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("k", [1, 2])
def test_a_selector_on_a_code_that_no_expert_has_stays_finite(
    k: int, training: bool, size: float
) -> None:
    """Selector 0 is at code 7 of 8, before and after saturation; another one is free."""
    router = make_router(5, k, std=0.05, entropy_coef=0.1).train(training)
    with torch.no_grad():
        router.choice.weight[:3], router.choice.bias[:3] = 0, size
    x_BTD, mask_BT = ragged()
    routing = router(x_BTD, mask_BT)
    loss = routing.weights_BTE.square().sum() + routing.aux_loss
    loss.backward()
    assert 900 < loss.item() < 1100
    for parameter in router.parameters():
        assert torch.isfinite(parameter.grad).all()
    expected_BT = mask_BT.double() * (k == 2)
    torch.testing.assert_close(routing.weights_BTE.sum(-1), expected_BT, atol=1e-5, rtol=0)


def test_counts_stand_for_repeated_rows() -> None:
    router = make_router(5, 2, entropy_coef=0.2, seed=3)
    x_UD = torch.randn(6, D, dtype=torch.float64)
    count_U = torch.tensor([0, 1, 4, 2, 0, 7])
    counted = router(x_UD[None], count_U[None])
    repeated_ND = x_UD.repeat_interleave(count_U, 0)
    repeated = router(repeated_ND[None], torch.ones(1, len(repeated_ND), dtype=torch.bool))
    torch.testing.assert_close(counted.aux_loss, repeated.aux_loss)
    torch.testing.assert_close(
        counted.weights_BTE[0].repeat_interleave(count_U, 0), repeated.weights_BTE[0]
    )
    assert not counted.weights_BTE[0, count_U == 0].any()
    assert router(x_UD[None], torch.zeros(1, 6)).aux_loss.item() == 0


def test_saturated_selectors_are_sparse_in_training_too() -> None:
    """At most k experts, and exact zeros for the rest, once all bits are binary."""
    router = make_router(8, 2, std=1e4).train()
    x_BTD, mask_BT = ragged()
    weights_BTE = router(x_BTD, mask_BT).weights_BTE
    sent_BT = (weights_BTE > 0).sum(-1)
    assert ((sent_BT >= 1) & (sent_BT <= 2))[mask_BT].all()
    assert router.max_experts == 8 and router.eval().max_experts == 2


@pytest.mark.parametrize("mode", ["per_item", "static"])
@pytest.mark.parametrize("width", [1.0, 4.0])
def test_a_models_reset_keeps_the_official_start(tiny_data: Path, width: float, mode: str) -> None:
    """FuxiCTR's reset draws Linear layers from Xavier's normal, which must not get in the way."""
    keys = dict(smooth_step_width=width, dselect_mode=mode, router_topk=5, entropy_coef=0.3)
    router = build_model(tiny_params(tiny_data, "TWIN_DSelectK", **keys)).branches["moe"].router
    assert router.topk == 5 and router.entropy_coef == 0.3
    for part, bound in ((router.choice, width / 100), (router.mix, 0.05)):
        drawn = torch.cat([parameter.detach().flatten() for parameter in part.parameters()])
        assert drawn.abs().max() <= bound
        assert drawn.std() > 0.3 * bound and drawn.unique().numel() == drawn.numel()


@pytest.mark.parametrize(
    "bad", [{"router_topk": 6}, {"smooth_step_width": 0.0}, {"dselect_mode": "per_sequence"}]
)
def test_bad_settings_are_explained(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"router_topk=6|smooth_step_width=0|write per_item or"):
        DSelectKRouter(D, 5, **bad)
