"""What the two forms of the selective scan share: types, and work buffers that they fill.

In work buffers the state comes before the channels: those are many, so that vector instructions run
along them. Shape suffixes: S samples of a tile, K positions of a chunk, N state, E channels.
"""

from __future__ import annotations

import math
from functools import cached_property, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import unrounded

# Numbers in a work buffer. On a CPU those of a thread stay in its cache, and every operation is
# large enough to be split among the threads; on a GPU they keep it busy.
SIZE_PER_THREAD, SIZE_ON_GPU = 2**19, 2**25
# exp(x) is computed as exp2(x log2 e): on a CPU torch's exp2 is 2 to 4 times faster than its exp.
LOG2_E, LN_2 = math.log2(math.e), math.log(2)
# 2^x is the number 0 from here on, also where tiny numbers are kept (denormal ones)
ZERO_BELOW = {torch.float32: -150.0, torch.float64: -1075.0}


class Work:
    """A tensor ``(S, K, N, E)``, its K steps, and weighted sums of its rows of E numbers.

    Such sums are what ``embedding_bag`` computes: on a CPU in half the time of a product of many
    vectors and matrices, and without trouble where there are few states.
    """

    def __init__(self, whole_SKNE: Tensor) -> None:
        self.whole = whole_SKNE
        self.steps = whole_SKNE.unbind(1)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """The rows, and the indices of the N rows that belong to each step of each sample."""
        S, K, N, E = self.whole.shape
        index_PN = torch.arange(S * K * N, device=self.whole.device).view(S * K, N)
        return self.whole.view(S * K * N, E), index_PN

    def over_states(self, weights_SKN: Tensor | None = None) -> Tensor:
        """``sum_n weights[n] whole[n]`` of each step of each sample, ``(S, K, E)``; without weights
        the plain sum."""
        rows, index_PN = self._rows
        weights_PN = None if weights_SKN is None else weights_SKN.reshape(index_PN.shape)
        sums_PE = F.embedding_bag(index_PN, rows, mode="sum", per_sample_weights=weights_PN)
        return sums_PE.view(*self.whole.shape[:2], -1)


class WorkBuffer:
    """Memory that is used again and again: fresh memory costs more than the arithmetic on it."""

    def __init__(self, like: Tensor) -> None:
        self.flat = like.new_empty(0)
        self.views: dict[tuple[int, ...], Work] = {}

    def view(self, *shape: int) -> Work:
        """The memory in a shape, with what was left in it; views are kept, for they cost time."""
        if math.prod(shape) > len(self.flat):
            self.flat = self.flat.new_empty(math.prod(shape))
            self.views.clear()
        if shape not in self.views:
            self.views[shape] = Work(self.flat[: math.prod(shape)].view(shape))
        return self.views[shape]

    def decay(self, time_SKE: Tensor, rate_NE: Tensor) -> Work:
        """Fill the buffer with ``2^(time rate)``."""
        work = self.view(*time_SKE.shape[:-1], *rate_NE.shape)
        torch.mul(time_SKE[:, :, None], rate_NE, out=work.whole).exp2_()
        return work

    def outer(self, state_SKN: Tensor, channels_SKE: Tensor) -> Work:
        """Fill the buffer with the products of each number of the state and each channel."""
        work = self.view(*state_SKN.shape, channels_SKE.shape[-1])
        torch.mul(state_SKN[..., None], channels_SKE[:, :, None], out=work.whole)
        return work


def blocks_per_buffer(state: Tensor) -> int:
    """How many blocks of the size of ``state`` a work buffer holds, at least one."""
    on_cpu = state.device.type == "cpu"
    numbers = SIZE_PER_THREAD * torch.get_num_threads() if on_cpu else SIZE_ON_GPU
    return max(1, numbers // max(1, state.numel()))


def product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each vector times its matrix: ``(..., I)`` and ``(..., I, J)`` to ``(..., J)``."""
    with unrounded(vectors):
        return (vectors.unsqueeze(-2) @ matrices).squeeze(-2)


def compute_dtype(*inputs: Tensor) -> torch.dtype:
    """The type to compute in: float32, or float64 if an input has it."""
    return reduce(torch.promote_types, (x.dtype for x in inputs), torch.float32)


def mask_steps(delta: Tensor, mask: Tensor | None) -> Tensor:
    """The steps, zero where the mask is zero."""
    return delta if mask is None else delta * mask[:, :, None].to(delta.dtype)
