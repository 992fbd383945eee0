"""Experiment configuration: FuxiCTR's YAML files, read strictly.

FuxiCTR's ``load_config`` reads the same files. This reader also rejects duplicate keys, broken
files and unknown experiments, and says where they are. It needs no torch, so that a wrong experiment
id is reported at once.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

try:
    from yaml import CSafeLoader as SafeLoader  # 10 times as fast
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader

from ..common.errors import UserError, did_you_mean
from ..common.files import read_bytes
from ..common.text_table import text_table

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
MOST_VALUES, DEEPEST = 1_000_000, 100  # of a YAML file
Params = dict[str, Any]
"""The parameters of an experiment, or a part of them, by key."""

DATA_FILES = ("train_data", "valid_data", "test_data", "user_info", "item_info")
DATA_PATHS = ("data_root", *DATA_FILES)
WEIGHTS = ("backbone_checkpoint", "init_from")  # files from which a model starts
PATHS = ("model_root", *DATA_PATHS, *WEIGHTS)
# Keys that change what a run shows or how it loads data, but no number of its result.
NO_NUMBERS = ("verbose", "num_workers", "tensorboard", "checkpoint_minutes")
# Metrics of which less is better; of all others that can be a monitor more is better.
LOWER_IS_BETTER = ("logloss", "binary_crossentropy", "ECE")
# Keys that a listing shows.
LISTED = (
    "model", "dataset_id", "max_len", "batch_size", "learning_rate", "epochs", "embedding_initializer"
)  # fmt: skip


def list_experiments(config_dir: str | Path) -> dict[str, tuple[str, str]]:
    """The experiments of a configuration directory: ``expid -> (model, dataset_id)``."""
    known = _experiments(config_dir)
    return {expid: (own.get("model", "?"), own.get("dataset_id", "?")) for expid, own in known}


def describe_experiments(config_dir: str | Path) -> str:
    """A table of all experiments in a configuration directory, with their main parameters."""
    known = _experiments(config_dir)
    rows = [[str(expid), *(str(own.get(key, "?")) for key in LISTED)] for expid, own in known]
    return text_table(["expid", *LISTED], rows, left=3)


def load_experiment(config_dir: str | Path, expid: str, changes: Mapping[str, Any] = {}) -> Params:
    """Read the parameters of an experiment, merged as by FuxiCTR's ``load_config``.

    They come from ``Base``, the experiment, its data set and ``changes``. Later values replace
    earlier ones.

    Raises:
        UserError: the experiment or its data set is not in the configuration.
    """
    params = {**model_part(config_dir, expid), **changes}
    if "dataset_id" not in params:
        raise UserError(f"{config_dir}, {expid}: dataset_id is missing")
    dataset = dataset_part(config_dir, str(params["dataset_id"]), expid)
    return {**params, **dataset, **changes, "model_id": expid}


def model_part(config_dir: str | Path, expid: str) -> dict[str, Any]:
    """The part of an experiment that is in ``model_config.yaml``: ``Base``, then its own keys.

    Raises:
        UserError: there is no such experiment.
    """
    entries = _entries(config_dir, "model_config")
    if expid not in entries:
        what = f"is not in {config_dir}; run_expid.py --config {config_dir} --list shows all"
        raise UserError(f"--expid {expid}: {what}{did_you_mean(expid, entries)}")
    base = entries.get("Base") or {}
    return {**_mapping(config_dir, "Base", base), **_mapping(config_dir, expid, entries[expid])}


def dataset_part(config_dir: str | Path, dataset_id: str, expid: str) -> dict[str, Any]:
    """The part of an experiment that is in ``dataset_config.yaml``.

    Args:
        expid: the experiment, which messages name.

    Raises:
        UserError: there is no such data set.
    """
    datasets = _entries(config_dir, "dataset_config")
    if dataset_id not in datasets:
        hint = did_you_mean(dataset_id, datasets) or "; it has " + ", ".join(sorted(datasets))
        what = f"dataset_id {dataset_id!r} is not in dataset_config.yaml"
        raise UserError(f"{config_dir}, {expid}: {what}{hint}")
    return with_tables(_mapping(config_dir, dataset_id, datasets[dataset_id]))


def monitor_modes(monitor: str | Mapping[str, float]) -> dict[str, str]:
    """For each metric of a ``monitor``, the ``monitor_mode`` that keeps its best; weights of 0 have none."""
    weights = {monitor: 1} if isinstance(monitor, str) else monitor
    modes = ("max", "min")
    return {m: modes[(w < 0) != (m in LOWER_IS_BETTER)] for m, w in weights.items() if w}


def with_tables(dataset: dict[str, Any]) -> dict[str, Any]:
    """Add ``user_info`` and ``item_info`` if they are missing, as files beside the training data.

    Some of LongCTR's published configurations leave them out.
    """
    if not isinstance(dataset.get("train_data"), str):
        return dataset
    folder = Path(dataset["train_data"]).parent
    beside = {key: str(folder / f"{key}.parquet") for key in ("user_info", "item_info")}
    return {**beside, **dataset}


def resolve_paths(params: dict[str, Any], root: Path) -> dict[str, Any]:
    """Make relative paths of a configuration start at ``root``; see ``common.places.HOME``."""
    return params | {key: str(root / params[key]) for key in PATHS if params.get(key) is not None}


def redirect(params: dict[str, Any], data_root: Path | None) -> dict[str, Any]:
    """The parameters of an experiment, with another folder for data.

    Args:
        params: parameters with resolved paths.
        data_root: replaces the data_root of the configuration. Paths of the data set below the old
            folder move to the new one. All other paths stay.
    """
    moved = {}
    if data_root is not None:
        configured = os.path.abspath(params["data_root"])
        for key in DATA_PATHS:
            path = Path(os.path.abspath(params[key]))
            if path.is_relative_to(configured):
                moved[key] = str(data_root.resolve() / path.relative_to(configured))
    return params | moved


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that maps keys to values.

    Raises:
        UserError: the file cannot be read, is not a mapping in YAML, or has a key twice.
    """
    content = parse_yaml(read_bytes(file), file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: must map keys to values, but is {type(content).__name__}")
    return content


def parse_yaml(text: str | bytes, where: object) -> Any:
    """The content of a text in YAML; ``where`` names it in messages.

    Raises:
        UserError: it is not valid, has a key twice, or would grow too large.
    """
    try:
        return deepcopy(_parsed(text if isinstance(text, str) else text.decode()))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=4)  # the two files of a directory are read for each of its experiments
def _parsed(text: str) -> Any:
    _require_bounded(text)
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (AttributeError, KeyError, TypeError):  # a tag that does not fit what follows it
        raise ValueError("a tag such as !!int has a value that it does not fit") from None


def _require_bounded(text: str) -> None:
    """Refuse a text that is nested deeply, or has too many values once its aliases are followed.

    The parser of libyaml recurses in C, and such a text would end the process.
    """
    known: dict[str | None, tuple[int, int]] = {}  # by anchor: how many values, and how deep
    outer: list[list] = [["", 0, 0]]
    for event in yaml.parse(text, Loader=SafeLoader):
        anchor, size, depth = getattr(event, "anchor", None), 1, 0
        if isinstance(event, yaml.CollectionStartEvent):
            outer.append([anchor, 1, 0])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = outer.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in known:
                raise ConstructorError(None, None, f"no anchor {anchor!r} before", event.start_mark)
            size, depth = known[anchor]
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent | yaml.AliasEvent):
            known[anchor] = size, depth
            outer[-1][1:] = outer[-1][1] + size, max(outer[-1][2], depth + 1)
        if outer[-1][1] > MOST_VALUES or len(outer) + depth > DEEPEST:
            what = f"more than {MOST_VALUES:,} values, or nested more than {DEEPEST} deep"
            raise ConstructorError(None, None, what, event.start_mark)


class _StrictLoader(SafeLoader):
    """A YAML loader that accepts only texts as keys, and each key only once."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Expand merge keys, after checking the mapping's own keys."""
        if not hasattr(node, "checked"):  # once only, since merged mappings may repeat keys
            node.checked = True
            seen = set()
            for key, _ in node.value:
                if key.tag not in (TEXT, MERGE):
                    what = "a key must be a text; write a number in quotes"
                    raise ConstructorError(None, None, what, key.start_mark)
                if key.value in seen and key.tag != MERGE:
                    text = f"duplicate key {key.value!r}"
                    raise ConstructorError(None, None, text, key.start_mark)
                seen.add(key.value)
        super().flatten_mapping(node)


def _experiments(config_dir: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The id of each experiment, with the keys of ``Base`` and its own, but not its data set's."""
    entries = _entries(config_dir, "model_config")
    base = _mapping(config_dir, "Base", entries.pop("Base", None) or {})
    for expid, entry in entries.items():
        if isinstance(entry, dict):
            yield expid, base | entry


def _mapping(config_dir: str | Path, name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{config_dir}, {name}: is {entry!r}; it must map keys to values")
    return entry


def _entries(config_dir: str | Path, kind: str) -> dict[str, Any]:
    """The entries of a file such as ``model_config.yaml``, or of all files in ``model_config/``.

    Presets, whose names start with a dot, are left out.
    """
    files = [Path(config_dir, f"{kind}.yaml")]
    if not files[0].exists():
        files = sorted(Path(config_dir, kind).glob("*.yaml"))
    if not files:
        advice = "name a configuration directory"
        raise UserError(f"--config {config_dir}: has no {kind}.yaml; {advice}")
    content = {key: entry for file in files for key, entry in read_yaml(file).items()}
    return {key: entry for key, entry in content.items() if not str(key).startswith(".")}
