"""Small functions that several layers share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32, unrounded

# Up to this many queries per sample, it is cheaper to project the queries into the space of the
# items than to project the items, and a CPU reads the rows of items in place.
FEW_QUERIES = 4


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where ``mask`` is True; exact zeros elsewhere."""
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return F.softmax(filled, dim=-1, dtype=dtype).masked_fill(~mask, 0.0)


def attend(
    query_BHD: Tensor, x_BLD: Tensor, mask_BL: Tensor, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention of H queries over L vectors that are both keys and values.

    Returns:
        The weighted sums ``(B, H, D)``, and the sums of the weights ``(B, H)``. Without dropout,
        the latter are 1, or 0 where the mask is empty.
    """
    query_BHD, x_BLD = at_least_float32(query_BHD), at_least_float32(x_BLD)
    with unrounded(x_BLD):
        weights_BHL = F.dropout(masked_softmax(query_BHD @ x_BLD.mT, mask_BL[:, None, :]), dropout)
        return weights_BHL @ x_BLD, weights_BHL.sum(-1)


def check_heads(width: int, num_heads: int) -> None:
    """Check that the heads divide the width.

    Raises:
        ValueError: they do not. The message lists the numbers of heads that do.
    """
    if num_heads < 1 or width % num_heads:
        divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
        raise ValueError(
            f"num_heads={num_heads} does not divide the width {width}; "
            f"write one of {', '.join(map(str, divisors))}"
        )


def check_sizes(least: float = 1, /, **sizes: float) -> None:
    """Check that hyper-parameters are at least ``least``, or that they are above 0 if that is 0.

    Raises:
        ValueError: one is not.
    """
    for name, size in sizes.items():
        if size < least or size <= 0:
            wanted = f"{least} or more" if least else "a number above 0"
            raise ValueError(f"{name}={size} is too small; write {wanted}")


def check_choice(*choices: str, **chosen: str) -> None:
    """Check that hyper-parameters have one of the values that are possible.

    Raises:
        ValueError: one has another value.
    """
    for name, value in chosen.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown; write {' or '.join(choices)}")


def unit_length(x: Tensor, dim: int = -1) -> Tensor:
    """Normalise to length 1 along ``dim``; a zero vector stays zero, with a bounded gradient."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)
