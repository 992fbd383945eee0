"""Work buffers and number types, which all forms of the selective scan share.

In work buffers the channels are the last dimension. There are many of them, so that vector
instructions run along them.

Shape suffixes: S samples of a tile, K positions of a chunk, N state, E channels.
"""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

# How many numbers a work buffer holds. On a CPU, a thread's part stays in its cache, and every
# operation is large enough to be split among the threads. On a GPU, this many keep it busy.
SIZE_PER_THREAD, SIZE_ON_GPU = 2**19, 2**25
# exp(x) is computed as exp2(x log2 e). On a CPU, torch's exp2 is 2 to 4 times faster than its exp.
LOG2_E, LN_2 = math.log2(math.e), math.log(2)
# Below these x, 2^x is exactly 0, even with denormal numbers.
ZERO_BELOW = {torch.float32: -150.0, torch.float64: -1075.0}


class WorkBuffer:
    """Memory that is reused, since fresh memory costs more time than the arithmetic on it."""

    def __init__(self, like: Tensor) -> None:
        self.flat = like.new_empty(0)

    def view(self, *shape: int) -> Tensor:
        """The memory in the given shape; its content is arbitrary."""
        size = math.prod(shape)
        if size > len(self.flat):
            self.flat = self.flat.new_empty(size)
        return self.flat[:size].view(shape)

    def decay(self, time_SKE: Tensor, rate_NE: Tensor) -> Tensor:
        """Fill the buffer with ``2^(time rate)``, ``(S, K, N, E)``."""
        work_SKNE = self.view(*time_SKE.shape[:-1], *rate_NE.shape)
        return torch.mul(time_SKE[:, :, None], rate_NE, out=work_SKNE).exp2_()

    def outer(self, state_SKN: Tensor, channels_SKE: Tensor) -> Tensor:
        """Fill the buffer with the outer product of state and channels, ``(S, K, N, E)``."""
        work_SKNE = self.view(*state_SKN.shape, channels_SKE.shape[-1])
        return torch.mul(state_SKN[..., None], channels_SKE[:, :, None], out=work_SKNE)


def sum_states(work_SKNE: Tensor, weights_SKN: Tensor | None = None) -> Tensor:
    """Compute ``sum_n weights[n] work[n]`` for each step, ``(S, K, E)``; weights default to 1.

    On a CPU, ``embedding_bag`` needs half the time of a batched product of vectors and matrices. It
    also works with any number of states.
    """
    S, K, N, E = work_SKNE.shape
    row_PN = torch.arange(S * K * N, device=work_SKNE.device).view(S * K, N)
    weights_PN = None if weights_SKN is None else weights_SKN.reshape(S * K, N)
    rows = work_SKNE.view(-1, E)
    sums_PE = F.embedding_bag(row_PN, rows, mode="sum", per_sample_weights=weights_PN)
    return sums_PE.view(S, K, E)


def blocks_per_buffer(state: Tensor) -> int:
    """How many blocks of the size of ``state`` a work buffer holds, at least one."""
    on_cpu = state.device.type == "cpu"
    numbers = SIZE_PER_THREAD * torch.get_num_threads() if on_cpu else SIZE_ON_GPU
    return max(1, numbers // max(1, state.numel()))


def compute_dtype(*inputs: Tensor) -> torch.dtype:
    """The type to compute in: float32, or float64 if an input has it."""
    return reduce(torch.promote_types, (x.dtype for x in inputs), torch.float32)
