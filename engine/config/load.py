"""From an experiment id to checked parameters and a model class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..datasets.card import fingerprint
from .models import find_model, is_shipped
from .options import RunOptions
from .read import load_experiment, redirect, resolve_paths
from .validate import check


@dataclass(frozen=True)
class Experiment:
    """An experiment whose parameters were checked.

    Attributes:
        params: every parameter of its right type, with absolute paths.
        model_class: the model that the parameters are for.
        options: how the experiment was called.
    """

    params: dict[str, Any]
    model_class: type[StagedModel]
    options: RunOptions

    @property
    def changes(self) -> dict[str, Any]:
        """What the command line sets of the parameters."""
        return {key: self.params[key] for key in self.options.changes}


def load(expid: str, options: RunOptions) -> Experiment:
    """Read an experiment and check it.

    Raises:
        UserError: the configuration cannot be read, the model is unknown, or a parameter is wrong.
    """
    return checked(load_experiment(options.config, expid, options.changes), options)


def checked(params: dict[str, Any], options: RunOptions) -> Experiment:
    """Check an experiment as ``load_experiment`` reads it.

    Raises:
        UserError: the model is unknown, or a parameter is wrong.
    """
    expid = params["model_id"]
    folder = options.model_zoo
    try:
        model_class = find_model(str(params.get("model", "")), folder)
    except UserError as error:
        hint = "" if folder else "; models of LongCTR need --model-zoo DIR"
        raise UserError(f"{expid}, {error}{hint}") from None
    if options.seed is not None:
        params = params | {"seed": options.seed}
    if folder is not None and not is_shipped(model_class):
        params = params | {"model_zoo": str(folder.resolve())}
    params = resolve_paths(check(params, model_class), options.home)
    params = redirect(params, options.data_root, options.model_root)
    checkpoint = params.get("backbone_checkpoint")
    if checkpoint is not None and Path(checkpoint).is_file():
        params["backbone_checkpoint_hash"] = fingerprint([checkpoint])
    return Experiment(params, model_class, options)
