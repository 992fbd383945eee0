"""The checked parameters and the model class of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..datasets.card import fingerprint
from . import read as config
from .models import AdoptedModel, find_model
from .validate import check


def load(
    config_dir: Path,
    root: Path,
    expid: str,
    seed: int | None = None,
    model_zoo: Path | None = None,
    data_root: Path | None = None,
    model_root: Path | None = None,
) -> tuple[dict[str, Any], type[StagedModel]]:
    """The checked parameters and the model of an experiment; the arguments are those of
    ``experiment.run``."""
    params = config.load_experiment(config_dir, expid)
    try:
        model_class = find_model(str(params.get("model", "")), model_zoo)
    except UserError as error:
        hint = "" if model_zoo else "; models of LongCTR need --model-zoo DIR"
        raise UserError(f"{expid}, {error}{hint}") from None
    if seed is not None:
        params["seed"] = seed
    if issubclass(model_class, AdoptedModel):
        params["model_zoo"] = str(model_zoo.resolve())
    params = config.resolve_paths(check(params, model_class), root)
    params = config.redirect(params, data_root, model_root)
    checkpoint = params.get("backbone_checkpoint")
    if checkpoint is not None and Path(checkpoint).is_file():
        params["backbone_checkpoint_hash"] = fingerprint([checkpoint])
    return params, model_class
