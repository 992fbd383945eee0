"""The model zoo. Models are found by name: ``getattr(model_zoo, "TWIN_MoS")`` or ``get_model``."""

from __future__ import annotations

from difflib import get_close_matches

from .backbones.twin import TWIN, TWIN_MoS
from .sequence_model import SequenceModel

MODELS: dict[str, type[SequenceModel]] = {model.__name__: model for model in (TWIN, TWIN_MoS)}

__all__ = [*MODELS, "MODELS", "get_model"]


def get_model(name: str) -> type[SequenceModel]:
    """The model class of that name.

    Raises:
        ValueError: there is none; the message names the nearest one and all there are.
    """
    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name, MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"model: {name!r} is not a model; {hint}There are: {', '.join(MODELS)}")
