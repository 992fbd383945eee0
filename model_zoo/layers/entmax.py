"""Alpha-entmax: the family of softmax (alpha = 1) and sparsemax (alpha = 2).

Shape suffixes: N positions (the last dimension); leading dimensions are free.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..ops.compiled import uncompiled
from ..ops.functional import masked_softmax


@uncompiled  # its bisection starts from a width that depends on N: each N would be a graph
def entmax(scores: Tensor, mask: Tensor, alpha: float = 1.5) -> Tensor:
    """Alpha-entmax over the last dimension where ``mask`` is True (Peters et al., ACL 2019).

    ``p_i = [(alpha - 1) x_i - t]_+ ^ (1 / (alpha - 1))`` with the threshold t for which they sum
    to 1. With alpha > 1, positions far below the best get an exact zero, more of them with a
    larger alpha. Masked positions and fully masked rows are exact zeros.

    Args:
        scores: ``(..., N)``.
        mask: bool, broadcastable to ``scores``.
        alpha: 1 or more.
    """
    if not 1 <= alpha < math.inf:
        raise ValueError(
            f"alpha={alpha} is no alpha of entmax; write 1 (softmax) or more, such as 1.5"
        )
    if alpha == 1:
        return masked_softmax(scores, mask)
    return _Entmax.apply(scores, mask, alpha)


class _Entmax(torch.autograd.Function):
    """Entmax for alpha > 1: by bisection forward, in closed form backward."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, alpha: float) -> Tensor:
        info = torch.finfo(scores.dtype)
        scores = scores.masked_fill(~mask, info.min)
        below_best = (alpha - 1) * (scores - scores.amax(-1, keepdim=True))
        power = 1 / (alpha - 1)

        def unscaled(u: Tensor) -> Tensor:
            # log1p and exp stay exact where alpha is near 1 and the power is huge.
            return (below_best - u).clamp_(min=-1).log1p_().mul_(power).exp_()

        # With the best score moved to 0 the threshold is u - 1, and u is between 0 (the best alone
        # has p = 1) and 1 - N^(1 - alpha) (all positions equal).
        low = torch.zeros_like(below_best[..., :1])
        width = -math.expm1((1 - alpha) * math.log(scores.shape[-1]))
        for _ in range(2 - round(math.log2(info.eps))):
            width /= 2
            middle = low + width
            low = torch.where(unscaled(middle).sum(-1, keepdim=True) >= 1, middle, low)
        p = unscaled(low).masked_fill(~mask, 0)
        # Correct what rounding left of the sum, which is below 1 only where a row is fully masked.
        p = p / p.sum(-1, keepdim=True).clamp(min=1)
        ctx.save_for_backward(p)
        ctx.alpha = alpha
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """``s * (grad - mean of grad weighted by s)``, ``s = p^(2 - alpha)`` on the support."""
        (p,) = ctx.saved_tensors
        info = torch.finfo(p.dtype)
        # For alpha > 2, s has no bound as p goes to 0: keep the gradient finite.
        s = p.pow(2 - ctx.alpha).clamp(max=1 / info.eps).masked_fill(p == 0, 0)
        mean = (s * grad).sum(-1, keepdim=True) / s.sum(-1, keepdim=True).clamp(min=info.tiny)
        return s * (grad - mean), None, None
