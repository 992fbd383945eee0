"""What a study leaves for others: results without paths of this machine, and how to repeat them.

``engine/analysis/results.py`` describes the files and reads them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..analysis.results import read_json
from ..common.errors import UserError
from ..common.files import write_json, write_text, write_yaml
from ..config.read import PATHS
from ..datasets.card import CARD
from ..tuner.space import Space
from ..tuner.trial import DONE, Trial
from .call import Call, set_words
from .experiments import Planned


class Store:
    """The folder of a study's results on one data set.

    Args:
        output: the folder of all results, with a folder for each data set.
        dataset_id: the name of the data set.
        root: the folder of the repository; paths below it are written relative to it.

    Raises:
        UserError: the folder cannot be written, or ``study.json`` is broken.
    """

    def __init__(self, output: Path, dataset_id: str, root: Path) -> None:
        self.path, self.root = output.absolute() / dataset_id, root
        self.index = self.path / "study.json"
        self._runs = self.path / "runs"
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None
        known = read_json(self.index) if self.index.exists() else {}
        self.study: dict[str, Any] = {
            "dataset_id": dataset_id, "studies": [], "cells": [], "tuning": [], **known
        }  # fmt: skip

    # ---------------------------------------------------------------- what is known already

    def require_alike(self, call: Call, dataset_hash: str) -> None:
        """Reject a study whose results could not be compared with the results in the folder.

        Raises:
            UserError: the results are on other data, or their cells have other changes or another budget.
        """
        found = self.study.get("dataset_hash", dataset_hash)
        if found != dataset_hash:
            raise UserError(
                f"{self.path}: has results on other data (hash {found}, now {dataset_hash}); put the data "
                "back, or write another --output"
            )
        now = call.changes, call.budget
        for cell in self.study["cells"]:
            before = cell["changes"], cell["budget"]
            if cell["experiment"] == call.experiment and before != now:
                raise UserError(
                    f"{self.index}: {call.experiment} has {cell['model']} with {_options(*before)}, now with "
                    f"{_options(*now)}; one table compares like with like: write the same, or "
                    "another --output"
                )

    def restore(self, trial: Trial) -> bool:
        """Take up the metrics of a run whose result is here; returns whether it is."""
        if not (path := self.result(trial)).exists():
            return False
        result = read_json(path)
        trial.metrics, trial.status = result["metrics"], DONE
        trial.dataset_hash = result["dataset_hash"]
        return True

    def restore_tuning(self, trial: Trial) -> bool:
        """Take up the metrics of a tuning trial that is in the index; returns whether it is."""
        for entry in self.study["tuning"]:
            if entry["expid"] == trial.label and entry["seed"] == trial.params["seed"]:
                trial.metrics, trial.status = {"valid": entry["valid"], "test": {}}, DONE
                return True
        return False

    def result(self, trial: Trial) -> Path:
        """The file of a run's result."""
        return self._runs / f"{trial.name}.json"

    def probe(self, trial: Trial) -> Path:
        """The file with what a run's trained weights show."""
        (self.path / "probes").mkdir(exist_ok=True)
        return self.path / "probes" / f"{trial.name}.json"

    # ---------------------------------------------------------------- what is written

    def add(self, trial: Trial, result: dict[str, Any]) -> None:
        """Write a run's result, without paths of this machine."""
        expid, seed = trial.label, str(trial.params["seed"])
        config = str(self.relative(self.path / "config"))
        command = ["python", "run_expid.py", "--config", config, "--expid", expid, "--seed", seed]
        kept = result | {
            "expid": expid,
            "command": command,
            "params": self._portable(result["params"]),
            "stage_log": [_small(entry) for entry in result["stage_log"]],
        }
        write_text(self.result(trial), json.dumps(kept, separators=(",", ":")))

    def save(
        self,
        call: Call,
        dataset_hash: str,
        cells: list[dict[str, Any]],
        tuning: list[dict[str, Any]],
    ) -> None:
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
        if (entry := call.to_json()) not in study["studies"]:
            study["studies"].append(entry)
        study["dataset_hash"] = dataset_hash
        write_json(self.index, study)

    def write_config(self, space: Space) -> None:
        """Write the experiments of all results, for ``run_expid.py --config``."""
        _, dataset = space.split({})
        entries: dict[str, dict[str, Any]] = {}
        for path in sorted(self._runs.glob("*.json")):
            result = read_json(path)
            model, _ = space.split(result["params"])
            known = entries.get(result["expid"], model)
            if known["batch_size"] > model["batch_size"]:  # this run went out of memory
                continue
            entries[result["expid"]] = {
                k: v for k, v in model.items() if k not in ("model_id", "seed")
            }
        (self.path / "config").mkdir(exist_ok=True)
        write_yaml(self.path / "config" / "model_config.yaml", entries)
        datasets = {space.model["dataset_id"]: self._portable(dataset)}
        write_yaml(self.path / "config" / "dataset_config.yaml", datasets)

    def copy_card(self, space: Space) -> None:
        """Copy the data set's card, if it has one."""
        data = self.root / space.dataset["train_data"]
        card = data.parent / CARD
        if card.exists():
            shutil.copyfile(card, self.path / card.name)

    def _portable(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with ``./data/`` and ``./checkpoints/`` in place of the folders of this machine."""
        home = (self.root / params["data_root"]).absolute()
        moved = {"model_root": "./checkpoints/"} if "model_root" in params else {}
        for key in PATHS[1:]:  # the first is model_root
            if params.get(key) is None:
                continue
            path = (self.root / params[key]).absolute()
            inside = path.is_relative_to(home)
            moved[key] = f"./data/{path.relative_to(home)}" if inside else str(self.relative(path))
        return params | moved | {"data_root": "./data/"}

    def relative(self, path: Path) -> Path:
        """A path relative to the repository. Of a path outside it only the name is left, for others do not
        have that folder."""
        path = path.absolute()
        return path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)


def _options(changes: dict[str, Any], budget: int) -> str:
    """The changes and the budget as on the command line."""
    words = ["--set", *set_words(changes)] if changes else []
    return " ".join([*words, f"--budget {budget}"])


def _small(entry: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without the cosines of the codes, which are most of its size."""
    routing = {
        name: {k: v for k, v in branch.items() if k != "code_cosine"}
        for name, branch in entry["routing"].items()
    }
    return entry | {"routing": routing}


def _key(cell: dict[str, Any]) -> str:
    return Planned(cell["experiment"], cell["model"], cell["varied"]).key
