"""Turn an experiment id into checked parameters and a model class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..datasets.prepared.card import SECOND, card_beside, fingerprint
from ..loader.event_columns import TIME_GAP
from ..loader.times import has_times
from .models import find_model
from .options import RunOptions
from .read import WEIGHTS, Params, load_experiment, redirect, resolve_paths
from .validate import check

MATCH_WINDOWS = [1800.0, 86_400.0, 604_800.0]  # half an hour, a day, a week, where times are known
GAP_BUCKETS = 32  # of 0 to 68 years


@dataclass(frozen=True)
class Experiment:
    """An experiment whose parameters are checked.

    Attributes:
        params: all parameters, converted to their types, with absolute paths.
        model_class: the class of the model.
        options: the options of the command line.
    """

    params: dict[str, Any]
    model_class: type[StagedModel]
    options: RunOptions

    @property
    def changes(self) -> dict[str, Any]:
        """The parameters that the command line sets."""
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
    try:
        model_class = find_model(str(params.get("model", "")), options.model_zoo)
    except UserError as error:
        raise UserError(f"{params['model_id']}, {error}") from None
    if options.seed is not None:
        params = params | {"seed": options.seed}
    if options.model_zoo is not None and model_class.__module__.split(".")[0] != "model_zoo":
        params = params | {"model_zoo": str(options.model_zoo.resolve())}
    if options.model_root is not None:
        params = params | {"model_root": str(options.model_root.resolve())}
    params = resolve_paths(check(params, model_class), options.home)
    params = redirect(params, options.data_root)
    if negatives := card_beside(params["train_data"]).get("negatives"):
        params = {"negative_sampling_rate": negatives["rate"]} | params
    matches = params.get("match_features")
    gaps = params.get("time_gap", model_class.reads_times)
    timed = (matches or gaps) and _timed(params)
    if matches:
        params["match_windows"] = params.get("match_windows", MATCH_WINDOWS) if timed else None
    if gaps and timed:
        columns = params.get("event_cols") or []
        if TIME_GAP not in (column.get("name") for column in columns):
            gap = {"name": TIME_GAP, "vocab_size": GAP_BUCKETS}
            params["event_cols"] = [*columns, gap]
    for key in WEIGHTS:
        if (file := params.get(key)) is not None and Path(file).is_file():
            params[f"{key}_hash"] = fingerprint([file])
    given = [c["pretrained_emb"] for c in params["feature_cols"] if "pretrained_emb" in c]
    if files := [f for f in (Path(params["train_data"]).parent / n for n in given) if f.is_file()]:
        params["pretrained_emb_hash"] = fingerprint(files)
    return Experiment(params, model_class, options)


def _timed(params: Params) -> bool:
    """Whether moments of samples and of all events are known, in a known unit."""
    user_info, card = Path(params["user_info"]), card_beside(params["train_data"])
    known = card.get("time_unit") in SECOND and user_info.exists()
    return known and has_times(user_info, [c.get("name") for c in params["feature_cols"]])
