"""The folder of a study's results, with all that is needed to repeat a run on another machine.

``engine/analysis/results.py`` describes the files and reads them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ..analysis.study_index import Study
from ..common.errors import UserError
from ..common.files import read_json, write_json, write_text, write_yaml, writing
from ..common.places import HOME
from ..config.read import PATHS
from ..datasets.prepared.card import CARD
from ..run.result import Result
from ..tuner.space import Space
from ..tuner.trial import DONE, Trial
from .experiments import Call, Planned, set_words


class Store:
    """The folder of a study's results on one data set.

    Args:
        output: the folder of all results, with a folder for each data set.
        call: the call of the study.
        dataset_hash: the hash of the present data.

    Raises:
        UserError: the folder cannot be written, ``study.json`` is broken, or its results cannot be
            compared with the results of this call. This is so if they are on other data, or if the
            same experiment has other changes or another budget.
    """

    def __init__(self, output: Path, call: Call, dataset_hash: str) -> None:
        self.call = call
        self.path = output.absolute() / call.dataset
        self.index = self.path / "study.json"
        self._runs = self.path / "runs"
        known = read_json(self.index, Study) if self.index.exists() else {}
        self.study: dict[str, Any] = {"dataset_id": call.dataset, "dataset_hash": dataset_hash}
        self.study |= {"studies": [], "cells": [], "tuning": [], **known}
        self._require_alike(dataset_hash)
        with writing(f"--output {output}"):
            self._runs.mkdir(parents=True, exist_ok=True)

    def _require_alike(self, dataset_hash: str) -> None:
        """Raise a UserError if this call's results cannot be compared with those in the folder."""
        if (found := self.study["dataset_hash"]) != dataset_hash:
            what = f"has results on other data (hash {found}, now {dataset_hash})"
            raise UserError(f"{self.path}: {what}; put the data back, or write another --output")
        now = self.call.changes, self.call.budget
        for cell in self.study["cells"]:
            before = cell["changes"], cell["budget"]
            if cell["experiment"] == self.call.experiment and before != now:
                what = f"{cell['model']} had {_options(*before)}, now {_options(*now)}"
                advice = "one table compares like with like: write the same, or another --output"
                raise UserError(f"{self.index}, {cell['experiment']}: {what}; {advice}")

    # ---------------------------------------------------------------- what is known already

    def restore(self, trial: Trial) -> bool:
        """Give a trial the metrics of its stored result, and return whether there is one."""
        if not (path := self.result(trial)).exists():
            return False
        result = read_json(path, Result)
        trial.metrics, trial.status = result["metrics"], DONE
        trial.dataset_hash = result["dataset_hash"]
        trial.require_monitored(path)
        return True

    def restore_tuning(self, trial: Trial) -> bool:
        """Give a tuning trial its metrics from the index, and return whether they are there."""
        for entry in self.study["tuning"]:
            if entry["expid"] == trial.label and entry["seed"] == trial.params["seed"]:
                trial.metrics, trial.status = {"valid": entry["valid"], "test": {}}, DONE
                trial.require_monitored(self.index)
                return True
        return False

    def result(self, trial: Trial) -> Path:
        """The file of a run's result."""
        return self._runs / f"{trial.name}.json"

    def probe(self, trial: Trial) -> Path:
        """The file with the analysis of a run's trained weights."""
        (self.path / "probes").mkdir(exist_ok=True)
        return self.path / "probes" / f"{trial.name}.json"

    # ---------------------------------------------------------------- what is written

    def add(self, trial: Trial, result: dict[str, Any]) -> None:
        """Write a run's result, without paths of this machine."""
        expid, seed = trial.label, str(trial.params["seed"])
        config = portable(self.path / "config")
        command = ["python", "run_expid.py", "--config", config, "--expid", expid, "--seed", seed]
        kept = result | {
            "expid": expid,
            "command": command,
            "params": _portable_paths(result["params"]),
            "stage_log": [_small(entry) for entry in result["stage_log"]],
        }
        write_text(self.result(trial), json.dumps(kept, separators=(",", ":")))

    def save(self, cells: list[dict[str, Any]], tuning: list[dict[str, Any]]) -> None:
        """Write the index ``study.json``.

        A cell replaces the same cell of an earlier call. The tuning trials of a model replace those
        of an earlier tuning.
        """
        study = self.study
        new = {_key(cell) for cell in cells}
        kept = [cell for cell in study["cells"] if _key(cell) not in new]
        models = {entry["model"] for entry in tuning}
        study["cells"] = kept + cells
        study["tuning"] = [e for e in study["tuning"] if e["model"] not in models] + tuning
        if (entry := self.call.to_json()) not in study["studies"]:
            study["studies"].append(entry)
        write_json(self.index, study)

    def write_config(self, space: Space) -> None:
        """Write the experiments of all results, for ``run_expid.py --config``, and the data's card."""
        _, dataset = space.split({})
        entries: dict[str, dict[str, Any]] = {}
        results = (read_json(path, Result) for path in self._runs.glob("*.json"))
        # After running out of memory, a run has a smaller batch than others of its experiment.
        for result in sorted(results, key=lambda result: result["params"]["batch_size"]):
            model, _ = space.split(result["params"])
            kept = model.keys() - {"model_id", "seed"}
            entries[result["expid"]] = {k: v for k, v in model.items() if k in kept}
        (self.path / "config").mkdir(exist_ok=True)
        write_yaml(self.path / "config" / "model_config.yaml", entries)
        datasets = {space.model["dataset_id"]: _portable_paths(dataset)}
        write_yaml(self.path / "config" / "dataset_config.yaml", datasets)
        card = (HOME / space.dataset["train_data"]).parent / CARD
        if card.exists():
            shutil.copyfile(card, self.path / CARD)


def portable(path: Path) -> str:
    """A path relative to the repository's folder.

    A path outside it is cut to its name, because the folder does not exist on other machines.
    """
    path = path.absolute()
    return str(path.relative_to(HOME)) if path.is_relative_to(HOME) else path.name


def _portable_paths(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with ``./data/`` and ``./checkpoints/`` in place of the folders of this machine."""
    data_root = (HOME / params["data_root"]).absolute()
    moved = {"model_root": "./checkpoints/"} if "model_root" in params else {}
    for key in PATHS[1:]:  # the first is model_root
        if params.get(key) is not None:
            path = (HOME / params[key]).absolute()
            inside = path.is_relative_to(data_root)
            moved[key] = f"./data/{path.relative_to(data_root)}" if inside else portable(path)
    return params | moved | {"data_root": "./data/"}


def _options(changes: dict[str, Any], budget: int) -> str:
    """The changes and the budget as on the command line."""
    words = ["--set", *set_words(changes)] if changes else []
    return " ".join([*words, f"--budget {budget}"])


def _small(entry: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without the cosines of the codes, which are most of its size."""
    branches = entry["routing"].items()
    kept = {n: {k: v for k, v in own.items() if k != "code_cosine"} for n, own in branches}
    return entry | {"routing": kept}


def _key(cell: dict[str, Any]) -> str:
    return Planned(cell["experiment"], cell["model"], cell["varied"]).key
