"""A tuner file in FuxiCTR's form, checked: which trials it asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..common.errors import UserError, did_you_mean
from ..config.read import (
    DATA_FILES,
    DATA_PATHS,
    dataset_part,
    model_part,
    read_yaml,
    redirect,
    resolve_paths,
    with_tables,
)
from .trial import Trial, canonical, digest, number

KEYS = (
    "base_config",
    "base_expid",
    "dataset_id",
    "tuner_space",
    "model_config",
    "dataset_config",
)
# What decides how trials are compared, or where their files are.
NOT_TUNED = {
    "dataset_id": "results on different data are not compared; write one tuner file for each",
    "metrics": "all trials must be measured alike",
    "monitor": "all trials must be measured alike",
    "monitor_mode": "all trials must be measured alike",
    "model_root": "the tuner decides where files go",
    "model_id": "the tuner names its trials",
}
OTHER_DATA = (*DATA_PATHS, "data_format", "feature_cols", "label_col", "group_id")
NOT_TUNED |= dict.fromkeys(OTHER_DATA, NOT_TUNED["dataset_id"])


@dataclass(frozen=True)
class Space:
    """The base experiment, and the values that some of its keys are to take.

    Attributes:
        file: the tuner file.
        expid: ``base_expid``.
        model, dataset: the base experiment's keys, in the model's and the data set's configuration.
        choices: the values of each tuned key.
    """

    file: Path
    expid: str
    model: dict[str, Any]
    dataset: dict[str, Any]
    choices: dict[str, list[Any]]

    @property
    def size(self) -> int:
        """How many combinations there are."""
        return math.prod(map(len, self.choices.values()))

    def grid(self) -> Iterator[Trial]:
        """All combinations, those that FuxiCTR's ``enumerate_params`` gives."""
        for values in product(*self.choices.values()):
            yield self.trial(dict(zip(self.choices, values, strict=True)))

    def trial(self, tuned: dict[str, Any]) -> Trial:
        """The trial of one combination."""
        params = {**self.model, **self.dataset, **tuned}
        return Trial(f"{self.expid}_{digest(params)}", params, tuned)

    def split(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A trial's entries for ``model_config.yaml`` and ``dataset_config.yaml``.

        A tuned key of the data set becomes a key of the model: loaded together, they are the same
        again, and all trials share one data set, with its name and folder.
        """
        dataset = {k: v for k, v in self.dataset.items() if k not in self.choices}
        model = {k: v for k, v in params.items() if k not in dataset}
        return model, dataset


def read_space(file: Path, root: Path, data_root: Path | None = None) -> Space:
    """Read a tuner file and the base experiment it names.

    Args:
        file: has ``base_expid``, ``tuner_space`` and, unless ``model_config`` and
            ``dataset_config`` are in it too, ``base_config``, a directory (default: the file's own).
        root: where a relative ``base_config`` starts.
        data_root: folder of the data sets, in place of the configuration's.

    Raises:
        UserError: the file, or what it names, is wrong; needs no torch.
    """
    content = read_yaml(file)
    for key in content:
        if key not in KEYS:
            raise UserError(f"{file}: unknown key `{key}`{did_you_mean(key, KEYS)}")
    for key, kind, what in (
        ("base_expid", str, "an experiment id"),
        ("tuner_space", dict, "a mapping from keys to lists of values"),
    ):
        if not isinstance(content.get(key), kind):
            raise UserError(f"{file}, {key}: is {content.get(key)!r}; write {what}")
    base = content.get("base_config", str(file.resolve().parent))
    if not isinstance(base, str):
        raise UserError(f"{file}, base_config: is {base!r}; write a configuration directory")
    expid, base = content["base_expid"], root / base
    model = dict(_inline(file, content, "model_config", expid) or _base_model(file, base, expid))
    dataset_id = str(content.get("dataset_id", model.get("dataset_id")))
    dataset = _inline(file, content, "dataset_config", dataset_id)
    try:
        dataset = with_tables(dataset) if dataset else dataset_part(base, dataset_id, expid)
    except UserError as error:
        raise UserError(f"{file}, dataset_id: {error}") from None
    for key in DATA_PATHS:
        if data_root is not None and not isinstance(dataset.get(key), str):
            raise UserError(f"{file}, dataset_id: {dataset_id} has no {key}; write its path")
    if data_root is not None:
        dataset = redirect(resolve_paths(dataset, root), data_root, None)
    if model.get("dataset_id") == "TBD":  # in some of LongCTR's base experiments
        expid = f"{model.get('model')}_{dataset_id}"
    model["dataset_id"] = dataset_id
    choices = _choices(file, content["tuner_space"], [*model, *dataset], expid)
    return Space(file, expid, model, dataset, choices)


def check_values(space: Space, root: Path) -> Space:
    """Check the base experiment with each value of the space, and that its data is there; generate
    data that can be.

    Returns:
        The space with every value of its right type, whatever way it was written.

    Raises:
        UserError: what a run would refuse; the message names the file and the key.
    """
    from ..config.models import find_model
    from ..config.validate import check
    from ..datasets import ensure_generated
    from ..loader.columns import open_parquet  # these need torch

    base = {**space.model, **space.dataset, "model_id": space.expid}
    base.setdefault("model_root", ".")

    def checked(**values: Any) -> dict[str, Any]:
        params = base | values
        try:
            return check(params, find_model(str(params.get("model", ""))))
        except UserError as error:
            raise UserError(f"{space.file}: {error}") from None

    first = {key: values[0] for key, values in space.choices.items()}
    params = checked(**first)
    choices = {
        key: [checked(**first | {key: value})[key] for value in values]
        for key, values in space.choices.items()
    }
    for key, values in choices.items():
        for value in values:
            if [canonical(v) for v in values].count(canonical(value)) > 1:
                where = f"{space.file}, tuner_space, {key}"
                raise UserError(f"{where}: {value!r} is there twice; write it once")
    files = resolve_paths(params, root)
    ensure_generated(files)
    for key in DATA_FILES:
        open_parquet(Path(files[key]))
    return replace(
        space,
        model={key: params.get(key, value) for key, value in space.model.items()},
        dataset={key: params.get(key, value) for key, value in space.dataset.items()},
        choices=choices,
    )


def data_hash(space: Space, root: Path) -> str:
    """The hash that goes into the results of all trials."""
    from ..datasets.card import fingerprint

    files = resolve_paths(space.dataset, root)
    return fingerprint(files[key] for key in DATA_FILES)


def _base_model(file: Path, base: Path, expid: str) -> dict[str, Any]:
    try:
        return model_part(base, expid)
    except UserError as error:
        raise UserError(f"{file}, base_expid: {str(error).removeprefix('--expid ')}") from None


def _inline(file: Path, content: dict[str, Any], key: str, name: str) -> dict[str, Any] | None:
    """An entry of a configuration that is written in the tuner file itself."""
    if key not in content:
        return None
    entries = content[key]
    if not isinstance(entries, dict) or not isinstance(entries.get(name), dict):
        known = entries if isinstance(entries, dict) else ()
        raise UserError(f"{file}, {key}: has no {name!r}{did_you_mean(name, known)}")
    return entries[name]


def _choices(
    file: Path, space: dict[str, Any], known: list[str], expid: str
) -> dict[str, list[Any]]:
    """The checked values of each tuned key, in the order of the base experiment's keys."""
    for key, values in space.items():
        where = f"{file}, tuner_space, {key}"
        if key in NOT_TUNED:
            raise UserError(f"{where}: cannot be tuned; {NOT_TUNED[key]}")
        if key not in known:
            raise UserError(
                f"{where}: not a key of {expid} or of its data set; write it there first"
                f"{did_you_mean(key, known)}"
            )
        if values == []:
            raise UserError(f"{where}: is an empty list; write the values to try")
        seen: dict[str, Any] = {}
        for value in values if isinstance(values, list) else [values]:
            try:
                text = canonical(value)
            except TypeError:
                raise UserError(
                    f"{where}: {value!r} cannot be a parameter; write a number, a text or a list"
                ) from None
            if text in seen:
                same = "" if value == seen[text] else f" (as {seen[text]!r} and {value!r})"
                raise UserError(f"{where}: {value!r} is there twice{same}; write it once")
            seen[text] = value
    order = [key for key in dict.fromkeys(known) if key in space]
    return {
        key: [number(v) for v in (space[key] if isinstance(space[key], list) else [space[key]])]
        for key in order
    }
