"""Find a model by name, in the project's zoo or in a folder of other FuxiCTR models, and build it."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from model_zoo import get_model, ranks
from model_zoo.registry import backbone_of, make_variant, mixture_of
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError, did_you_mean


def find_model(name: str, folder: Path | None = None) -> type[StagedModel]:
    """Find the model class with this name; ``folder`` is searched before the project's own models.

    Args:
        name: the name of a model, or of a variant, such as ``Mine_MoS`` for a backbone ``Mine``.
        folder: holds a package ``<name>`` or a file ``<name>.py`` with a class ``<name>`` for each of
            its models. A ``SequenceModel`` is a backbone, and gets a variant with every mixture. Any
            other FuxiCTR ``BaseModel`` on LongCTR's batches works too, as in a LongCTR checkout.

    Raises:
        UserError: there is no such model, or its file cannot be imported.
    """
    others = model_files(folder) if folder is not None else []
    own = name if name in others else backbone_of(name)
    if folder is not None and own in others:
        model = _import_class(own, folder)
        if issubclass(model, SequenceModel):
            return model if name == own else make_variant(model, mixture_of(name), model.__module__)
        if name == own:
            return type(name, (AdoptedModel, model), {"__doc__": model.__doc__, "origin": model})
    try:
        return get_model(name)
    except ValueError as error:
        hint = "; models of your own or of LongCTR need --model-zoo DIR"
        if folder is not None:
            hint = f"; and {folder} has {', '.join(others)}{did_you_mean(name, others)}"
        raise UserError(f"{error}{hint}") from None


def build(
    model_class: type[StagedModel], feature_map: FeatureMap, params: dict[str, Any], expid: str
) -> StagedModel:
    """Build a model with its initial weights.

    Args:
        params: the model's parameters; their ``model_id`` names the checkpoint.
        expid: the experiment that messages name.

    Raises:
        UserError: the parameters do not fit each other.
    """
    with own_words(model_class, expid):
        return model_class(feature_map, **params)


@contextmanager
def own_words(model_class: type[StagedModel], expid: str) -> Iterator[None]:
    """Turn a model's ValueError, and every error of a foreign model, into a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{expid}, {error}") from None
    except Exception as error:
        if not issubclass(model_class, AdoptedModel):
            raise
        what = f"{model_class.__name__}'s own code fails ({_reason(error)})"
        raise UserError(f"{expid}: {what}") from error


class AdoptedModel(StagedModel):
    """Lets the project train and evaluate a foreign model, whose class is the next base class.

    The constructor, ``forward`` and ``add_loss`` stay the model's own. The project does the rest:
    training with its checks, resume and regulariser, evaluation, and metrics.
    """

    origin: type[BaseModel]
    any_keyword = True

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """The model's own loss, which must be a mean over samples if several processes train."""
        return ranks.weighted(super().add_loss(return_dict, y_true), len(y_true))

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """All arguments of the foreign constructor; only those that start as a float are checked."""
        arguments = inspect.signature(cls.origin.__init__).parameters.values()
        own = {a.name: float if isinstance(a.default, float) else Any for a in arguments}
        return own | {"loss": str} | super().hyper_parameters()


def model_files(folder: Path) -> list[str]:
    """Names of the models in a folder.

    Raises:
        UserError: the folder does not exist, or holds no model.
    """
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    files = {path.stem for path in folder.glob("*.py") if f"class {path.stem}(" in path.read_text()}
    if not packages | files:
        what = "is no folder with a package or a file for each model"
        raise UserError(f"--model-zoo {folder}: {what}; name one, such as a LongCTR checkout")
    return sorted(packages | files)


def _import_class(name: str, folder: Path) -> type[BaseModel]:
    path, where = str(folder.resolve()), f"--model-zoo {folder}: {name}"
    if path not in sys.path:
        sys.path.append(path)  # last, so that its run_expid.py and config hide nothing of ours
    try:
        module = importlib.import_module(name)
        model = getattr(module, name)
    except Exception as error:  # foreign code may raise anything
        raise UserError(f"{where} cannot be imported ({_reason(error)})") from error
    if not Path(str(module.__file__)).is_relative_to(path):
        raise UserError(f"{where} was found in {module.__file__} first; rename one of them")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise UserError(f"{where}.{name} is not a FuxiCTR BaseModel")
    return model


def _reason(error: Exception) -> str:
    """The message of foreign code's error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
