"""The model zoo: every model in ``registry.py`` is an attribute here, as ``model_zoo.TWIN_MoS``.

The class of a variant such as ``TWIN_MoS`` is made when it is first asked for: ``class
TWIN_MoS(TWIN): mixture = MoS``. FuxiCTR finds it with ``getattr(model_zoo, name)``. ``from
model_zoo import *`` imports every model, and ``MODELS`` maps each name to its class.
"""

from typing import TYPE_CHECKING

from .registry import get_model, model_names

if TYPE_CHECKING:
    from .sequence_model import SequenceModel

    MODELS: "dict[str, type[SequenceModel]]"

__all__ = [*model_names(), "MODELS", "get_model"]


def __getattr__(name: str) -> "type[SequenceModel]":
    if name == "MODELS":
        globals()["MODELS"] = {name: get_model(name) for name in model_names()}
        return globals()["MODELS"]
    if name in model_names():
        return get_model(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
