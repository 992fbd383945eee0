"""The scans that the benchmark times, and their random inputs.

Shape suffixes: B samples, E channels, N state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.ops.scan import selective_scan, selective_scan_reference
from model_zoo.ops.scan_last import selective_scan_last

CHANNELS, STATE = 128, 16  # Mamba4Rec: hidden 64, expanded 2 times
LOOP, UNBIND = "loop over x[:, t]", "loop over unbind"
OURS, LAST = "selective_scan", "selective_scan_last"


def unbind_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``selective_scan_reference`` with all positions taken apart at once."""
    h_BEN = u.new_zeros(len(u), *A.shape)
    outputs = []
    steps = zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True)
    for u_BE, delta_BE, B_BN, C_BN in steps:
        x_BE = delta_BE * u_BE
        h_BEN = torch.exp(delta_BE[:, :, None] * A) * h_BEN + x_BE[:, :, None] * B_BN[:, None]
        outputs.append((h_BEN * C_BN[:, None]).sum(-1))
    return torch.stack(outputs, dim=1) + D * u


def newest(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``selective_scan_last`` of the inputs of the others."""
    return selective_scan_last(u, delta, A, B, C[:, -1:], D)


SCANS: dict[str, Callable[..., Tensor]] = {
    LOOP: selective_scan_reference,
    UNBIND: unbind_loop,
    OURS: selective_scan,
    LAST: newest,
}


def random_inputs(length: int, batch_size: int) -> list[Tensor]:
    """u, delta, A, B, C, D; A as Mamba starts it, steps from 0.01 to 1."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    return [
        normal(batch_size, length, CHANNELS),
        F.softplus(normal(batch_size, length, CHANNELS) - 2),
        -torch.arange(1.0, STATE + 1).repeat(CHANNELS, 1),
        normal(batch_size, length, STATE),
        normal(batch_size, length, STATE),
        normal(CHANNELS),
    ]
