"""SimHash: codes of the sides of random hyperplanes, and the items whose codes are nearest.

Shape suffixes: B samples, L history length, K retrieved items, D item width, T hash bits.
"""

import torch
from torch import Tensor

AGE_RANGE = 2**20  # more than any age in items, so that an equal bit counts more than the age


def code(rotations_DT: Tensor, x: Tensor) -> Tensor:
    """The hash ``(..., T)`` of vectors ``(..., D)``: 1 or -1 for their side of each hyperplane.

    A vector on a hyperplane gets -1.
    """
    return torch.where(x @ rotations_DT > 0, 1.0, -1.0)


def nearest(agree_BL: Tensor, mask_BL: Tensor, topk: int, newest_first: bool) -> Tensor:
    """The columns of the ``topk`` real items whose codes agree the most, ``(B, K)``.

    Padding comes after all real items.

    Args:
        agree_BL: the number of equal bits minus that of unequal bits.
        mask_BL: True at real items.
        topk: K, or the padded length L if that is less.
        newest_first: of equally near items take the newest. Otherwise any are taken, as in LongCTR.
    """
    if not newest_first:
        near_BL = agree_BL.masked_fill(~mask_BL, -torch.inf)
    else:
        age_L = torch.arange(agree_BL.shape[1] - 1, -1, -1, device=agree_BL.device)
        near_BL = agree_BL.long() * AGE_RANGE - age_L
        near_BL = near_BL.masked_fill(~mask_BL, torch.iinfo(torch.long).min)
    return near_BL.topk(min(topk, near_BL.shape[1]), dim=1).indices
