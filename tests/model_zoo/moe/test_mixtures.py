"""The mixtures against the paper: equations 6 to 8 evaluated in float64 from their text, dispatch of
the read experts only against running all of them, under each router, and the invariances.

Shape suffixes: B samples, L history length, D item width.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_zoo.backbones.twin import TWINBlock
from model_zoo.history.history import History
from model_zoo.moe.branch import Branch, Plan, compact
from model_zoo.moe.dselect_k import DSelectK, DSelectKRouter
from model_zoo.moe.expert_choice import ExpertChoice, ExpertChoiceRouter
from model_zoo.moe.gshard import GShard, GShardRouter
from model_zoo.moe.mixtures import Mixture, SparseMixture
from model_zoo.moe.mos import MoS, ThemeRouter
from model_zoo.moe.routers import Router, Routing

from ...support.helpers import ragged_history

D, L = 6, 25
LENGTHS = [0, 1, 3, 25, 25, 9, 17, 8]


ROUTERS = {
    "theme, k = 1": lambda: ThemeRouter(D, 5, router_topk=1, codebook_dim=4),
    "theme, k = 1, softmax": lambda: ThemeRouter(
        D, 5, router_topk=1, codebook_dim=4, router_weight="softmax_topk"
    ),
    "theme, k = 2": lambda: ThemeRouter(D, 5, router_topk=2, codebook_dim=4),
    "theme, k = 5": lambda: ThemeRouter(D, 5, router_topk=5, codebook_dim=4),
    "gshard, k = 1": lambda: GShardRouter(D, 5, router_topk=1, balance_coef=3.0),
    # So low a threshold keeps every second choice in training too, which is then not random.
    "gshard, k = 2": lambda: GShardRouter(D, 5, capacity_factor=0.75, second_threshold=1e-12),
    "dselect-k": lambda: DSelectKRouter(D, 5, smooth_step_width=3.0, entropy_coef=0.2),
    "dselect-k, static": lambda: DSelectKRouter(D, 5, smooth_step_width=3.0, dselect_mode="static"),
    "expert choice": lambda: ExpertChoiceRouter(D, 5),
}


def make_block() -> TWINBlock:
    return TWINBlock(D, attention_dim=8, num_heads=2, short_seq_len=5, topk=4)


def spread(router: Router) -> Router:
    """Gates that differ, some of them saturated; a theme router's differ as they are."""
    for parameter in router.parameters() if not isinstance(router, ThemeRouter) else ():
        nn.init.normal_(parameter, std=0.6)
    return router


def make_mixture(mixture: type[Mixture], **settings: Any) -> Mixture:
    """A float64 mixture with gates that differ."""
    torch.manual_seed(0)
    made = mixture(make_block, D, **({"codebook_dim": 4} if mixture is MoS else {}), **settings)
    for branch in made.branches.values():
        spread(branch.router)
    return made.double()


def bare(x_BLD: Tensor, mask_BL: Tensor, b: int) -> Tensor:
    return x_BLD[b][mask_BL[b]]


def run_block(block: nn.Module, x_tD: Tensor, target_D: Tensor) -> Tensor:
    """A block on one bare sequence, zero for an empty one."""
    if not len(x_tD):
        return target_D.new_zeros(block.output_dim)
    history = History(
        x_tD, torch.arange(len(x_tD))[None], torch.ones(1, len(x_tD), dtype=torch.bool)
    )
    return block(history, target_D[None])[0]


def all_experts(branch: Branch, x_tD: Tensor, target_D: Tensor) -> Tensor:
    """Equations 6 / 7 as printed: every expert runs on its subsequence, weighted by the gate of the
    last item."""
    if not len(x_tD):
        return target_D.new_zeros(branch.output_dim)
    gates_tE = branch.router(x_tD[None], torch.ones(1, len(x_tD), dtype=torch.bool)).weights_BTE[0]
    return sum(
        gates_tE[-1, i] * run_block(expert, x_tD[gates_tE[:, i] > 0], target_D)
        for i, expert in enumerate(branch.experts)
    )


def windows_of(x_tD: Tensor, size: int, stride: int) -> Tensor:
    """Paper 4.2: w_m = mean(v_{s m + 1} ... v_{s m + L}); a short history is one partial window."""
    if len(x_tD) <= size:
        return x_tD.mean(0, keepdim=True) if len(x_tD) else x_tD
    count = (len(x_tD) - size) // stride + 1
    return torch.stack([x_tD[m * stride : m * stride + size].mean(0) for m in range(count)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("router", ROUTERS)
def test_branch_equals_all_experts_in_outputs_and_gradients(router: str, training: bool) -> None:
    torch.manual_seed(0)
    branch = Branch(spread(ROUTERS[router]()), make_block, 5).double().train(training)
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64, requires_grad=True)
    y_BH, aux_loss = branch(history, target_BD)
    x_BLD = history.embed()
    expected = torch.stack(
        [
            all_experts(branch, bare(x_BLD, history.mask_BL, b), target_BD[b])
            for b in range(len(LENGTHS))
        ]
    )
    torch.testing.assert_close(y_BH, expected, rtol=1e-9, atol=1e-11)
    expected_loss = branch.router(x_BLD, history.mask_BL).aux_loss  # of every item
    torch.testing.assert_close(aux_loss, expected_loss)
    assert (aux_loss > 0) == branch.router.auxiliary
    inputs = [history.rows_UD, target_BD, *branch.parameters()]
    weights = torch.randn_like(y_BH)
    options = {"allow_unused": True, "materialize_grads": True}
    for a, b in zip(
        torch.autograd.grad((y_BH * weights).sum() + aux_loss, inputs, **options),
        torch.autograd.grad((expected * weights).sum() + expected_loss, inputs, **options),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_router_that_sees_sequences_is_dispatched_alike() -> None:
    """Routing whole sequences, as other routers need, or each distinct item once: the same."""

    class SequenceRouter(ThemeRouter):
        itemwise = False

    itemwise = Branch(ThemeRouter(D, 5, router_topk=2, codebook_dim=4), make_block, 5)
    sequence = Branch(SequenceRouter(D, 5, router_topk=2, codebook_dim=4), make_block, 5)
    sequence.load_state_dict(itemwise.state_dict())
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    y_BH, _ = itemwise.double().eval()(history, target_BD)
    torch.testing.assert_close(sequence.double().eval()(history, target_BD)[0], y_BH)


@pytest.mark.parametrize("k", [1, 2])
def test_fusion_is_equation_8(k: int) -> None:
    mos = MoS(
        make_block, D, router_topk=k, codebook_dim=4, window_size=4, window_stride=2,
        alpha_item=0.3, alpha_window=0.2,
    ).double()  # fmt: skip
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    y_BH, _ = mos(history, target_BD)
    x_BLD = history.embed()
    for b in range(len(LENGTHS)):
        x_tD = bare(x_BLD, history.mask_BL, b)
        y_G = run_block(mos.global_block, x_tD, target_BD[b])
        y_I = all_experts(mos.branches["item"], x_tD, target_BD[b])
        y_W = all_experts(mos.branches["window"], windows_of(x_tD, 4, 2), target_BD[b])
        expected = (1 - 0.3 - 0.2) * y_G + 0.3 * y_I + 0.2 * y_W
        torch.testing.assert_close(y_BH[b], expected, rtol=1e-9, atol=1e-11)


def test_one_expert_with_k_1_is_the_block_on_the_full_history() -> None:
    branch = Branch(ThemeRouter(D, 1, router_topk=1, codebook_dim=4), make_block, 1).double()
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    torch.testing.assert_close(
        branch(history, target_BD)[0], branch.experts[0](history, target_BD), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("mixture", [GShard, DSelectK, ExpertChoice])
@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_the_other_mixtures_fuse_alike(mixture: type[Mixture], alpha: float) -> None:
    moe = make_mixture(mixture, **({} if alpha == 0.5 else {"alpha_moe": alpha})).eval()
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    y_BH, aux_loss = moe(history, target_BD)
    expected_loss = moe.branches["moe"].router(history.embed(), history.mask_BL).aux_loss
    torch.testing.assert_close(aux_loss, expected_loss)
    for b in range(len(LENGTHS)):
        x_tD = bare(history.embed(), history.mask_BL, b)
        y_G = run_block(moe.global_block, x_tD, target_BD[b])
        y_E = all_experts(moe.branches["moe"], x_tD, target_BD[b])
        torch.testing.assert_close(y_BH[b], (1 - alpha) * y_G + alpha * y_E, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mixture", [MoS, GShard, DSelectK, ExpertChoice])
@pytest.mark.parametrize("n", [0, 5])
def test_without_experts_it_is_the_backbone_bit_for_bit(mixture: type[Mixture], n: int) -> None:
    """No experts at all, or experts of weight 0."""
    alphas = ["alpha_item", "alpha_window"] if mixture is MoS else ["alpha_moe"]
    settings = dict.fromkeys(alphas, 0.0) if n else {"num_experts": 0}
    moe, single = mixture(make_block, D, **settings), Mixture(make_block, D)
    single.global_block.load_state_dict(moe.global_block.state_dict())
    history = ragged_history(LENGTHS, L, D, dtype=torch.float32)
    target_BD = torch.randn(len(LENGTHS), D)
    y_BH, aux_loss = moe(history, target_BD)
    assert torch.equal(y_BH, single(history, target_BD)[0]) and aux_loss == 0
    assert [stage.name for stage in moe.stages(3)] == ["joint"]


@pytest.mark.parametrize(
    ("mixture", "settings"),
    [
        (MoS, {"router_topk": 2}),
        (MoS, {"router_topk": 2, "window_anchor": "end"}),
        (GShard, {"eval_capacity_factor": 0.75}),
        (DSelectK, {}),
        (ExpertChoice, {}),
    ],
)
def test_padding_and_batch_mates_never_matter(mixture: type[Mixture], settings: dict) -> None:
    mos = make_mixture(mixture, **settings).eval()
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    together, _ = mos(history, target_BD)

    other_padding = torch.where(
        history.mask_BL, history.index_BL, torch.randint_like(history.index_BL, 50)
    )
    noisy = History(history.rows_UD, other_padding, history.mask_BL)
    assert torch.equal(mos(noisy, target_BD)[0], together)

    for b, length in enumerate(LENGTHS):
        cut = L - max(length, 1)
        alone = History(
            history.rows_UD, history.index_BL[b : b + 1, cut:], history.mask_BL[b : b + 1, cut:]
        )
        y, _ = mos(alone, target_BD[b : b + 1])
        torch.testing.assert_close(y[0], together[b], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("router", ROUTERS)
def test_empty_history_gives_zero_from_the_experts(router: str) -> None:
    branch = Branch(spread(ROUTERS[router]()), make_block, 5)
    history = ragged_history([0, 0], 4, D, dtype=torch.float32)
    for training in (True, False):
        y_BH, aux_loss = branch.train(training)(history, torch.randn(2, D))
        assert torch.equal(y_BH, torch.zeros_like(y_BH)) and aux_loss == 0


def test_training_shows_each_real_item_to_the_codebook_and_evaluation_none() -> None:
    branch = Branch(ThemeRouter(D, 5, router_topk=2, codebook_dim=4), make_block, 5).double()
    codebook = branch.router.codebook
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    branch.eval()
    branch(history, target_BD)
    assert float(codebook.count_E.sum()) == 0
    branch.train()
    branch(history, target_BD)
    x_ND = history.embed()[history.mask_BL]  # with multiplicity
    sent_NE = (
        branch.router(x_ND[None], torch.ones(1, len(x_ND), dtype=torch.bool)).weights_BTE[0] > 0
    )
    assert torch.equal(codebook.count_E, sent_NE.sum(0).double())
    torch.testing.assert_close(codebook.sum_EC, sent_NE.double().T @ branch.router.h(x_ND))


def test_window_codebook_sees_real_windows_only() -> None:
    mos = MoS(make_block, D, codebook_dim=4).double().train()
    history = ragged_history(LENGTHS, L, D)
    mos(history, torch.randn(len(LENGTHS), D, dtype=torch.float64))
    windows = sum(len(windows_of(torch.zeros(n, D), 8, 4)) for n in LENGTHS)
    assert float(mos.branches["window"].router.codebook.count_E.sum()) == windows


def test_routing_for_analysis_is_that_of_the_positions() -> None:
    branch = Branch(ThemeRouter(D, 5, router_topk=1, codebook_dim=4), make_block, 5).eval()
    history = ragged_history(LENGTHS, L, D, dtype=torch.float32)
    weights_BTE = branch.router.gates(history)
    expected = branch.router(history.embed(), history.mask_BL).weights_BTE
    torch.testing.assert_close(weights_BTE, expected)
    assert torch.equal((weights_BTE > 0).sum(-1), history.mask_BL.long())


def test_a_router_of_another_kind_brings_its_own_branch() -> None:
    """Soft slots: every expert reads one item, a weighted mean of the history; nothing is dropped."""

    class SlotRouter(Router):
        """One query per slot."""

        def __init__(self, item_dim: int, num_experts: int, *, slot_scale: float = 1.0) -> None:
            super().__init__(item_dim, num_experts)
            self.query, self.scale = nn.Linear(item_dim, num_experts, bias=False), slot_scale

        def project(self, x: Tensor) -> Tensor:
            return self.scale * self.query(x)

        def assign(self, z_BTZ: Tensor, count_BT: Tensor) -> Routing:
            weights_BTE = z_BTZ.masked_fill((count_BT == 0)[..., None], -1e9).softmax(1)
            return Routing(weights_BTE * (count_BT > 0)[..., None], z_BTZ.new_zeros(()))

    class SlotExperts(Branch):
        def plan(self, history: History) -> Plan:
            weights_BTE = self.router(history.embed(), history.mask_BL).weights_BTE
            slots_BED = weights_BTE.mT @ history.embed()

            def run(sizes: list[int], target_BD: Tensor) -> Tensor:
                assert sizes == []
                parts = [
                    expert(History.from_vectors(slots_BED[:, e, None]), target_BD)
                    for e, expert in enumerate(self.experts)
                ]
                return torch.stack(parts).mean(0)

            return Plan(torch.zeros(0, dtype=torch.long), torch.zeros(()), run)

    class SoftSlots(SparseMixture):
        router, branch = SlotRouter, SlotExperts

    slots = SoftSlots(make_block, D, num_experts=3, slot_scale=2.0, alpha_moe=0.4).double()
    history = ragged_history(LENGTHS, L, D)
    target_BD = torch.randn(len(LENGTHS), D, dtype=torch.float64)
    y_BH, aux_loss = slots(history, target_BD)
    y_BH.sum().backward()
    assert aux_loss == 0 and slots.branches["moe"].router.query.weight.grad.abs().sum() > 0
    only = slots.branches["moe"](history, target_BD)[0]
    expected = 0.6 * slots.global_block(history, target_BD) + 0.4 * only
    torch.testing.assert_close(y_BH, expected)
    slots.before_experts([history], seed=0)  # a hook that it does not write does nothing
    slots.branches["moe"].router.after_step()
    slots.branches["moe"].router.forget()
    assert slots.branches["moe"].router.gates(history).sum() > 0


def test_a_router_that_leaves_something_out_says_what() -> None:
    class Unfinished(Router):
        def project(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match=r"abstract method.*assign"):
        Unfinished(D, 5)


def test_compact_keeps_order_and_pads_left() -> None:
    member_PT = torch.rand(40, 13) < torch.linspace(0, 1, 40)[:, None]
    index_PT, mask_PT = compact(member_PT)
    for p in range(40):
        kept = np.flatnonzero(member_PT[p].numpy())
        assert index_PT[p][mask_PT[p]].tolist() == kept.tolist()
        assert torch.equal(mask_PT[p].sort().values, mask_PT[p])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha_item": 0.8, "alpha_window": 0.3}, "alpha_item=0.8"),
        ({"window_stride": 9}, "window_stride=9"),
        ({"window_anchor": "left"}, "write start or end"),
        ({"codebook_restarts": 0}, "codebook_restarts=0 is too small"),
        ({"codebook_init": "zeros"}, "write kmeans or balanced_kmeans or random"),
        ({"num_experts": -1}, "num_experts=-1"),
        ({"router_topk": 7}, "router_topk=7"),
    ],
)
def test_bad_settings_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoS(make_block, D, **settings)
