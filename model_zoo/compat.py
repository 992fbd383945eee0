"""One behaviour for all FuxiCTR versions that the zoo runs on (2.3.2 to 2.3.10)."""

from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import nn


def reset_parameters(module: nn.Module) -> None:
    """Initialise a module as FuxiCTR's ``BaseModel.reset_parameters`` initialises a model.

    Linear layers get Xavier weights and a zero bias. Then ``init_weights()`` is called on every
    submodule that has it. FuxiCTR before 2.3.4 lacks this second step and draws embeddings only
    once, when they are built. Here every version gives the same weights for the same random state.
    """
    BaseModel.reset_parameters(module)  # it calls module.apply() only, so any module will do
    if not hasattr(FeatureEmbeddingDict, "init_weights"):
        module.apply(_init_weights)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, FeatureEmbeddingDict):
        module.reset_parameters()
    elif callable(init_weights := getattr(module, "init_weights", None)):
        init_weights()
