"""The results below a folder: runs, which experiment of a study each belongs to, and what was tuned.

A study (``engine.study``) writes, for each data set::

    RESULTS/<dataset_id>/study.json          cells of each experiment, and the tuning of their models
    RESULTS/<dataset_id>/runs/*.json         one result for each configuration and seed
    RESULTS/<dataset_id>/config/             the experiments, for run_expid.py --config
    RESULTS/<dataset_id>/dataset_card.json   what the data is
    RESULTS/<dataset_id>/counting_baseline.json   what counts alone reach, see engine.baseline
    RESULTS/<dataset_id>/probes/*.json       what trained weights show, see probe.py

A folder of plain ``run_expid.py`` results works too. There the only experiment of a model is its cell
in Tables 1 and 2. What a run sets with ``--set`` is part of the name of its experiment, and so is every
parameter in which it differs from most runs of that name. The folders of the tuner are left out, since
its trials are there to be chosen from.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from model_zoo.registry import BASELINES, OURS, mixture_of

from ..baseline import record
from ..common.errors import UserError
from ..common.files import read_json
from ..common.schema import check
from ..config.read import NO_NUMBERS, PATHS
from ..datasets.prepared.card import card_beside, sampling
from ..run.result import Result
from .probes.probe_file import Probe
from .study_index import Study

Run = dict[str, Any]

UNFINISHED = ".progress.json"
OF_RESULTS = {"expid", "metrics", "stage_log"}  # a file with two of them is a result
METRICS = ("AUC", "gAUC")  # the metrics that the paper reports


@dataclass(frozen=True)
class Cell:
    """One configuration of one model: its runs are a number in a table or a point in a figure.

    Attributes:
        experiment: ``table1``, ``table2``, ``length``, ``experts``, ``alphas``, ``knobs``, ...
        model: name of the model.
        varied: the keys that the experiment sets, such as ``{"max_len": 100}``; empty in the tables.
        expid: experiment id of its runs.
        seeds: the planned seeds; empty without a study.
        budget: number of tuning trials, 1 for none; 0 without a study, where nobody knows.
        runs: the runs by seed; failed ones are missing.
    """

    experiment: str
    model: str
    varied: dict[str, Any]
    expid: str
    seeds: tuple[int, ...] = ()
    budget: int = 0
    runs: dict[int, Run] = field(default_factory=dict, compare=False)

    def values(self, metric: str, split: str = "test") -> dict[int, float]:
        """The metric by seed, of the runs that did not diverge."""
        values = {s: run["metrics"][split].get(metric, math.nan) for s, run in self.runs.items()}
        return {seed: value for seed, value in values.items() if math.isfinite(value)}

    @property
    def first_run(self) -> Run:
        """The run of the smallest seed; the cell must have runs."""
        return next(iter(self.runs.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters of its runs without names, places and seeds; the cell must have runs."""
        return _settings(self.first_run)


@dataclass(frozen=True)
class DatasetResults:
    """The results on one data set.

    Attributes:
        folder: the folder that they are in.
        dataset_id: name of the data set.
        dataset_hash: hash of the data, the same in all runs.
        runs: all runs, in the order of file names. Each has ``file``, its path, and ``changes``, what
            it sets with ``--set``.
        cells: the cells of all experiments.
        tuning: the trials that chose the hyper-parameters: ``model``, ``expid``, ``seed``, ``tuned``,
            ``valid`` (metrics), ``chosen``.
        study: the rest of ``study.json``; empty without one.
        card: the data set's card; empty without one.
    """

    folder: Path
    dataset_id: str
    dataset_hash: str
    runs: list[Run]
    cells: list[Cell]
    tuning: list[dict[str, Any]]
    study: dict[str, Any]
    card: dict[str, Any]

    @property
    def title(self) -> str:
        """The name of the data set, and how its negatives were drawn if they were."""
        return ", ".join(filter(None, [self.dataset_id, sampling(self.runs[0])]))

    @cached_property
    def counting(self) -> dict[int, record.Entry]:
        """The counting baseline for each ``max_len`` of the runs for which it was measured."""
        lengths = sorted({run["params"]["max_len"] for run in self.runs})
        found = {n: record.of(self.folder, self.dataset_hash, n) for n in lengths}
        return {max_len: entry for max_len, entry in found.items() if entry}

    def experiment(self, name: str) -> list[Cell]:
        """The cells of an experiment that have a run, in the study's order."""
        return [cell for cell in self.cells if cell.experiment == name and cell.runs]

    @cached_property
    def probes(self) -> dict[str, dict[str, Any]]:
        """What trained weights show, by the name of the run (``<expid>_seed<seed>``)."""
        files = sorted(self.folder.glob("probes/*.json"))
        advice = "delete it, and run the study again"
        return {path.stem: read_json(path, Probe, advice) for path in files}


def read_results(folder: Path) -> list[DatasetResults]:
    """All results below a folder, by data set, in the order of names.

    Raises:
        UserError: there are none, a file is broken, or a data set's runs are on different data.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name one with results")
    homes: dict[Path, list[Run]] = {}
    for path in sorted(folder.rglob("*.json")):
        parts = path.relative_to(folder).parts[:-1]
        if "tuner" in parts or "probes" in parts or path.name.endswith(UNFINISHED):
            continue
        content = read_json(path)
        if isinstance(content, dict) and len(OF_RESULTS & content.keys()) > 1:
            check(path, content, Result, "run it again, or move it away")
            home = path.parent.parent if path.parent.name == "runs" else path.parent
            changes = {k: v for k, v in content.get("set", {}).items() if k not in NO_NUMBERS}
            run = content | {"file": path, "changes": {}}
            _set(run, changes)
            homes.setdefault(home, []).append(run)
    if not homes:
        advice = "run_expid.py and engine.study write them, see docs/studies.md"
        raise UserError(f"{folder}: has no results; {advice}")
    return [_dataset(home, runs) for home, runs in sorted(homes.items())]


def _dataset(home: Path, runs: list[Run]) -> DatasetResults:
    first = runs[0]
    other = next((run for run in runs if run["dataset_hash"] != first["dataset_hash"]), None)
    if other:
        what = f"ran on other data (hash {other['dataset_hash']}) than {first['file']}"
        advice = "results on different data are not compared: move one away"
        raise UserError(f"{other['file']}: {what} ({first['dataset_hash']}); {advice}")
    runs = sorted(runs, key=lambda run: run["seed"])
    for same in _by_expid(runs).values():
        _rename_unlike(same)
    by_expid = {expid: {run["seed"]: run for run in own} for expid, own in _by_expid(runs).items()}
    index = home / "study.json"
    study = read_json(index, Study) if index.exists() else {}
    return DatasetResults(
        folder=home,
        dataset_id=first["dataset_id"],
        dataset_hash=first["dataset_hash"],
        runs=runs,
        cells=_planned(study, by_expid) if study else _plain(by_expid),
        tuning=study.get("tuning", []),
        study={key: value for key, value in study.items() if key not in ("cells", "tuning")},
        card=card_beside(index),
    )


def _set(run: Run, changes: dict[str, Any]) -> None:
    """Make what a run sets a part of the name of its experiment."""
    run["expid"] = " ".join([run["expid"], *(f"{k}={v}" for k, v in changes.items())])
    run["changes"] |= changes


def _settings(run: Run) -> dict[str, Any]:
    """The parameters of a run without names, places and seeds."""
    left_out = {*PATHS, *NO_NUMBERS, "model_id", "seed"}
    return {key: value for key, value in run["params"].items() if key not in left_out}


def _samples_of_a_step(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the samples of a step as the batch size, which running out of memory keeps."""
    size = settings.get("batch_size", 1) * settings.get("accumulation_steps", 1)
    return settings | {"batch_size": size, "accumulation_steps": 1}


def _by_expid(runs: list[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["expid"], []).append(run)
    return found


def _rename_unlike(same: list[Run]) -> None:
    """Part runs of one name whose parameters are not those of most: they are no seeds of one configuration."""
    found = [_samples_of_a_step(_settings(run)) for run in same]
    usual = max(found, key=found.count)
    for run, own in zip(same, found, strict=True):
        other = (key for key in sorted({*own, *usual}) if own.get(key) != usual.get(key))
        _set(run, {key: own.get(key) for key in other})


def _planned(study: dict[str, Any], by_expid: dict[str, dict[int, Run]]) -> list[Cell]:
    """The cells of a study, each with the runs of its planned seeds."""
    cells = []
    for entry in study["cells"]:
        known = {key: entry[key] for key in ("experiment", "model", "varied", "expid", "budget")}
        runs, seeds = by_expid.get(entry["expid"], {}), tuple(entry["seeds"])
        planned = {seed: run for seed, run in runs.items() if seed in seeds}
        cells.append(Cell(**known, seeds=seeds, runs=planned))
    return cells


def _plain(by_expid: dict[str, dict[int, Run]]) -> list[Cell]:
    """Cells of Tables 1 and 2 from experiments without a study.

    Experiments that set something are left out, unless all set the same: the tables compare like
    with like.
    """
    cells: dict[tuple[str, str], Cell] = {}
    first = {expid: next(iter(runs.values())) for expid, runs in by_expid.items()}
    alike = all(run["changes"] == next(iter(first.values()))["changes"] for run in first.values())
    for expid, runs in by_expid.items():
        run = first[expid]
        if run["changes"] and not alike:
            print(f"{run['file']}: not in Tables 1 and 2, since other runs do not set the same")
            continue
        model = run["model"]
        tables = ["table1"] * (model not in BASELINES)
        tables += ["table2"] * (model in BASELINES or mixture_of(model) == OURS)
        for table in tables:
            if (table, model) in cells:
                other = cells[table, model].first_run["file"]
                advice = "a table has one for each model: put them into separate folders"
                raise UserError(f"{run['file']} and {other}: two experiments of {model}; {advice}")
            cells[table, model] = Cell(table, model, {}, expid, runs=runs)
    return list(cells.values())
