"""What the two forms of the selective scan share: types, work buffers, and the pieces filled in them.

In work buffers the state comes before the channels: those are many, so that vector instructions run
along them. Shape suffixes: S samples of a tile, K positions of a chunk, N state, E channels.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import unrounded

# Numbers in a work buffer. On a CPU those of a thread stay in its cache, and every operation is large
# enough to be split among the threads; on a GPU they keep it busy.
SIZE_PER_THREAD, SIZE_ON_GPU = 2**19, 2**25
# exp(x) is computed as exp2(x log2 e): on a CPU torch's exp2 is 2 to 4 times faster than its exp.
LOG2_E, LN_2 = math.log2(math.e), math.log(2)


class Work(NamedTuple):
    """A work buffer ``(S, K, N, E)`` and its K steps, each ``(S, N, E)``."""

    whole: Tensor
    steps: tuple[Tensor, ...]


class WorkBuffer:
    """Memory that is used again and again: fresh memory costs more than the arithmetic on it."""

    def __init__(self, like: Tensor) -> None:
        self.flat = like.new_empty(0)
        self.views: dict[tuple[int, ...], Work] = {}

    def view(self, *shape: int) -> Work:
        """With whatever the last one left in it. Made once per shape: that costs much, too."""
        if math.prod(shape) > len(self.flat):
            self.flat = self.flat.new_empty(math.prod(shape))
            self.views.clear()
        if shape not in self.views:
            whole = self.flat[: math.prod(shape)].view(shape)
            self.views[shape] = Work(whole, whole.unbind(1))
        return self.views[shape]

    def decay(self, time_SKE: Tensor, rate_NE: Tensor) -> Work:
        """``2^(time rate)``."""
        work = self.view(*time_SKE.shape[:-1], *rate_NE.shape)
        torch.mul(time_SKE[:, :, None], rate_NE, out=work.whole).exp2_()
        return work

    def outer(self, state_SKN: Tensor, channels_SKE: Tensor) -> Work:
        """Each number of the state times each channel."""
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
    """float32, or float64 if an input is."""
    return reduce(torch.promote_types, (x.dtype for x in inputs), torch.float32)


def mask_steps(delta: Tensor, mask: Tensor | None) -> Tensor:
    """No step where the mask is zero."""
    return delta if mask is None else delta * mask[:, :, None].to(delta.dtype)


def add_skip(y: Tensor, u: Tensor, D: Tensor | None) -> Tensor:
    """``y + D u``, or y without D."""
    return y if D is None else torch.addcmul(y, u, D.to(y.dtype))
