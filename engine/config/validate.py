"""The check of an experiment's parameters: each key is known, each value of its type and range."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from model_zoo.sequence_model import LOSSES
from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError, did_you_mean
from .convert import WRONG, convert, describe

OPTIMIZERS = (
    "adam",
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "SGD",
)
REQUIRED: dict[str, Any] = {
    "model": str,
    "dataset_id": str,
    "model_root": str,
    "seed": int,
    "metrics": list[str],
    "monitor": str | dict[str, int | float],
    "batch_size": int,
    "max_len": int,
    "learning_rate": float,
    "epochs": float,
    "data_root": str,
    "train_data": str,
    "valid_data": str,
    "test_data": str,
    "user_info": str,
    "item_info": str,
    "feature_cols": list,
    "label_col": dict | list,
}
OPTIONAL: dict[str, Any] = {
    # the run
    "verbose": int,
    "task": Literal["binary_classification"],
    "monitor_mode": Literal["max", "min"],
    "early_stop_patience": int,
    "eval_steps": int | None,
    "reduce_lr_on_plateau": bool,
    "loss": Literal[LOSSES],
    "optimizer": Literal[OPTIMIZERS],
    "amp": Literal["bf16"] | None,
    "embedding_regularizer": float | str | None,
    "net_regularizer": float | str | None,
    "group_id": str | None,
    "tensorboard": bool,
    # the loader
    "shuffle": bool,
    "padding": str,
    "streaming": bool,
    # keys that only FuxiCTR reads; a prepared data set needs none of them
    "data_format": str,
    "rebuild_dataset": bool,
    "num_workers": int,
    "pickle_feature_encoder": bool,
    "save_best_only": bool,
    "debug_mode": bool,
    "use_features": list | None,
    "feature_specs": list | dict | None,
    "feature_config": list | dict | None,
    "item_info_fields": int,
    # set by ``load.checked``, because the run depends on it
    "model_zoo": str,
    # keys of LongCTR's published configurations that nothing reads
    "target_item_field": str,
    "sequence_item_field": str,
}
KEYS = REQUIRED | OPTIONAL | {"model_id": str}
ABOVE_ZERO = (
    "dcn_hidden_units",
    "mlp_hidden_units",
    "dcn_cross_layers",
    "dim_feedforward",
    "hidden_size",
    "transformer_layers",
    "num_layers",
    "batch_size",
    "max_len",
    "epochs",
    "early_stop_patience",
    "eval_steps",
    "learning_rate",
    "accumulation_steps",
    "max_gradient_norm",
    "embedding_dim",
    "dnn_hidden_units",
    "attention_dim",
    "num_heads",
    "codebook_dim",
)
NOT_NEGATIVE = (
    "seed",
    "backbone_warmup_epochs",
    "expert_warmup_epochs",
    "balance_coef",
    "entropy_coef",
    "embedding_regularizer",
    "net_regularizer",
)
# FuxiCTR's names, in any case, and classes of torch.nn
ACTIVATIONS = (
    "relu",
    "sigmoid",
    "tanh",
    "softmax",
    "prelu",
    "dice",
    "ELU",
    "GELU",
    "Hardswish",
    "Identity",
    "LeakyReLU",
    "Mish",
    "SELU",
    "SiLU",
    "Softplus",
)
# Arguments of a model or of its training that no configuration gives
FROM_CALLER = ("self", "feature_map", "kwargs", "gpu", "resume_file", "on_evaluation")
UNGROUPED = r"AUC|logloss|binary_crossentropy"
METRICS = re.compile(UNGROUPED + r"|gAUC|avgAUC|MRR|NDCG\(k=\d+\)")


def check(params: dict[str, Any], model: type[StagedModel]) -> dict[str, Any]:
    """The parameters with each value of its right type.

    A text that is a number is taken for one, because YAML reads ``1e-3`` as a text. A whole number
    may stand for a fraction.

    Raises:
        UserError: a key is unknown or missing, or a value is of the wrong kind.
    """
    expid = params["model_id"]
    known = KEYS | _hyper_parameters(model)
    checked = {}
    for key, value in params.items():
        if key not in known and model.any_keyword:
            _warn(
                f"{expid}: {model.__name__} does not name `{key}`, which is passed on as it is{did_you_mean(key, known)}"
            )
            known[key] = Any
        elif key not in known:
            hint = _models_with(key, model) or did_you_mean(key, known)
            raise UserError(f"{expid}: unknown key `{key}` for {model.__name__}{hint}")
        try:
            checked[key] = convert(value, known[key])
        except WRONG:
            raise UserError(f"{expid}, {key}: is {value!r}; write {describe(known[key])}") from None
    for key in REQUIRED:
        if checked.get(key) is None:
            raise UserError(f"{expid}: key `{key}` is missing{did_you_mean(key, params)}")
    _check_ranges(expid, checked)
    _check_choices(expid, checked)
    return checked


@cache
def _warn(text: str) -> None:
    """Print a warning once, however often an experiment is checked."""
    print(f"warning: {text}", file=sys.stderr)


def _hyper_parameters(model: type[StagedModel]) -> dict[str, Any]:
    """Names and types of the parameters that a model takes from the configuration."""
    names = model.hyper_parameters().items()
    return {name: hint for name, hint in names if name not in (*FROM_CALLER, *KEYS)}


def _models_with(key: str, model: type[StagedModel]) -> str:
    """``"; it is a key of X"`` for the model with the nearest name, or an empty string."""
    from model_zoo import MODELS  # loaded already, for there is a model

    having = [name for name, other in MODELS.items() if key in _hyper_parameters(other)]
    near = get_close_matches(model.__name__, having, n=1, cutoff=0)
    return f"; it is a key of {near[0]}" if near else ""


def _check_ranges(expid: str, params: dict[str, Any]) -> None:
    """Reject numbers that nothing can be computed with."""
    rules: tuple[tuple[Sequence[str], Callable[[float], bool], str], ...] = (
        (ABOVE_ZERO, lambda value: value > 0, "above 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "not below 0"),
        (
            [key for key in params if key.endswith("dropout")],
            lambda value: 0 <= value < 1,
            "from 0 to below 1",
        ),
    )
    for keys, allowed, what in rules:
        for key in keys:
            value = params.get(key)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not allowed(number):
                    raise UserError(f"{expid}, {key}: is {value}; write a number {what}")
    if params["seed"] >= 2**32:
        raise UserError(f"{expid}, seed: is {params['seed']}; write a number below 2**32")


def _check_choices(expid: str, params: dict[str, Any]) -> None:
    """Let only known names through; FuxiCTR evaluates some of these strings as code."""
    for key in ("dnn_activations", "hidden_activations"):
        name = params.get(key)
        if isinstance(name, str) and not {name, name.lower()} & set(ACTIVATIONS):
            raise UserError(f"{expid}, {key}: is {name!r}; write one of {', '.join(ACTIVATIONS)}")
    for metric in params["metrics"]:
        if not METRICS.fullmatch(metric):
            raise UserError(
                f"{expid}, metrics: {metric!r} is not a metric"
                f"{did_you_mean(metric, ('AUC', 'gAUC', 'logloss', 'MRR', 'NDCG(k=5)'))}"
            )
    monitor = params["monitor"]
    monitored = [monitor] if isinstance(monitor, str) else list(monitor)
    for metric in monitored:
        if metric not in params["metrics"]:
            raise UserError(
                f"{expid}, monitor: {metric!r} is not one of the metrics {params['metrics']}"
                f"{did_you_mean(metric, params['metrics'])}"
            )
    if not monitored:
        raise UserError(f"{expid}, monitor: is empty; write one of the metrics {params['metrics']}")
    grouped = [m for m in params["metrics"] if not re.fullmatch(UNGROUPED, m)]
    if grouped and not params.get("group_id"):
        raise UserError(f"{expid}, group_id: is missing; {grouped[0]} needs it, write user_index")
    for key in ("embedding_regularizer", "net_regularizer"):
        value = params.get(key)
        pattern = r"l[12]\([\d.e-]+\)|l1_l2\([\d.e-]+, *[\d.e-]+\)"
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise UserError(f"{expid}, {key}: is {value!r}; write a number, l1(x) or l2(x)")
