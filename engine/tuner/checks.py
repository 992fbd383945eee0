"""Checks before the first trial starts, which find everything that a run would reject.

This module imports torch.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from model_zoo.sequence_model import SequenceModel
from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..config.feature_map import build_feature_map
from ..config.models import build, find_model
from ..config.options import RunOptions
from ..config.read import DATA_FILES, DATA_PATHS, WEIGHTS, redirect, resolve_paths
from ..config.validate import check
from ..datasets import ensure_generated
from ..datasets.prepared import card
from ..loader.columns import open_parquet
from .space import Space
from .trial import as_text

TABLE_ROWS = 2  # the size of the embeddings in a model that is built only for the check


def check_space(space: Space, options: RunOptions) -> Space:
    """Check an experiment, every value of its choices, and its data.

    Every value is checked on its own, and a model is built with every combination. If the data set
    is one that can be generated, it is generated.

    Returns:
        The same experiment, with every value converted to its type, and with its data below
        ``options.data_root`` if that is set. Keys with choices keep the value that the configuration
        gives them.

    Raises:
        UserError: a run would reject a value, or a value is listed twice. The message names the file
            and the key.
    """
    base = {"model_root": ".", **space.model, **space.dataset, "model_id": space.expid}

    def checked(values: dict[str, Any]) -> dict[str, Any]:
        params = base | values
        try:
            return check(params, find_model(str(params.get("model", "")), options.model_zoo))
        except UserError as error:
            raise UserError(f"{space.file}: {error}") from None

    first = {key: values[0] for key, values in space.choices.items()}
    params = checked(first)
    choices = {k: [checked(first | {k: v})[k] for v in vs] for k, vs in space.choices.items()}
    for key, values in choices.items():
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            where = f"{space.file}, tuner_space, {key}"
            raise UserError(f"{where}: {twice[0]!r} is there twice; write it once")
    settled = {key: value for key, value in params.items() if key not in choices}
    params = resolve_paths(params, options.home)
    if options.data_root is not None:
        params = redirect(params, options.data_root)
        settled |= {key: params[key] for key in DATA_PATHS}
    parts = space.model, space.dataset
    model, dataset = ({k: settled.get(k, v) for k, v in part.items()} for part in parts)
    space = replace(space, model=model, dataset=dataset, choices=choices)
    ensure_generated(params)
    for key in DATA_FILES:
        open_parquet(Path(params[key]))
    for name in choices.get("model", [params["model"]]):
        _build_all(space, params | {"model": name}, find_model(name, options.model_zoo))
    return space


def data_hash(space: Space, home: Path) -> str:
    """The hash of the experiment's data, which each result also records."""
    files = resolve_paths(space.dataset, home)
    return card.data_hash(files[key] for key in DATA_FILES)


def _build_all(space: Space, params: dict[str, Any], model_class: type[StagedModel]) -> None:
    """Build the model with each combination of the keys that its parts read.

    The embedding tables are made small, so that this costs little. A foreign model is not built, since
    it may need tables of the right size.
    """
    if not issubclass(model_class, SequenceModel):
        return
    parts = model_class.hyper_parameters().keys() - StagedModel.hyper_parameters().keys()
    choices = {key: values for key, values in space.choices.items() if key in parts}
    feature_map = build_feature_map(params)
    for spec in feature_map.features.values():
        if "vocab_size" in spec:
            spec["vocab_size"] = TABLE_ROWS
    harmless = dict.fromkeys(WEIGHTS) | {"compile": False, "verbose": 0, "gpu": -1}
    for values in product(*choices.values()):
        tuned = dict(zip(choices, values, strict=True))
        what = f" with {as_text(tuned)}" if tuned else ""
        where = f"{space.file}: {space.expid}{what}"
        build(model_class, feature_map, params | tuned | harmless, where)
