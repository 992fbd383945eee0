"""Windows of a history: which positions each one holds.

Shape suffixes: B samples, L history length, T windows, U windows that become rows, S items per window.
"""

import torch
from torch import Tensor


def find_windows(
    mask_BL: Tensor, size: int, stride: int, anchor: str, every: bool
) -> tuple[Tensor, ...]:
    """Find the windows of left-padded histories (paper 4.2).

    Windows are counted from each user's own items and not from column 0 of the padded batch. So
    a prediction cannot depend on other samples. A history shorter than ``size`` is one partial
    window.

    Args:
        mask_BL: True at real positions.
        size: items per window.
        stride: items between two window starts.
        anchor: with ``start``, as in the paper, the first window starts at the first item. Up
            to ``stride - 1`` of the newest items may then be in no window. With ``end``, the
            last window ends at the newest item, and the oldest window may be partial.
        every: see ``window_rows``.

    Returns:
        The sample ``(U,)`` of each window that becomes a row, the columns of its items ``(U, S)`` from
        old to new, True where they are real and inside, the row that each slot shows ``(B, T)``,
        left-padded, and True where a slot shows one.
    """
    L = mask_BL.shape[1]
    device = mask_BL.device
    length_B = mask_BL.sum(1)
    beyond_B = (length_B - size).clamp(min=0)
    step_up = 0 if anchor == "start" else stride - 1
    count_B = (beyond_B + step_up) // stride + (length_B > 0)
    T = max(0, L - size + step_up) // stride + 1
    from_newest_T = torch.arange(T - 1, -1, -1, device=device)
    mask_BT = from_newest_T < count_B[:, None]
    sample_U, slot_U, row_BT = window_rows(mask_BT, every)
    if anchor == "start":
        first_U = (count_B[sample_U] - 1 - from_newest_T[slot_U]) * stride
    else:
        first_U = length_B[sample_U] - size - from_newest_T[slot_U] * stride
    item_US = first_U[:, None] + torch.arange(size, device=device)
    inside_US = (item_US >= 0) & (item_US < length_B[sample_U, None])
    column_US = (item_US + (L - length_B)[sample_U, None]).clamp(0, L - 1)
    return sample_U, column_US, inside_US, row_BT, mask_BT


def window_rows(mask_BT: Tensor, every: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the windows that become rows.

    Args:
        mask_BT: True at real windows.
        every: whether all slots become rows. Otherwise real windows and the first slot do, so that
            there is at least one row. A host would have to wait for a GPU to count them.

    Returns:
        The sample and the slot of each of the V rows, ``(V,)`` each, and the row of each slot,
        ``(B, T)``.
    """
    B, T = mask_BT.shape
    if every:
        row_BT = torch.arange(B * T, device=mask_BT.device).view(B, T)
        return row_BT.flatten() // T, row_BT.flatten() % T, row_BT
    kept_BT = mask_BT.clone()
    kept_BT[0, 0] = True
    sample_V, slot_V = kept_BT.nonzero(as_tuple=True)
    return sample_V, slot_V, (kept_BT.flatten().cumsum(0) - 1).view(B, T).clamp(min=0)
