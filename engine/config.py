"""Experiment configuration: FuxiCTR's YAML files, read strictly.

The files stay readable by FuxiCTR's ``load_config``; this reader adds what it lacks: duplicate
keys, unknown keys and values of the wrong type are errors that name the file and the key. It needs
no torch, so that a wrong expid is answered at once.
"""

from __future__ import annotations

import re
import types
import typing
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from .errors import UserError, did_you_mean

if typing.TYPE_CHECKING:
    from model_zoo.sequence_model import SequenceModel

KEYS: dict[str, Any] = {
    # the run
    "model": str,
    "dataset_id": str,
    "model_root": str,
    "seed": int,
    "verbose": int,
    "task": str,
    "metrics": list[str],
    "monitor": str | dict,
    "monitor_mode": str,
    "early_stop_patience": int,
    "eval_steps": int | None,
    "reduce_lr_on_plateau": bool,
    "embedding_regularizer": float | str | None,
    "net_regularizer": float | str | None,
    "group_id": str | None,
    # the loader
    "batch_size": int,
    "max_len": int,
    "shuffle": bool,
    "padding": str,
    "streaming": bool,
    # the data set
    "data_root": str,
    "data_format": str,
    "train_data": str,
    "valid_data": str,
    "test_data": str,
    "user_info": str,
    "item_info": str,
    "feature_cols": list,
    "label_col": dict | list,
    # read by FuxiCTR alone; a prepared data set needs none of them
    "rebuild_dataset": bool,
    "num_workers": int,
    "pickle_feature_encoder": bool,
    "save_best_only": bool,
    "debug_mode": bool,
    "use_features": list | None,
    "feature_specs": list | dict | None,
    "feature_config": list | dict | None,
    "item_info_fields": int,
}
REQUIRED = (
    "model dataset_id model_root seed metrics monitor batch_size max_len learning_rate epochs "
    "data_root train_data valid_data test_data user_info item_info feature_cols label_col"
).split()
PATHS = "model_root data_root train_data valid_data test_data user_info item_info".split()
ABOVE_ZERO = (
    "batch_size max_len epochs early_stop_patience eval_steps learning_rate accumulation_steps "
    "max_gradient_norm embedding_dim dnn_hidden_units attention_dim num_heads codebook_dim"
).split()
NOT_NEGATIVE = (
    "seed backbone_warmup_epochs expert_warmup_epochs embedding_regularizer net_regularizer"
).split()
LOSSES = ("binary_crossentropy", "binary_cross_entropy", "bce")
TASKS = ("binary_classification",)
OPTIMIZERS = "adam Adam AdamW NAdam RAdam Adamax Adagrad Adadelta RMSprop SGD".split()
# Any case of the first line, as FuxiCTR has it, and classes of torch.nn
ACTIVATIONS = "relu sigmoid tanh softmax prelu dice".split()
ACTIVATIONS += "ELU GELU Hardswish Identity LeakyReLU Mish SELU SiLU Softplus".split()
UNGROUPED = r"AUC|logloss|binary_crossentropy"
METRICS = re.compile(UNGROUPED + r"|gAUC|avgAUC|MRR|NDCG\(k=\d+\)")
NAMES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}
NAMES |= {list: "a list", dict: "a mapping", type(None): "null"}


def list_experiments(config_dir: str | Path) -> dict[str, tuple[str, str]]:
    """``expid -> (model, dataset_id)`` of every experiment in a configuration directory."""
    found = {}
    for file in _files(config_dir, "model_config"):
        for expid, entry in read_yaml(file).items():
            if expid != "Base" and not str(expid).startswith(".") and isinstance(entry, dict):
                found[expid] = (entry.get("model", "?"), entry.get("dataset_id", "?"))
    return found


def load_experiment(config_dir: str | Path, expid: str) -> dict[str, Any]:
    """The parameters of an experiment, as FuxiCTR's ``load_config`` merges them: ``Base``, then
    the expid's own, then those of its data set."""
    entries, base = {}, {}
    for file in _files(config_dir, "model_config"):
        content = read_yaml(file)
        entries |= content
        base = _mapping(config_dir, "Base", content.get("Base") or base)
    if expid not in entries or expid == "Base" or expid.startswith("."):
        raise UserError(
            f"--expid {expid}: not in {config_dir}; run_expid.py --list shows all"
            f"{did_you_mean(expid, list_experiments(config_dir))}"
        )
    params = {**base, **_mapping(config_dir, expid, entries[expid])}
    if "dataset_id" not in params:
        raise UserError(f"{config_dir}, {expid}: dataset_id is missing")
    datasets = {}
    for file in _files(config_dir, "dataset_config"):
        datasets |= read_yaml(file)
    dataset_id = str(params["dataset_id"])
    if dataset_id not in datasets:
        raise UserError(
            f"{config_dir}, {expid}: dataset_id {dataset_id!r} is not in dataset_config.yaml"
            f"{did_you_mean(dataset_id, datasets)}"
        )
    dataset = _mapping(config_dir, dataset_id, datasets[dataset_id])
    return {**params, **dataset, "model_id": expid}


def check(params: dict[str, Any], model: type[SequenceModel]) -> dict[str, Any]:
    """The parameters with every value of its right type.

    Texts that are numbers are accepted for numbers (YAML reads ``1e-3`` as text), whole numbers
    where a fraction may stand.

    Raises:
        UserError: a key is unknown or missing, or a value is of the wrong kind.
    """
    expid = params["model_id"]
    known = KEYS | {"model_id": str} | _hyper_parameters(model)
    checked = {}
    for key, value in params.items():
        if key not in known:
            hint = _models_with(key, model) or did_you_mean(key, known)
            raise UserError(f"{expid}: unknown key `{key}` for {model.__name__}{hint}")
        try:
            checked[key] = _convert(value, known[key])
        except (TypeError, ValueError):
            raise UserError(f"{expid}, {key}: is {value!r}; write {_describe(known[key])}") from None
    for key in REQUIRED:
        if checked.get(key) is None:
            raise UserError(f"{expid}: key `{key}` is missing{did_you_mean(key, params)}")
    _check_ranges(expid, checked)
    _check_choices(expid, checked)
    return checked


def resolve_paths(params: dict[str, Any], root: Path) -> dict[str, Any]:
    """Relative paths of a configuration start at ``root``, the folder of ``run_expid.py``."""
    return params | {key: str(root / params[key]) for key in PATHS}


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file with mappings only; duplicate keys are errors."""
    try:
        content = yaml.load(file.read_text("utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must map expids to their keys, but is {type(content).__name__}")
    return content


class _StrictLoader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Runs before merge keys are expanded, when only the file's own keys are there."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ComposerError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise ComposerError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return node


def _mapping(config_dir: str | Path, name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{config_dir}, {name}: is {entry!r}; it must map keys to values")
    return entry


def _files(config_dir: str | Path, kind: str) -> list[Path]:
    config_dir = Path(config_dir)
    files = [config_dir / f"{kind}.yaml"]
    if not files[0].exists():
        files = sorted((config_dir / kind).glob("*.yaml"))
    if not files:
        raise UserError(f"--config {config_dir}: has no {kind}.yaml; name a configuration directory")
    return files


def _hyper_parameters(model: type[SequenceModel]) -> dict[str, Any]:
    """Names and types that the model takes from the configuration."""
    ignored = ("self", "feature_map", "kwargs", "gpu", "item_dim", "make_block")
    ignored += ("model", "train_loader", "valid_loader", "resume_file")
    return {
        name: hint for name, hint in model.hyper_parameters().items() if name not in (*ignored, *KEYS)
    }


def _models_with(key: str, model: type[SequenceModel]) -> str:
    """``"; it is a key of X"`` for the model nearest in name that has it, or an empty string."""
    from model_zoo import MODELS  # loaded already, for there is a model

    having = [name for name, other in MODELS.items() if key in _hyper_parameters(other)]
    near = get_close_matches(model.__name__, having, n=1, cutoff=0)
    return f"; it is a key of {near[0]}" if near else ""


def _check_ranges(expid: str, params: dict[str, Any]) -> None:
    """Numbers that nothing can be computed with."""
    for keys, allowed, what in (
        (ABOVE_ZERO, lambda value: value > 0, "above 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "not below 0"),
    ):
        for key in keys:
            value = params.get(key)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not allowed(number):
                    raise UserError(f"{expid}, {key}: is {value}; write a number {what}")
    if params["seed"] >= 2**32:
        raise UserError(f"{expid}, seed: is {params['seed']}; write a number below 2**32")


def _check_choices(expid: str, params: dict[str, Any]) -> None:
    """FuxiCTR evaluates some of these strings; let only known names through."""
    for key, known in (("loss", LOSSES), ("task", TASKS), ("optimizer", OPTIMIZERS)):
        value = params.get(key, known[0])
        if value not in known:
            raise UserError(f"{expid}, {key}: is {value!r}; choose from {', '.join(known)}")
    activation = params.get("dnn_activations", "relu")
    if activation not in ACTIVATIONS and activation.lower() not in ACTIVATIONS:
        raise UserError(
            f"{expid}, dnn_activations: is {activation!r}; write one of {', '.join(ACTIVATIONS)}"
        )
    for metric in params["metrics"]:
        if not METRICS.fullmatch(metric):
            raise UserError(
                f"{expid}, metrics: {metric!r} is not a metric"
                f"{did_you_mean(metric, ('AUC', 'gAUC', 'logloss', 'MRR', 'NDCG(k=5)'))}"
            )
    monitor = params["monitor"]
    weights = {monitor: 1} if isinstance(monitor, str) else monitor
    for metric, weight in weights.items():
        if metric not in params["metrics"]:
            raise UserError(
                f"{expid}, monitor: {metric!r} is not one of metrics, {params['metrics']}"
                f"{did_you_mean(metric, params['metrics'])}"
            )
        if not isinstance(weight, int | float):
            raise UserError(f"{expid}, monitor: weight of {metric} is {weight!r}; write a number")
    if not weights:
        raise UserError(f"{expid}, monitor: is empty; write one of metrics, {params['metrics']}")
    grouped = [m for m in params["metrics"] if not re.fullmatch(UNGROUPED, m)]
    if grouped and not params.get("group_id"):
        raise UserError(f"{expid}, group_id: is missing; {grouped[0]} needs it, write user_index")
    if params.get("monitor_mode", "max") not in ("max", "min"):
        raise UserError(f"{expid}, monitor_mode: is {params['monitor_mode']!r}; write max or min")
    for key in ("embedding_regularizer", "net_regularizer"):
        value = params.get(key)
        pattern = r"l[12]\([\d.e-]+\)|l1_l2\([\d.e-]+, *[\d.e-]+\)"
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise UserError(f"{expid}, {key}: is {value!r}; write a number, l1(x) or l2(x)")


def _convert(value: Any, hint: Any) -> Any:
    """``value`` as the type that ``hint`` asks for, or TypeError / ValueError."""
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        return _convert_to_any(value, typing.get_args(hint))
    if typing.get_origin(hint) is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_convert(entry, typing.get_args(hint)[0]) for entry in value]
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float | str):
        if float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError
    return value


def _convert_to_any(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _convert(value, hint)
        except (TypeError, ValueError):
            continue
    raise TypeError


def _describe(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list, each entry {_describe(typing.get_args(hint)[0])}"
    return NAMES.get(hint, str(hint)) + (", such as 1.e-3" if hint is float else "")
