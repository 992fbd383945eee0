"""One experiment: from checked parameters to a trained model and its result."""

from __future__ import annotations

import json
import logging
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fuxictr.pytorch.torch_utils import seed_everything

from model_zoo.training.base_model import StagedModel, log_metrics
from model_zoo.training.loop import TrainingError
from model_zoo.training.routing_report import routing_report

from ..common.errors import UserError
from ..common.files import write_json
from ..config.feature_map import build_feature_map
from ..config.load import Experiment
from ..config.models import AdoptedModel, build, own_words
from ..config.read import DATA_FILES
from ..datasets import ensure_generated
from ..datasets.card import SPLITS, card_beside, fingerprint
from ..loader.columnar import Histories, ItemTable
from ..loader.loader import SequenceLoader
from . import summary as results
from .artifacts import RunFiles
from .code_version import commit_of
from .cpu import set_up_cpu
from .devices import device_name, peak_memory, require_device
from .flops import flops_per_sample, num_parameters, spread_batch
from .tensorboard import ScalarWriter

VERSIONS = ("torch", "fuxictr", "numpy", "pandas", "polars", "pyarrow", "scikit-learn")


def run(experiment: Experiment) -> dict[str, Any]:
    """Run an experiment, write its result and return it.

    Checkpoint, log, result and, while running, resume state and the evaluations so far are
    ``<model_root>/<dataset_id>/<expid>_seed<seed>.{model,log,json,resume,progress.json}``. With
    ``tensorboard: True`` there is also the folder ``tensorboard/<expid>_seed<seed>`` beside them.
    None of them is touched before the data has been checked.

    Raises:
        UserError: bad input, or training cannot go on.
    """
    params, options = experiment.params, experiment.options
    expid, resume = params["model_id"], options.resume
    require_device(options.gpu)
    set_up_cpu()
    peak = peak_memory(options.gpu)
    changes = {key: params[key] for key in options.changes}
    files = RunFiles(params, changes)
    if resume:
        files.require_unchanged(params)
        if files.finished():
            print(f"{expid}, seed {params['seed']}: finished already, see {files.result}")
            return json.loads(files.result.read_text())
    ensure_generated(params)
    start = time.perf_counter()
    model, loaders = _build(experiment, files.name)
    about = _about(params) | {"set": changes}
    files.keep_result_of_other_data(about["dataset_hash"])
    if resume:
        files.require_same_data(about["dataset_hash"])
    files.open(params, about["dataset_hash"], resume)
    logging.info(f"{expid}, seed {params['seed']}: {num_parameters(model):,} parameters")
    if resume and not files.state.exists():
        logging.info("--resume: nothing was saved yet, the run starts at its beginning")
    before = files.fit_seconds()
    foreign = issubclass(experiment.model_class, AdoptedModel)
    try:
        with own_words(experiment.model_class, expid) if foreign else nullcontext():
            result = about | _train_and_evaluate(model, loaders, params, options.gpu, files, before)
    except TrainingError as error:
        raise UserError(f"{expid}, seed {params['seed']}: {error}") from None
    result["peak_memory_bytes"] = peak()
    result["seconds"]["total"] = before + time.perf_counter() - start
    write_json(files.result, result)
    files.close()
    results.append_bars_line(result, options.config)
    return result


def _build(experiment: Experiment, name: str) -> tuple[StagedModel, dict[str, SequenceLoader]]:
    """The model with its first weights, and the loaders of the checked data."""
    params, model_class, gpu = experiment.params, experiment.model_class, experiment.options.gpu
    seed_everything(params["seed"])
    feature_map = build_feature_map(params)
    loaders = make_loaders(params, feature_map, f"cuda:{gpu}" if gpu >= 0 else "cpu")
    expid, params = params["model_id"], {**params, "model_id": name, "gpu": gpu}
    model = build(model_class, feature_map, params, expid)
    with own_words(model_class, expid), torch.no_grad():
        model.eval()(next(iter(loaders["test"])))  # fail now, not after training
    return model, loaders


def _about(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that is known before training."""
    return {
        "status": "done",
        "expid": params["model_id"],
        "seed": params["seed"],
        "model": params["model"],
        "dataset_id": params["dataset_id"],
        "dataset_hash": fingerprint(params[key] for key in DATA_FILES),
        "bayes": _bayes(params),
        "versions": _versions(),
        "threads": torch.get_num_threads(),  # sums are split among them: they move the last digits
        "command": ["python", *sys.argv],
        "params": params,
    }


@cache  # before the first run: later changes are not in this process
def _versions() -> dict[str, str]:
    """Of Python, of the packages and, in a git checkout, of this code."""
    packages = {name: version(name) for name in VERSIONS}
    commit = commit_of(Path(__file__).parents[2])
    return {"python": platform.python_version()} | packages | ({"commit": commit} if commit else {})


def _train_and_evaluate(
    model: StagedModel,
    loaders: dict[str, SequenceLoader],
    params: dict[str, Any],
    gpu: int,
    files: RunFiles,
    before: float,
) -> dict[str, Any]:
    """The part of a result that is measured; ``before`` are the seconds of training before a kill."""
    scalars = ScalarWriter(files.scalars) if params.get("tensorboard") else None

    def on_evaluation(stage_log: list[dict[str, Any]]) -> None:
        seconds = time.perf_counter() - start
        write_json(files.progress, {"stage_log": stage_log, "fit_seconds": seconds})
        if scalars is not None:
            scalars.write(stage_log)

    start = time.perf_counter() - before
    model.fit(
        loaders["train"],
        validation_data=loaders["valid"],
        resume_file=str(files.state),
        on_evaluation=on_evaluation,
        **params,
    )
    fit_seconds = time.perf_counter() - start
    if scalars is not None:
        scalars.close()
    logging.info("****** Validation evaluation ******")  # headings as FuxiCTR's
    metrics = {"valid": _best_metrics(model)}
    log_metrics(metrics["valid"])
    logging.info("******** Test evaluation ********")
    start = time.perf_counter()
    try:
        metrics["test"] = model.evaluate(loaders["test"])
    except ValueError as error:
        raise TrainingError(f"test: {error}") from None
    test_seconds = time.perf_counter() - start
    flops = flops_per_sample(model, spread_batch(loaders["test"]))
    return {
        "metrics": metrics,
        "routing": routing_report(model, loaders["test"]),
        "stage_log": model.stage_log,
        "stage_start": model.stage_start,
        "num_parameters": num_parameters(model),
        "flops_per_sample": flops.mean,
        "flops_per_sample_error": flops.error,
        "train_samples_per_s": _training_speed(model.stage_log),
        "test_samples_per_s": len(loaders["test"].samples) / test_seconds,
        "seconds": {"fit": fit_seconds, "test": test_seconds},
        "device": device_name(gpu),
    }


def _best_metrics(model: StagedModel) -> dict[str, float]:
    """The validation metrics of the weights that training ended with: those that chose them."""
    last = model.stage_log[-1]["stage"]
    evaluated = (*model.stage_start, *model.stage_log)
    best = [entry for entry in evaluated if entry["stage"] == last and entry["best"]][-1]
    return {metric: best[metric] for metric in model.validation_metrics}


def make_loaders(params: dict[str, Any], feature_map, device: str) -> dict[str, SequenceLoader]:
    """The loaders of the three splits; they share histories and item tables."""
    histories = Histories(params["user_info"])
    items = ItemTable(params["item_info"], feature_map)
    keys = ("batch_size", "max_len", "padding", "seed", "streaming")
    options = {key: params[key] for key in keys if key in params}
    loaders = {
        split: SequenceLoader(
            feature_map,
            params[f"{split}_data"],
            histories,
            items,
            shuffle=split == "train" and params.get("shuffle", True),
            device=device,
            **options,
        )
        for split in SPLITS
    }
    for loader in loaders.values():
        if not loader.num_samples:
            raise UserError(f"{loader.samples.path}: has no samples; each split needs some")
    return loaders


def _bayes(params: dict[str, Any]) -> dict[str, float]:
    """The best possible test metrics, where the data set's card knows them."""
    card = card_beside(params["train_data"])
    names = {"AUC": "bayes_auc", "gAUC": "bayes_gauc"}
    return {metric: card[key]["test"] for metric, key in names.items() if key in card}


def _training_speed(stage_log: list[dict[str, Any]]) -> float:
    """Samples per second in the last stage, where everything trains: the median of its epochs."""
    last = stage_log[-1]["stage"]
    return statistics.median(e["samples_per_s"] for e in stage_log if e["stage"] == last)
