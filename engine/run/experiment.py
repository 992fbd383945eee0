"""Run one experiment, from checked parameters to a trained model and its result."""

import hashlib
import logging
import platform
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.torch_utils import seed_everything
from torch.nn.modules.batchnorm import _BatchNorm

from model_zoo import ranks
from model_zoo.backbones.din import Dice
from model_zoo.layers.batch_norm import over_ranks
from model_zoo.training.base_model import StagedModel
from model_zoo.training.progress import TrainingError, digest_of
from model_zoo.training.routing_report import routing_report
from model_zoo.training.trainable import log_metrics

from ..common.errors import UserError
from ..common.files import read_json, write_json
from ..config.feature_map import build_feature_map
from ..config.load import Experiment
from ..config.models import AdoptedModel, build, own_words
from ..config.read import DATA_FILES, Params
from ..datasets import ensure_generated
from ..datasets.prepared import facts
from ..datasets.prepared.card import SPLITS, card_beside, data_hash, recorded_hash
from ..datasets.writing import encoders
from ..loader.columnar import Histories, ItemTable
from ..loader.loader import SequenceLoader
from . import summary as results
from .artifacts import RunFiles, ScalarWriter
from .cpu import set_up_cpu
from .devices import peak_memory, require_devices
from .flops import flops_per_sample, num_parameters, spread_batch
from .result import Result
from .serving_time import serving_ms
from .trained import require_weights_of_result
from .vectors import forget_vectors, load_vectors

Loaders = dict[str, SequenceLoader]  # by split
CODE = ("run_expid.py", "engine", "model_zoo")
COMPUTES = ("model_zoo", "engine/loader", "engine/run")
LOOKED_AT = 20_000  # training samples in which no feature may be the label
VERSIONS = ("torch", "fuxictr", "numpy", "pandas", "polars", "pyarrow", "scikit-learn")


def run(experiment: Experiment) -> dict[str, Any]:
    """Run an experiment, write its result and return it.

    Its files are ``<model_root>/<dataset_id>/<expid>_seed<seed>.{model,log,json}``, which are the
    checkpoint, the log and the result. While it runs, ``.resume`` and ``.progress.json`` hold the
    state and the evaluations so far. With ``tensorboard: True`` there is also the folder
    ``tensorboard/<expid>_seed<seed>``. No file is touched before the data has been checked.
    Where several processes train, the first alone writes, and its result is the one that counts.

    Raises:
        UserError: the input is wrong, or training cannot go on.
    """
    params, options = experiment.params, experiment.options
    expid, resume = params["model_id"], options.resume
    require_devices(options.gpu)
    set_up_cpu()
    peak = peak_memory(options.gpu)
    files = RunFiles(params, experiment.changes)
    code = code_of(params.get("model_zoo")) | {"ranks": ranks.size()}
    if resume and (result := ranks.on_first(partial(_finished, experiment, files, code))):
        return result
    ensure_generated(params)
    start = time.perf_counter()
    model, loaders = _build(experiment, files.name)
    about = _about(experiment)

    def open_files() -> None:
        files.require_same_data(about["dataset_hash"], resume)
        files.open(params | code | {"dataset_hash": about["dataset_hash"]}, resume)

    foreign = issubclass(experiment.model_class, AdoptedModel)
    try:
        ranks.on_first(open_files)
        before = files.fit_seconds()
        logging.info(f"{expid}, seed {params['seed']}: {num_parameters(model):,} parameters")
        if params.get("match_features") and params["match_windows"] is None:
            logging.info("match_features: no times, for the data have none, or of no known unit")
        with own_words(experiment.model_class, expid) if foreign else nullcontext():
            fit_seconds = _train(model, loaders, params, files)
            result = about | _evaluate(model, loaders, params["metrics"])
            result["weights"] = digest_of(model.checkpoint)
    except TrainingError as error:
        raise UserError(f"{expid}, seed {params['seed']}: {error}") from None
    result["device"] = torch.cuda.get_device_name(options.gpu) if options.gpu >= 0 else "cpu"
    result["peak_memory_bytes"] = peak()
    result["seconds"] |= {"fit": fit_seconds, "total": before + time.perf_counter() - start}

    def close_files() -> None:
        write_json(files.result, result)
        files.close()
        results.append_bars_line(result, options.config)

    ranks.on_first(close_files)
    return result


def _finished(
    experiment: Experiment, files: RunFiles, code: dict[str, Any]
) -> dict[str, Any] | None:
    """The result of a run to resume if it has finished, else None."""
    params, options = experiment.params, experiment.options
    files.require_unchanged(params, code)
    if not files.finished():
        return None
    if data := recorded_hash([params[key] for key in DATA_FILES]):
        files.require_same_data(data, resume=True)
    print(f"{params['model_id']}, seed {params['seed']}: finished already, see {files.result}")
    result = read_json(files.result, Result, "delete it to run again")
    results.append_bars_line(result, options.config)  # which a kill may have kept from it
    return result


def _build(experiment: Experiment, name: str) -> tuple[StagedModel, Loaders]:
    """Build the model with its initial weights, and the loaders of the checked data."""
    params, model_class, gpu = experiment.params, experiment.model_class, experiment.options.gpu
    seed_everything(params["seed"])
    feature_map = build_feature_map(params)
    load_vectors(params, feature_map, model_class)
    if start := params.get("init_from"):
        require_weights_of_result(Path(start))
    loaders = make_loaders(params, feature_map, f"cuda:{gpu}" if gpu >= 0 else "cpu")
    require_no_label(loaders["train"], feature_map)
    expid, params = params["model_id"], {**params, "model_id": name, "gpu": gpu}
    model = build(model_class, feature_map, params, expid)
    forget_vectors(feature_map)
    with own_words(model_class, expid), torch.no_grad():
        model.eval()(next(iter(loaders["test"])))  # fail now, not after training
    _divide(model, loaders, expid)
    return model, loaders


def _divide(model: StagedModel, loaders: Loaders, expid: str) -> None:
    """Give each rank its share of every batch, and batch norm the samples of all ranks, two at least.

    Raises:
        UserError: there are several ranks and batch norm in experts, or a batch without a sample for
            each rank.
    """
    batch_norm, size = any(isinstance(m, _BatchNorm) for m in model.modules()), ranks.size()
    if size > 1:
        over_ranks(model)
        parts = (part for branch in model.branches.values() for part in branch.modules())
        if norms := [part for part in parts if isinstance(part, _BatchNorm | Dice)]:
            what = f"{type(norms[0]).__name__} in experts needs the whole batch, but a process does not"
            advice = (
                "leave it out (as for DIN attention_hidden_activations: ReLU), or start one process"
            )
            raise UserError(f"{expid}: {what} run all experts; {advice}")
    for loader in loaders.values():
        if (least := min(loader.batch_size, loader.num_samples)) < size:
            what = f"a batch has {least} samples for {size} processes"
            raise UserError(f"{loader.samples.path}: {what}; start fewer of them")
        loader.share, loader.least = ranks.share(), size
    loaders["train"].least = max(size, 1 + batch_norm)


def _about(experiment: Experiment) -> dict[str, Any]:
    """The part of a result that is known before training."""
    params = experiment.params
    card = card_beside(params["train_data"])
    bayes = {"AUC": "bayes_auc", "gAUC": "bayes_gauc"}  # the best possible metrics, where known
    return {
        "status": "done",
        "expid": params["model_id"],
        **{key: params[key] for key in ("seed", "model", "dataset_id")},
        "dataset_hash": data_hash(params[key] for key in DATA_FILES),
        "encoders": encoders.digest(Path(params["train_data"]).parent),
        "bayes": {name: card[key]["test"] for name, key in bayes.items() if key in card},
        "negatives": card.get("negatives"),
        "versions": _versions(),
        "ranks": ranks.size(),
        "threads": torch.get_num_threads(),  # they share sums, which moves the last digits
        "command": ["python", *sys.argv],
        "set": experiment.changes,
        "params": params,
    }


@cache  # code that changes after the first run is not the code that this process runs
def code_of(model_zoo: str | None = None) -> dict[str, str]:
    """The version of torch, and a digest of the code that computes a run's numbers.

    Args:
        model_zoo: folder of foreign models.
    """
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for folder in filter(None, (model_zoo, *COMPUTES)):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root / folder)}\n".encode() + path.read_bytes())
    return {"torch": torch.__version__, "the digest of the code": digest.hexdigest()[:12]}


@cache
def _versions() -> dict[str, str]:
    """The versions of Python, of the packages and, in a git checkout, of this code."""
    packages = {name: version(name) for name in VERSIONS}
    commit = commit_of(Path(__file__).parents[2])
    return {"python": platform.python_version()} | packages | ({"commit": commit} if commit else {})


def _train(model: StagedModel, loaders: Loaders, params: Params, files: RunFiles) -> float:
    """Train to the end, and return the seconds that it took, including those before a kill."""
    start = time.perf_counter() - files.fit_seconds()
    writes = params.get("tensorboard") and not ranks.rank()
    scalars = ScalarWriter(files.scalars) if writes else None

    def on_evaluation(stage_log: list[dict[str, Any]]) -> None:
        seconds = time.perf_counter() - start
        write_json(files.progress, {"stage_log": stage_log, "fit_seconds": seconds})
        if scalars is not None:
            scalars.write(stage_log)

    saved: dict[str, Any] = {"resume_file": str(files.state), "on_evaluation": on_evaluation}
    saved["identity"] = files.identity
    model.fit(loaders["train"], loaders["valid"], **saved, **params)
    return time.perf_counter() - start


def _evaluate(model: StagedModel, loaders: Loaders, metrics: list[str]) -> dict[str, Any]:
    """The part of a result that is measured on the trained model."""
    stage = model.stage_log[-1]["stage"]  # the last one, in which everything trains
    evaluated = (*model.stage_start, *model.stage_log)
    best = [entry for entry in evaluated if entry["stage"] == stage and entry["best"]][-1]
    valid = {metric: best[metric] for metric in metrics}
    speeds = [entry["samples_per_s"] for entry in model.stage_log if entry["stage"] == stage]
    logging.info("****** Validation evaluation ******")  # headings as FuxiCTR's
    log_metrics(valid, model.negative_sampling_rate)
    logging.info("******** Test evaluation ********")
    start = time.perf_counter()
    try:
        test = model.evaluate(loaders["test"], skip_undefined=True)
    except ValueError as error:
        logging.warning(f"test: {error}; the result has the metrics of validation only")
        test = {}
    test_seconds = time.perf_counter() - start
    batch = spread_batch(loaders["test"])
    flops = flops_per_sample(model, batch)
    return {
        "metrics": {"valid": valid, "test": test},
        "routing": routing_report(model, loaders["test"]),
        "stage_log": model.stage_log,
        "stage_start": model.stage_start,
        "num_parameters": num_parameters(model),
        "flops_per_sample": flops.mean,
        "flops_per_sample_error": flops.error,
        "train_samples_per_s": statistics.median(speeds),  # over the evaluations
        "test_samples_per_s": len(loaders["test"].samples) / test_seconds,
        "serving_ms": serving_ms(model, batch, loaders["test"].max_len),
        "seconds": {"test": test_seconds},
    }


def make_loaders(params: Params, feature_map: FeatureMap, device: str) -> Loaders:
    """The loader of each split; they share all tables and the index of matches.

    Raises:
        UserError: a file is damaged, or a split has no samples.
    """
    histories, items = Histories(params["user_info"]), ItemTable(params["item_info"], feature_map)
    shared = params | {"user_info": histories, "item_info": items, "device": device}
    loaders = {}
    for split in SPLITS:
        options = shared | {"shuffle": split == "train" and params.get("shuffle", True)}
        loaders[split] = SequenceLoader(feature_map, params[f"{split}_data"], **options)
        shared |= {"match_features": loaders[split].matches, "event_cols": loaders[split].events}
    return loaders


def require_no_label(loader: SequenceLoader, feature_map: FeatureMap) -> None:
    """Refuse a feature that equals the label in some samples, and warn of one that alone tells it."""
    columns = next(loader.samples.batches(LOOKED_AT, np.random.default_rng(loader.seed)))
    index = torch.from_numpy(columns["item_index"])
    for name, table in loader.items.tables.items():
        columns[name] = table[index.to(table.device)].cpu().numpy()
    found = facts.of_features(columns, feature_map.features, feature_map.labels[0])
    for error in facts.errors(found):
        raise UserError(f"{loader.samples.path}: {error}")
    if ranks.rank() == 0:
        for warning in facts.warnings(found, None):
            print(f"warning: {loader.samples.path}: {warning}", file=sys.stderr)


def commit_of(root: Path) -> str:
    """The commit that is checked out in ``root``, with ``-dirty`` at its end if code was changed.

    It is empty without git, and if ``root`` only lies inside another repository.
    """

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", *words]
        return subprocess.check_output(command, cwd=root, stderr=subprocess.DEVNULL, text=True)

    try:
        if not git("ls-files", "--", *CODE):
            return ""
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        return commit + ("-dirty" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):  # no git, no checkout, or no commit yet
        return ""
