"""The differences between the FuxiCTR versions that the zoo runs on (2.3.2 to 2.3.10)."""

from __future__ import annotations

from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import nn


def reset_parameters(module: nn.Module) -> None:
    """FuxiCTR's ``reset_parameters`` of any module: linear layers Xavier with zero bias, then
    ``init_weights()`` of every submodule that has it.

    Before 2.3.4 the second half is missing, and embeddings are drawn only once, when they are
    built. Here every version gives the same weights for the same random state.
    """
    BaseModel.reset_parameters(module)  # it needs no more of a module than apply()
    if not hasattr(FeatureEmbeddingDict, "init_weights"):
        module.apply(_init_weights)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, FeatureEmbeddingDict):
        module.reset_parameters()
    elif callable(init_weights := getattr(module, "init_weights", None)):
        init_weights()
