"""Alpha-entmax, which generalises softmax (alpha = 1) and sparsemax (alpha = 2).

Shape suffixes: N positions (the last dimension); leading dimensions are free.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..ops.compiled import uncompiled
from ..ops.functional import masked_softmax


@uncompiled  # the bisection starts from a width that depends on N, so each N would need a graph
def entmax(scores: Tensor, mask: Tensor, alpha: float = 1.5) -> Tensor:
    """Alpha-entmax over the last dimension where ``mask`` is True (Peters et al., ACL 2019).

    ``p_i = [(alpha - 1) x_i - t]_+ ^ (1 / (alpha - 1))``, where the threshold t makes the sum 1.
    With alpha > 1, positions far below the best get an exact zero. A larger alpha gives more zeros.
    Masked positions and fully masked rows are exact zeros.

    Args:
        scores: ``(..., N)``.
        mask: bool, broadcastable to ``scores``.
        alpha: 1 or more.

    Raises:
        ValueError: alpha is below 1 or infinite.
    """
    if not 1 <= alpha < math.inf:
        raise ValueError(f"alpha={alpha} is no alpha of entmax; write 1 or more, such as 1.5")
    if alpha == 1:
        return masked_softmax(scores, mask)
    return _Entmax.apply(scores, mask, alpha)


class _Entmax(torch.autograd.Function):
    """Entmax for alpha > 1: forward by bisection, backward in closed form."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, alpha: float) -> Tensor:
        info = torch.finfo(scores.dtype)
        scores = scores.masked_fill(~mask, info.min)
        below_best = (alpha - 1) * (scores - scores.amax(-1, keepdim=True))
        power = 1 / (alpha - 1)

        def unscaled(u: Tensor) -> Tensor:
            # log1p and exp stay exact where alpha is near 1 and the power is huge.
            return (below_best - u).clamp_(min=-1).log1p_().mul_(power).exp_()

        # The best score is moved to 0, and the threshold is u - 1. Then u lies between 0 (only the
        # best has p > 0) and 1 - N^(1 - alpha) (all positions are equal).
        low = torch.zeros_like(below_best[..., :1])
        width = -math.expm1((1 - alpha) * math.log(scores.shape[-1]))
        for _ in range(2 - round(math.log2(info.eps))):
            width /= 2
            middle = low + width
            low = torch.where(unscaled(middle).sum(-1, keepdim=True) >= 1, middle, low)
        p = unscaled(low).masked_fill(~mask, 0)
        # The sum is at least 1 up to rounding, except in fully masked rows. Normalise it to 1.
        p = p / p.sum(-1, keepdim=True).clamp(min=1)
        ctx.save_for_backward(p)
        ctx.alpha = alpha
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """``s * (grad - mean of grad weighted by s)``, with ``s = p^(2 - alpha)`` where p > 0."""
        (p,) = ctx.saved_tensors
        info = torch.finfo(p.dtype)
        # For alpha > 2, s grows without bound as p goes to 0. The clamp keeps the gradient finite.
        s = p.pow(2 - ctx.alpha).clamp(max=1 / info.eps).masked_fill(p == 0, 0)
        mean = (s * grad).sum(-1, keepdim=True) / s.sum(-1, keepdim=True).clamp(min=info.tiny)
        return s * (grad - mean), None, None
