"""Histories without padding: the real positions of all samples in one row.

A segment is the positions of one sample, oldest first.

Shape suffixes: B samples, L padded length, P positions of all segments, S segments, E channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .history import History


@dataclass(frozen=True)
class Segments:
    """Where each sample is among the positions.

    Attributes:
        start_S, stop_S: the first position of each sample, and the one behind its last; int64.
        age_P: how many older positions the sample has at each position, int32.
    """

    start_S: Tensor
    stop_S: Tensor
    age_P: Tensor

    def newest(self, x_1PE: Tensor) -> Tensor:
        """The newest position of each sample, ``(S, 1, E)``; an empty one gets that of another."""
        return x_1PE[0].index_select(0, (self.stop_S - 1).clamp(min=0))[:, None]


def pack(history: History) -> tuple[History, Segments]:
    """The real positions of all samples as one history ``(1, P)``, one sample after the other.

    To count them, the host waits for the device.
    """
    mask_BL = history.mask_BL
    at_P = mask_BL.flatten().nonzero()[:, 0]
    age_P = (mask_BL.cumsum(1, dtype=torch.int32) - 1).flatten()[at_P]
    length_B = mask_BL.sum(1)
    stop_B = length_B.cumsum(0)
    index_1P = history.index_BL.flatten()[at_P][None]
    packed = History(history._rows, index_1P, torch.ones_like(index_1P, dtype=torch.bool))
    return packed, Segments(stop_B - length_B, stop_B, age_P)
