"""Batch norm: mean and variance over the samples of all ranks that train together.

Shape suffixes: P positions or samples, K width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import ranks
from ..ops.precision import at_least_float32, unrounded


def batch_moments(
    norm: Any, x_PK: Tensor, real_P: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and variance over the real positions of all ranks, ``(K,)`` each, differentiable.

    All ranks must call it in the same order, in backward too. So it cannot stand in an expert.

    Args:
        norm: a module with ``running_mean`` and ``running_var``, which are moved.
        x_PK: the positions of this rank.
        real_P: which of them count, bool.
        momentum: of the running numbers.
    """
    x_PK = at_least_float32(x_PK)
    real_P = real_P.to(x_PK.dtype)
    count = ranks.total(real_P.sum())
    share_P = real_P / count.clamp(min=1)
    with unrounded(x_PK):
        mean_K = ranks.total(share_P @ x_PK)
        # The mean's part of this gradient is zero.
        variance_K = ranks.total(share_P @ (x_PK - mean_K.detach()).square())
    with torch.no_grad():  # one position has no variance
        step, unbiased = momentum * (count > 1).to(x_PK), count / (count - 1).clamp(min=1)
        norm.running_mean.lerp_(mean_K, step)
        norm.running_var.lerp_(variance_K * unbiased, step)
    return mean_K, variance_K


class BatchNorm(_BatchNorm):
    """torch's batch norm, in training over the samples of all ranks, on CPUs too."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape ``(B, K, ...)`` will do."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        x = at_least_float32(input).movedim(1, -1)
        x_PK = x.flatten(0, -2)
        real_P = torch.ones_like(x_PK[:, 0], dtype=torch.bool)
        mean_K, variance_K = batch_moments(self, x_PK, real_P, self.momentum)
        y = (x - mean_K) * (variance_K + self.eps).rsqrt()
        if self.affine:
            y = torch.addcmul(self.bias, y, self.weight)
        return y.movedim(-1, 1)


def over_ranks(model: nn.Module) -> None:
    """Let every batch norm of a model see the samples of all ranks; weights and names stay."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = BatchNorm
