"""Expert Choice's router against its text (Zhou et al. 2022), evaluated in float64 with one loop per
expert and item, one group per sequence.

Shape suffixes: B samples, T items, E experts, D item width.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_zoo.moe.expert_choice import ExpertChoiceRouter

from ...support.helpers import build_model, tiny_params

D, E, T = 4, 5, 23
LENGTHS = [0, 1, 2, 23, 23, 4, 5, 13, 9]


def make_router(capacity: int, seed: int = 0) -> ExpertChoiceRouter:
    """A float64 router with gates that differ."""
    torch.manual_seed(seed)
    router = ExpertChoiceRouter(D, E, router_topk=capacity).double()
    torch.nn.init.normal_(router.gate.weight, std=0.8)
    return router


def ragged(lengths: list[int] = LENGTHS, length: int = T) -> tuple[Tensor, Tensor]:
    """Random items, noise in the padding, and which items are real (left padded)."""
    mask_BT = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), length, D, dtype=torch.float64), mask_BT


def softmax(z_E: np.ndarray) -> np.ndarray:
    e = np.exp(z_E - z_E.max())
    return e / e.sum()


def one_sequence(z_TE: np.ndarray, c: int) -> tuple[np.ndarray, bool]:
    """The gates of a sequence's logits, and whether no expert took the newest item by itself.

    Softmax over the experts; then each takes its ``max(1, floor(c * l / E))`` best items, of equal
    ones the newest; an unclaimed newest item goes to its best expert.
    """
    gates_TE = np.array([softmax(z) for z in z_TE])
    length, num_experts = gates_TE.shape
    chosen_TE = np.zeros(gates_TE.shape, dtype=bool)
    for e in range(num_experts):
        favourites = sorted(range(length), key=lambda t: (-gates_TE[t, e], -t))
        chosen_TE[favourites[: max(1, c * length // num_experts)], e] = True
    unclaimed = not chosen_TE[-1].any()
    if unclaimed:
        chosen_TE[-1, gates_TE[-1].argmax()] = True
    return np.where(chosen_TE, gates_TE, 0), unclaimed


@pytest.mark.parametrize("c", [1, 2, 5])
def test_gates_are_those_of_the_text(c: int) -> None:
    router = make_router(c)
    x_BTD, mask_BT = ragged(LENGTHS * 8)
    routing = router(x_BTD, mask_BT)
    weights_BTE, unclaimed = routing.weights_BTE.detach().numpy(), 0
    W_ED = router.gate.weight.detach().numpy()
    for b, mask_T in enumerate(mask_BT.numpy()):
        assert not weights_BTE[b, ~mask_T].any()
        if mask_T.any():
            z_TE = np.array([W_ED @ x for x in x_BTD[b].numpy()[mask_T]])
            expected_TE, alone = one_sequence(z_TE, c)
            np.testing.assert_allclose(weights_BTE[b, mask_T], expected_TE, rtol=1e-10)
            unclaimed += alone
    assert float(routing.aux_loss) == 0
    assert (unclaimed > 0) == (c < 5)  # with c = E, every expert takes all
    router.eval()
    assert torch.equal(router(x_BTD, mask_BT).weights_BTE, routing.weights_BTE)


@pytest.mark.parametrize(("c", "length", "take"), [(2, 13, 5), (2, 2, 1), (1, 4, 1), (1, 23, 4)])
def test_an_expert_takes_floor_of_c_times_length_over_experts(
    c: int, length: int, take: int
) -> None:
    """Of the real length, not of the padded one; one item at least."""
    z_BTE = torch.randn(40, T, E, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.arange(T).expand(40, -1) >= T - length
    sent_BTE = (
        ExpertChoiceRouter(D, E, router_topk=c).assign(z_BTE.softmax(-1), mask_BT).weights_BTE > 0
    )
    taken_BE = sent_BTE.sum(1)
    extra_B = taken_BE.sum(1) - E * take
    assert set(extra_B.tolist()) <= {0, 1} and (taken_BE >= take).all()
    assert (sent_BTE[:, -1].sum(-1)[extra_B == 1] == 1).all()  # only the unclaimed newest item


def test_unclaimed_newest_item_gets_its_best_expert_alone() -> None:
    """The newest item is everyone's last choice: it goes to expert 2, with its plain gate."""
    z_1TE = torch.zeros(1, 10, E, dtype=torch.float64)
    for t in range(9):
        z_1TE[0, t, t % E] = 5.0
    z_1TE[0, -1] = torch.tensor([-0.3, 0.1, 0.2, 0.0, 0.1])
    # Every expert is full with the two items (one of expert 4) that want it, or an old one.
    z_1TE[0, 3, 4] = 4.9
    weights_1TE = (
        ExpertChoiceRouter(D, E, router_topk=1)
        .assign(z_1TE.softmax(-1), torch.ones(1, 10) > 0)
        .weights_BTE
    )
    expected_E = torch.zeros(E).double()
    expected_E[2] = z_1TE[0, -1].softmax(-1)[2]
    torch.testing.assert_close(weights_1TE[0, -1], expected_E)
    assert ((weights_1TE > 0).sum(1) == torch.tensor([2, 2, 3, 2, 2])).all()


def test_of_equal_items_the_newest_are_taken_whatever_the_padding() -> None:
    g = torch.Generator().manual_seed(3)
    kinds_E = torch.randn(3, E, generator=g, dtype=torch.float64)
    kind_BT = torch.randint(3, (6, T), generator=g)
    lengths = torch.tensor([23, 17, 8, 5, 23, 1])
    mask_BT = torch.arange(T) >= T - lengths[:, None]
    kind_BT[4] = 0  # all equal: the newest floor(2 * 23 / 5) are everyone's
    router = ExpertChoiceRouter(D, E, router_topk=2)
    weights_BTE = router.assign(kinds_E[kind_BT].softmax(-1), mask_BT).weights_BTE
    assert (weights_BTE[4] > 0).all(-1).tolist() == [False] * 14 + [True] * 9
    for b, mask_T in enumerate(mask_BT):
        expected_TE, _ = one_sequence(kinds_E[kind_BT[b][mask_T]].numpy(), 2)
        np.testing.assert_allclose(weights_BTE[b][mask_T].numpy(), expected_TE, rtol=1e-10)
        for extra in (1, 7, 40):  # more columns, of a kind that everyone would like
            padding_TE = kinds_E[kind_BT[b, -1:]].expand(extra, -1)
            z_1TE = torch.cat([padding_TE, kinds_E[kind_BT[b]][mask_T]])[None]
            mask_1T = torch.arange(z_1TE.shape[1])[None] >= extra
            more_TE = router.assign(z_1TE.softmax(-1), mask_1T).weights_BTE[0]
            assert torch.equal(more_TE[extra:], weights_BTE[b][mask_T])
            assert not more_TE[:extra].any()


def test_gates_are_not_renormalised_and_train_through_the_whole_softmax() -> None:
    """The gradient is the slope of the text's gates, the choice held by continuity."""
    router = make_router(2, seed=2)
    x_BTD, mask_BT = ragged([23, 9])
    weights_BTE = router(x_BTD, mask_BT).weights_BTE
    sums_BT = weights_BTE.sum(-1)[mask_BT]
    assert ((sums_BT > 1e-9) & (sums_BT < 1 - 1e-9)).any() and (sums_BT < 1 + 1e-9).all()
    read_BTE, way_ED = torch.randn_like(weights_BTE), torch.randn(E, D).double()

    def at(step: float) -> float:
        W_ED = (router.gate.weight + step * way_ED).detach().numpy()
        return sum(
            (one_sequence(x_TD[m].numpy() @ W_ED.T, 2)[0] * read[m].numpy()).sum()
            for x_TD, m, read in zip(x_BTD, mask_BT, read_BTE, strict=True)
        )

    (gradient_ED,) = torch.autograd.grad((weights_BTE * read_BTE).sum(), router.gate.weight)
    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    assert (gradient_ED * way_ED).sum().item() == pytest.approx(slope, rel=1e-6)


def test_padding_and_batch_mates_never_matter() -> None:
    router = make_router(2, seed=4)
    x_BTD, mask_BT = ragged()
    together_BTE = router(x_BTD, mask_BT).weights_BTE
    noise_BTD = torch.where(mask_BT[:, :, None], x_BTD, 100 * torch.randn_like(x_BTD))
    torch.testing.assert_close(router(noise_BTD, mask_BT).weights_BTE, together_BTE)
    for b, mask_T in enumerate(mask_BT):
        alone = router(x_BTD[b][mask_T][None], mask_T[mask_T][None]) if mask_T.any() else None
        if alone is not None:
            torch.testing.assert_close(alone.weights_BTE[0], together_BTE[b][mask_T])


def test_router_topk_is_the_mean_number_of_experts_per_item(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "TWIN_ExpertChoice", router_topk=3)
    assert build_model(params).branches["moe"].router.topk == 3


@pytest.mark.parametrize("capacity", [0, 6])
def test_bad_capacity_is_explained(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"router_topk={capacity} is not possible.*write 1 to 5"):
        ExpertChoiceRouter(D, E, router_topk=capacity)
