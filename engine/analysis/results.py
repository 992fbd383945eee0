"""The results below a folder: runs, which experiment of a study each belongs to, and what was tuned.

A study (``engine.study``) writes, for each data set::

    RESULTS/<dataset_id>/study.json          cells of each experiment, and the tuning of their models
    RESULTS/<dataset_id>/runs/*.json         one result for each configuration and seed
    RESULTS/<dataset_id>/config/             the experiments, for run_expid.py --config
    RESULTS/<dataset_id>/dataset_card.json   what the data is
    RESULTS/<dataset_id>/probes/*.json       what trained weights show, see probe.py

A folder of plain ``run_expid.py`` results works too: there each model's only experiment is its cell in
Tables 1 and 2.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mode
from typing import Any

from ..common.errors import UserError
from ..config.read import PATHS

Run = dict[str, Any]

BACKBONES = ("Mamba4Rec", "TransAct", "TWIN", "SDIM")  # in the paper's order
MIXTURES = ("DSelectK", "GShard", "ExpertChoice", "MoS")
BASELINES = ("MIRRN", "MiasRec", "AttenMixer")
VARIANTS = ("", *MIXTURES)  # of a backbone; "" is vanilla
LABELS = {"": "Vanilla", "DSelectK": "DSelect-k", "ExpertChoice": "Expert Choice"}
METRICS = ("AUC", "gAUC")  # that the paper reports


def variant(backbone: str, mixture: str) -> str:
    """The model's name: ``TWIN`` and ``MoS`` make ``TWIN_MoS``, ``TWIN`` and nothing ``TWIN``."""
    return f"{backbone}_{mixture}" if mixture else backbone


def split_name(model: str) -> tuple[str, str]:
    """Backbone and mixture of a model's name; the mixture of a vanilla model is empty."""
    backbone, _, mixture = model.partition("_")
    return backbone, mixture


def label(mixture: str) -> str:
    """A mixture as the paper writes it."""
    return LABELS.get(mixture, mixture)


def row_labels(model: str) -> tuple[str, str]:
    """A model's two columns at the left of a table: backbone and variant; a baseline has no variant."""
    backbone, mixture = split_name(model)
    return backbone, "" if model in BASELINES else label(mixture)


@dataclass(frozen=True)
class Cell:
    """One configuration of one model: its runs are a number in a table or a point in a figure.

    Attributes:
        experiment: ``table1``, ``table2``, ``length``, ``experts``, ``alphas``, ``knobs``.
        model: name of the model.
        varied: the keys that the experiment sets, such as ``{"max_len": 100}``; empty in the tables.
        expid: experiment id of its runs.
        seeds: that are planned; empty without a study.
        budget: tuning trials, 1 for none; 0 without a study, where nobody knows.
        runs: by seed; failed ones are missing.
    """

    experiment: str
    model: str
    varied: dict[str, Any]
    expid: str
    seeds: tuple[int, ...] = ()
    budget: int = 0
    runs: dict[int, Run] = field(default_factory=dict, compare=False)

    def values(self, metric: str, split: str = "test") -> dict[int, float]:
        """The metric by seed."""
        return {seed: run["metrics"][split][metric] for seed, run in self.runs.items()}

    @property
    def first_run(self) -> Run:
        """That of the smallest seed; it must have runs."""
        return next(iter(self.runs.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """What its runs were told, but for names, places and seeds; it must have runs."""
        params = self.first_run["params"]
        return {k: v for k, v in params.items() if k not in {*PATHS, "model_id", "seed"}}


def conditions(cells: Collection[Cell]) -> list[str]:
    """Under which some cells with runs were run: the limit of their histories, and how many trials
    chose the parameters of each."""
    found = [f"max_len {_span({cell.first_run['params']['max_len'] for cell in cells})}"]
    budgets = {cell.budget for cell in cells}
    if 0 not in budgets:
        found.append("untuned" if budgets == {1} else f"{_span(budgets)} trials each")
    return found


def _span(values: set[int]) -> str:
    return " to ".join(str(value) for value in sorted({min(values), max(values)}))


def usual_device(runs: Collection[Run]) -> str:
    """The device that most runs were on, of several the first by name."""
    return mode(sorted(run["device"] for run in runs))


def on_device(runs: Collection[Run], device: str) -> list[Run]:
    """The runs whose speed and memory can be compared."""
    return [run for run in runs if run["device"] == device]


def device_note(cell: Cell, reference: Cell) -> str:
    """Which runs of the same seed were on different devices; empty if none."""
    seeds = [
        seed
        for seed in cell.runs.keys() & reference.runs.keys()
        if cell.runs[seed]["device"] != reference.runs[seed]["device"]
    ]
    if not seeds:
        return ""
    own, others = (
        " and ".join(sorted({c.runs[seed]["device"] for seed in seeds})) for c in (cell, reference)
    )
    numbers = ", ".join(map(str, sorted(seeds)))
    return f"{cell.model} on {own}, {reference.model} on {others}: seed {numbers}"


def limit_note(cell: Cell) -> str:
    """How many runs ended at the limit of epochs with their best epoch last; empty if none."""
    count = sum(
        run["stage_log"][-1]["best"]
        and run["stage_log"][-1]["epoch"] >= run["params"].get("epochs", 1)
        for run in cell.runs.values()
    )
    if not count:
        return ""
    return (
        f"{count} of {len(cell.runs)} runs ended at their limit of epochs, the last the best: longer "
        "training may give more"
    )


@dataclass(frozen=True)
class DatasetResults:
    """The results on one data set.

    Attributes:
        folder: where they are.
        dataset_id: its name.
        dataset_hash: of the data, the same in all runs.
        runs: all runs, in the order of file names. Each has ``file``, its path.
        cells: of all experiments.
        tuning: the trials that chose the hyper-parameters: ``model``, ``expid``, ``seed``, ``tuned``,
            ``valid`` (metrics), ``chosen``.
        study: the rest of ``study.json``; empty without one.
        card: the data set's card; empty without one.
        probes: what trained weights show, by the name of the run (``<expid>_seed<seed>``).
    """

    folder: Path
    dataset_id: str
    dataset_hash: str
    runs: list[Run]
    cells: list[Cell]
    tuning: list[dict[str, Any]]
    study: dict[str, Any]
    card: dict[str, Any]

    def experiment(self, name: str) -> list[Cell]:
        """The cells of an experiment that have a run, in the study's order."""
        return [cell for cell in self.cells if cell.experiment == name and cell.runs]

    def cell(self, experiment: str, model: str, **varied: Any) -> Cell | None:
        """One cell; None if it has no run."""
        for cell in self.experiment(experiment):
            if cell.model == model and cell.varied == varied:
                return cell
        return None

    @cached_property
    def probes(self) -> dict[str, dict[str, Any]]:
        return {path.stem: read_json(path) for path in sorted(self.folder.glob("probes/*.json"))}


def read_results(folder: Path) -> list[DatasetResults]:
    """All results below a folder, by data set, in the order of names.

    Raises:
        UserError: there are none, a file is broken, or a data set's runs are on different data.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name one with results")
    homes: dict[Path, list[Run]] = {}
    for path in sorted(folder.rglob("*.json")):
        if path.parent.name == "probes" or path.name.endswith((".resume.json", ".progress.json")):
            continue
        content = read_json(path)
        if isinstance(content, dict) and {"expid", "metrics", "stage_log"} <= content.keys():
            home = path.parent.parent if path.parent.name == "runs" else path.parent
            homes.setdefault(home, []).append(content | {"file": path})
    if not homes:
        raise UserError(
            f"{folder}: has no results; run_expid.py and engine.study write them, see README.md"
        )
    return [_dataset(home, runs) for home, runs in sorted(homes.items())]


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); delete or restore it") from None


def _dataset(home: Path, runs: list[Run]) -> DatasetResults:
    first = runs[0]
    for run in runs:
        if run["dataset_hash"] != first["dataset_hash"]:
            raise UserError(
                f"{run['file']}: ran on other data (hash {run['dataset_hash']}) than {first['file']} "
                f"({first['dataset_hash']}); results on different data are not compared: move one away"
            )
    by_expid: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_expid.setdefault(run["expid"], {})[run["seed"]] = run
    study = read_json(home / "study.json") if (home / "study.json").exists() else {}
    card = home / "dataset_card.json"
    try:
        cells = _planned(study, by_expid) if study else _plain(by_expid)
    except KeyError as error:
        raise UserError(
            f"{home / 'study.json'}: a cell lacks {error}; the study's own command writes the file anew"
        ) from None
    return DatasetResults(
        folder=home,
        dataset_id=first["dataset_id"],
        dataset_hash=first["dataset_hash"],
        runs=runs,
        cells=cells,
        tuning=study.get("tuning", []),
        study={key: value for key, value in study.items() if key not in ("cells", "tuning")},
        card=read_json(card) if card.exists() else {},
    )


def _planned(study: dict[str, Any], by_expid: dict[str, dict[int, Run]]) -> list[Cell]:
    return [
        Cell(
            entry["experiment"],
            entry["model"],
            entry["varied"],
            entry["expid"],
            tuple(entry["seeds"]),
            entry["budget"],
            {
                s: run
                for s, run in sorted(by_expid.get(entry["expid"], {}).items())
                if s in entry["seeds"]
            },
        )
        for entry in study["cells"]
    ]


def _plain(by_expid: dict[str, dict[int, Run]]) -> list[Cell]:
    """Cells of Tables 1 and 2 from experiments without a study."""
    cells: dict[tuple[str, str], Cell] = {}
    for expid, runs in by_expid.items():
        model = next(iter(runs.values()))["model"]
        backbone, mixture = split_name(model)
        tables = ["table1"] if backbone in BACKBONES else []
        tables += ["table2"] if model in BASELINES or (tables and mixture == "MoS") else []
        for table in tables:
            if (table, model) in cells:
                other = cells[table, model].first_run["file"]
                raise UserError(
                    f"{next(iter(runs.values()))['file']} and {other}: two experiments of {model}; a "
                    "table has one for each model: put them into separate folders"
                )
            cells[table, model] = Cell(table, model, {}, expid, runs=dict(sorted(runs.items())))
    return list(cells.values())
