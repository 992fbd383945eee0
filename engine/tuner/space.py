"""Read the trials from a tuner file, which is in FuxiCTR's form; this needs no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from model_zoo.registry import mixture_of

from ..common.errors import UserError, did_you_mean
from ..common.places import CONFIG
from ..config import read
from ..config.options import RunOptions
from .trial import NOT_OF_THE_TRIAL, Trial, digest

# The keys of a tuner file, with the type of their values and the words for it.
KEYS: dict[str, tuple[type, str]] = {
    "base_config": (str, "a configuration directory"),
    "base_expid": (str, "an experiment id"),
    "dataset_id": (str, "the name of a data set"),
    "tuner_space": (dict, "a mapping from keys to lists of values"),
    "model_config": (dict, "a mapping from experiment ids to their keys"),
    "dataset_config": (dict, "a mapping from data sets to their keys"),
}
REQUIRED = ("base_expid", "tuner_space")
OTHER_DATA = "results on different data are not compared; run the tuner once for each data set"
# Keys that decide how trials are compared, or where their files are.
NOT_TUNED = {
    **dict.fromkeys(("metrics", "monitor", "monitor_mode"), "all trials must be measured alike"),
    **dict.fromkeys(("dataset_id", *read.DATA_PATHS), OTHER_DATA),
    **dict.fromkeys(
        ("data_format", "feature_cols", "event_cols", "label_col", "group_id"), OTHER_DATA
    ),
    "model_root": "the tuner decides where files go",
    "model_id": "the tuner names its trials",
}
# A key of every model, which may be tuned even where the experiment leaves it at its default.
DEFAULTED = "embedding_initializer"


@dataclass(frozen=True)
class Space:
    """An experiment, and the values that some of its keys take.

    Attributes:
        file: the tuner file, or the configuration directory of an experiment without one.
        expid: the experiment id.
        model, dataset: the keys of the experiment in the model's and the data set's configuration.
        choices: the values of each tuned key.
    """

    file: Path
    expid: str
    model: dict[str, Any]
    dataset: dict[str, Any]
    choices: dict[str, list[Any]]

    @property
    def size(self) -> int:
        """How many different trials the combinations give."""
        choices = (v for key, v in self.choices.items() if key not in NOT_OF_THE_TRIAL)
        return math.prod(map(len, choices))

    def grid(self) -> Iterator[Trial]:
        """All combinations, the same as those of FuxiCTR's ``enumerate_params``."""
        for values in product(*self.choices.values()):
            yield self.trial(dict(zip(self.choices, values, strict=True)))

    def trial(self, tuned: dict[str, Any]) -> Trial:
        """The trial of one combination."""
        params = {**self.model, **self.dataset, **tuned}
        return Trial(f"{self.expid}_{digest(params)}", params, tuned)

    def split(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The entries of a trial for ``model_config.yaml`` and ``dataset_config.yaml``.

        A tuned key of the data set becomes a key of the model. So all trials share the name and the
        folder of one data set, and loading both entries gives the same parameters.
        """
        dataset = {k: v for k, v in self.dataset.items() if k not in self.choices}
        model = {k: v for k, v in params.items() if k not in dataset}
        return model, dataset


def read_space(given: Path, options: RunOptions, expid: str | None = None) -> Space:
    """Read the experiment and the grid that the tuner's command line names.

    Args:
        given: a configuration directory or a tuner file. Earlier versions had a tuner file
            ``<directory>/tuner/<expid>.yaml`` for each experiment. If such a path no longer exists, it
            stands for the experiment ``expid`` of the directory.
        options: its ``home`` is the folder where a relative ``base_config`` starts.
        expid: the experiment to tune; None takes the one that the tuner file names.

    Raises:
        UserError: a file is wrong, or the experiment is not in the configuration.
    """
    if not given.exists() and given.parent.name == "tuner":
        given, expid = given.parent.parent, expid or given.stem
    if not given.is_dir():
        content = read_tuner_file(given)
        space = _base_of(given, content, options.home, expid)
    elif expid is None:
        raise UserError(f"--config {given}: this is a configuration directory; write --expid too")
    else:
        space = read_experiment(given, expid)
        space = replace(space, file=grid_file(given, space))
        content = read_tuner_file(space.file)
    return with_choices(space, content["tuner_space"])


def grid_file(config: Path, experiment: Space) -> Path:
    """The tuner file with the grid of an experiment.

    It is the first existing file among ``<expid>.yaml``, ``<model>.yaml``, ``<mixture>.yaml`` and
    ``default.yaml``, in ``tuner/`` of the configuration directory and then of the shipped one.
    """
    model = str(experiment.model.get("model"))
    names = [name for name in (experiment.expid, model, mixture_of(model), "default") if name]
    files = [folder / "tuner" / f"{name}.yaml" for folder in (config, CONFIG) for name in names]
    return next(file for file in files if file.exists())


def read_experiment(config: Path, expid: str) -> Space:
    """Read an experiment from a configuration directory, without choices."""
    model = read.model_part(config, expid)
    dataset = read.dataset_part(config, str(model.get("dataset_id")), expid)
    return Space(config, expid, model, dataset, {})


def read_tuner_file(file: Path) -> dict[str, Any]:
    """Read a tuner file.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type.
    """
    content = read.read_yaml(file)
    for key in (*content, *REQUIRED):
        if key not in KEYS:
            raise UserError(f"{file}: unknown key `{key}`{did_you_mean(key, KEYS)}")
        kind, what = KEYS[key]
        if not isinstance(content.get(key), kind):
            raise UserError(f"{file}, {key}: is {content.get(key)!r}; write {what}")
    return content


def _base_of(file: Path, content: dict[str, Any], home: Path, expid: str | None) -> Space:
    """The experiment of a tuner file, without choices; ``expid`` replaces the one that it names."""
    base = home / content.get("base_config", file.resolve().parent)
    flag = "base_expid" if expid is None else "--expid"
    dataset_id = content.get("dataset_id") if expid is None else None
    expid = expid or content["base_expid"]
    try:
        model = _inline(content, "model_config", expid) or read.model_part(base, expid)
        dataset_id = str(dataset_id or model.get("dataset_id"))
        inline = _inline(content, "dataset_config", dataset_id)
        dataset = read.with_tables(inline) if inline else read.dataset_part(base, dataset_id, expid)
    except UserError as error:
        raise UserError(f"{file}, {str(error).replace('--expid', flag)}") from None
    if model.get("dataset_id") == "TBD":  # some of LongCTR's base experiments have this
        expid = f"{model.get('model')}_{dataset_id}"
    return Space(file, expid, model | {"dataset_id": dataset_id}, dataset, {})


def _inline(content: dict[str, Any], key: str, name: str) -> dict[str, Any] | None:
    """The entry ``name`` of a configuration that is written in the tuner file itself."""
    entries = content.get(key)
    if entries is not None and not isinstance(entries.get(name), dict):
        raise UserError(f"{key}: has no {name!r}{did_you_mean(name, entries)}")
    return None if entries is None else dict(entries[name])


def with_choices(space: Space, tuner_space: dict[str, Any]) -> Space:
    """Give an experiment the values of a grid, in the order of the experiment's keys.

    Raises:
        UserError: a key cannot be tuned, is not one of the experiment, or has no value.
    """
    known = list(dict.fromkeys([*space.model, *space.dataset, DEFAULTED]))
    listed = {k: v if isinstance(v, list) else [v] for k, v in tuner_space.items()}
    for key, values in listed.items():
        where = f"{space.file}, tuner_space, {key}"
        if key in NOT_TUNED:
            raise UserError(f"{where}: cannot be tuned; {NOT_TUNED[key]}")
        if key not in known:
            what = f"not a key of {space.expid} or of its data set; write it there first"
            raise UserError(f"{where}: {what}{did_you_mean(key, known)}")
        if not values:
            raise UserError(f"{where}: the value is an empty list; write the values to try")
    return replace(space, choices={key: listed[key] for key in known if key in listed})
