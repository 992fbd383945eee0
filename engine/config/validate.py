"""Check an experiment's parameters: each key is known, and each value has its type and range."""

import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from model_zoo.sequence_model import LOSSES
from model_zoo.training.base_model import StagedModel
from model_zoo.training.initializer import parse_initializer
from model_zoo.training.metrics import GROUPED, METRICS

from ..common.errors import UserError, did_you_mean
from ..common.schema import NAME
from .convert import WRONG, convert, describe
from .read import DATA_PATHS, monitor_modes

REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("model", "dataset_id", "model_root", *DATA_PATHS), str),
    **dict.fromkeys(("seed", "batch_size", "max_len"), int),
    **dict.fromkeys(("learning_rate", "epochs"), float),
    "metrics": list[str],
    "monitor": str | dict[str, int | float],
    "feature_cols": list[dict],
    "label_col": dict | list,
}
OPTIONAL: dict[str, Any] = {
    # the run and the loader
    **dict.fromkeys(("verbose", "early_stop_patience"), int),
    **dict.fromkeys(
        ("reduce_lr_on_plateau", "tensorboard", "shuffle", "streaming", "time_gap"), bool
    ),
    **dict.fromkeys(("embedding_regularizer", "net_regularizer"), float | str | None),
    "task": Literal["binary_classification"],
    "monitor_mode": Literal["max", "min"],
    "eval_steps": int | None,
    "event_cols": list[dict] | None,
    "embedding_initializer": str,
    "match_span": Literal["all", "max_len"],
    "loss": Literal[LOSSES],
    "optimizer": Literal[
        "adam", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "SGD"
    ],
    "amp": Literal["bf16"] | None,
    "group_id": str | None,
    "padding": str,
    # keys that only FuxiCTR reads; a prepared data set needs none of them
    **dict.fromkeys(("rebuild_dataset", "pickle_feature_encoder", "save_best_only"), bool),
    **dict.fromkeys(("num_workers", "item_info_fields"), int),
    **dict.fromkeys(("feature_specs", "feature_config", "use_features"), type(None)),
    "data_format": Literal["parquet"],
    "debug_mode": bool,
    # set by ``load.checked``, because the run depends on it
    "model_zoo": str,
    # keys of LongCTR's published configurations that nothing reads
    **dict.fromkeys(("target_item_field", "sequence_item_field"), str),
    **dict.fromkeys(("din_target_field", "din_sequence_field"), str),
}
# What to write in place of keys of FuxiCTR that nothing here reads.
OF_COLUMNS = "null, and write it into feature_cols, where `active: False` leaves a feature out"
INSTEAD = dict.fromkeys(("feature_specs", "feature_config", "use_features"), OF_COLUMNS)
INSTEAD["data_format"] = "parquet, after data/prepare.py generic has made that from other formats"
KEYS = REQUIRED | OPTIONAL | {"model_id": str}
NOT_BELOW_0 = r"(backbone|expert)_warmup_epochs|(balance|entropy)_coef|(embedding|net)_regularizer|rare_id_rate"
ABOVE_0 = (
    r"epochs|max_len|(batch|hidden)_size|learning_rate|max_gradient_norm|early_stop_patience"
    r"|(eval|accumulation)_steps|(num|transformer|dcn_cross)_layers|(dcn|mlp|dnn|attention)_hidden_units"
    r"|(embedding|attention|codebook)_dim|num_heads|dim_feedforward|match_windows|checkpoint_minutes"
)
# The allowed numbers of every key that fits the pattern. The first pattern that fits counts.
RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (r"\w*dropout", lambda number: 0 <= number < 1, "from 0 to below 1"),
    (r"negative_sampling_rate", lambda number: 0 < number <= 1, "above 0, and not above 1"),
    (r"seed", lambda number: 0 <= number < 2**32, "not below 0, and below 2**32"),
    (NOT_BELOW_0, lambda number: number >= 0, "not below 0"),
    (ABOVE_0, lambda number: number > 0, "above 0"),
)
# FuxiCTR evaluates these texts as code, so only texts that fit the pattern are allowed.
ACTIVATION = (
    r"(?i:relu|sigmoid|tanh|softmax|prelu|dice)"
    r"|ELU|GELU|Hardswish|Identity|LeakyReLU|Mish|SELU|SiLU|Softplus",
    "relu, sigmoid, tanh, softmax, prelu, dice, or an activation of torch.nn such as GELU or SiLU",
)
NUMBER = r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
REGULARIZER = rf"l[12]\({NUMBER}\)|l1_l2\({NUMBER}, *{NUMBER}\)", "a number, l1(x) or l2(x)"
OF_ATTENTION = ("attention_hidden_activations", "attention_output_activation")
PATTERNS = dict.fromkeys(("dnn_activations", "hidden_activations", *OF_ATTENTION), ACTIVATION)
PATTERNS |= dict.fromkeys(("embedding_regularizer", "net_regularizer"), REGULARIZER)
PATTERNS |= dict.fromkeys(("model_id", "dataset_id"), (NAME, "a name without slashes"))
# Arguments of a model or of its training that no configuration gives
FROM_CALLER = ("self", "feature_map", "kwargs", "gpu", "resume_file", "identity", "on_evaluation")
EXAMPLES = ("AUC", "gAUC", "logloss", "MRR", "NDCG(k=5)", "HR(k=1)", "calibration", "ECE")


def check(params: dict[str, Any], model: type[StagedModel]) -> dict[str, Any]:
    """Check all parameters, and return them with each value converted to its type.

    A text that is a number becomes that number, because YAML reads ``1e-3`` as a text. A whole
    number may stand for a fraction.

    Raises:
        UserError: a key is unknown or missing, or a value is of the wrong kind.
    """
    expid = params["model_id"]
    known = KEYS | _hyper_parameters(model)
    checked = {}
    for key, value in params.items():
        if key not in known and model.any_keyword:
            hint = f"which is passed on as it is{did_you_mean(key, known)}"
            _warn(f"{expid}: {model.__name__} does not name `{key}`, {hint}")
            known[key] = Any
        elif key not in known:
            hint = _models_with(key, model) or did_you_mean(key, known)
            raise UserError(f"{expid}: unknown key `{key}` for {model.__name__}{hint}")
        try:
            checked[key] = convert(value, known[key])
        except WRONG:
            what = f"is {value!r:.100}; write {INSTEAD.get(key) or describe(known[key])}"
            raise UserError(f"{expid}, {key}: {what}") from None
    missing = [f"`{key}`" for key in REQUIRED if checked.get(key) is None]
    grouped = [metric for metric in checked.get("metrics") or () if GROUPED.fullmatch(metric)]
    if grouped and not checked.get("group_id"):
        missing.append(f"`group_id` ({grouped[0]} needs it, write user_index)")
    if missing:
        raise UserError(f"{expid}: these keys are missing: {', '.join(missing)}")
    for key, value in checked.items():
        _check_value(expid, key, value)
    _check_metrics(expid, checked)
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
    from model_zoo import MODELS  # loaded already, since there is a model

    having = [name for name, other in MODELS.items() if key in _hyper_parameters(other)]
    near = get_close_matches(model.__name__, having, n=1, cutoff=0)
    return f"; it is a key of {near[0]}" if near else ""


def _check_value(expid: str, key: str, value: Any) -> None:
    """Raise a UserError for a number out of range, or for a text that FuxiCTR must not evaluate."""
    rule = next((rule for rule in RANGES if re.fullmatch(rule[0], key)), None)
    for number in value if isinstance(value, list) else [value]:
        if rule and isinstance(number, int | float) and not rule[1](number):
            raise UserError(f"{expid}, {key}: is {value}; write a number {rule[2]}")
    pattern, what = PATTERNS.get(key, ("", ""))
    if pattern and isinstance(value, str) and not re.fullmatch(pattern, value):
        raise UserError(f"{expid}, {key}: is {value!r}; write {what}")
    if key == "embedding_initializer":
        try:
            parse_initializer(str(value))
        except ValueError as error:
            raise UserError(f"{expid}, {error}") from None


def _check_metrics(expid: str, params: dict[str, Any]) -> None:
    """Set the ``monitor_mode`` that its metrics ask for.

    Raises:
        UserError: a metric is unknown, the monitor is not among the metrics, or its mode would keep
            the worst weights.
    """
    metrics, monitor, where = params["metrics"], params["monitor"], f"{expid}, monitor"
    for metric in metrics:
        if not METRICS.fullmatch(metric):
            hint = did_you_mean(metric, EXAMPLES)
            raise UserError(f"{expid}, metrics: {metric!r} is not a metric{hint}")
    modes = monitor_modes(monitor)
    if not modes:
        raise UserError(f"{where}: is empty or weighs 0; write one of the metrics {metrics}")
    mode = params.setdefault("monitor_mode", next(iter(modes.values())))
    for metric in [monitor] if isinstance(monitor, str) else monitor:
        if metric not in metrics:
            hint = did_you_mean(metric, metrics)
            raise UserError(f"{where}: {metric!r} is not one of the metrics {metrics}{hint}")
        if metric == "calibration":
            raise UserError(f"{where}: calibration is best at 1; write AUC or logloss")
        if modes.get(metric, mode) != mode:
            advice = "leave monitor_mode out" if len({*modes.values()}) == 1 else "change its sign"
            raise UserError(f"{where}: mode {mode} would keep the worst {metric}; {advice}")
