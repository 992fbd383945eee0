"""Blocks that compute at every position run in groups of like lengths, to the same numbers."""

import pytest
import torch
from torch import Tensor

from model_zoo.backbones.mamba4rec import Mamba4RecBlock
from model_zoo.backbones.transact import TransActBlock
from model_zoo.baselines.attenmixer import AttenMixerBlock
from model_zoo.baselines.miasrec import MiasRecBlock
from model_zoo.history.history import History
from model_zoo.layers.block import GROUPS, LEAST, SequenceBlock, by_length

B, L, D = 300, 40, 16


def ragged(seed: int) -> tuple[History, Tensor, Tensor]:
    """A batch with histories of 0 to L items, its rows, and targets."""
    torch.manual_seed(seed)
    rows_UD = torch.randn(70, D, requires_grad=True)
    length_B = torch.randint(0, L + 1, (B,))
    mask_BL = torch.arange(L) >= L - length_B[:, None]
    return History(rows_UD, torch.randint(0, 70, (B, L)), mask_BL), rows_UD, torch.randn(B, D)


@pytest.mark.parametrize("block", [Mamba4RecBlock, TransActBlock, AttenMixerBlock, MiasRecBlock])
def test_outputs_and_gradients_are_those_of_one_pass(block: type) -> None:
    torch.manual_seed(0)
    block = block(D).double().eval()
    assert block.dense
    results = []
    for grouped in (True, False):
        history, rows_UD, target_BD = ragged(seed=1)
        history = History(rows_UD.double(), history.index_BL, history.mask_BL)
        run = block if grouped else block.forward
        out_BH = run(history, target_BD.double())
        (out_BH * torch.linspace(-1, 1, out_BH.numel()).view_as(out_BH)).sum().backward()
        grads = [p.grad.clone() for p in block.parameters() if p.grad is not None]
        block.zero_grad()
        results.append([out_BH.detach(), rows_UD.grad, *grads])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)


def test_groups_are_few_ordered_by_length_and_cut_to_their_longest() -> None:
    history, _, target_BD = ragged(seed=2)
    seen = []

    def block(part: History, target_PD: Tensor) -> Tensor:
        seen.append((len(part.mask_BL), len(part), int(part.mask_BL.sum(1).max())))
        return target_PD

    assert torch.equal(by_length(block, history, target_BD), target_BD)
    sizes, widths, longest = zip(*seen, strict=True)
    assert 1 < len(seen) <= GROUPS and sum(sizes) == B and min(sizes[:-1]) >= LEAST
    assert list(widths) == sorted(widths) == [max(1, n) for n in longest] and widths[0] < L


def test_equal_lengths_and_small_batches_take_one_pass() -> None:
    history, _, target_BD = ragged(seed=3)
    passes = []

    def block(part: History, target_PD: Tensor) -> Tensor:
        passes.append(part)
        return target_PD

    full = history.with_mask(torch.ones_like(history.mask_BL))
    by_length(block, full, target_BD)
    by_length(block, history.samples(slice(0, LEAST)), target_BD[:LEAST])
    assert len(passes) == 2


def test_a_block_without_a_forward_says_what_is_missing_when_it_is_built() -> None:
    class Nothing(SequenceBlock):
        pass

    with pytest.raises(TypeError, match=r"Nothing with.* abstract method '?forward"):
        Nothing()


def test_a_block_need_not_say_how_to_read_weights_of_longctr() -> None:
    weights = {"W": torch.ones(1)}
    assert SequenceBlock.from_longctr(weights) == weights
