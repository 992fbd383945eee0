"""One experiment: from checked parameters to a trained model and its result."""

from __future__ import annotations

import fcntl
import json
import logging
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fuxictr.pytorch.torch_utils import seed_everything

from model_zoo.routing_report import routing_report
from model_zoo.staged_model import StagedModel
from model_zoo.training import TrainingError

from . import results
from .allocator import keep_freed_memory
from .compat import build_feature_map
from .datasets import ensure_generated
from .datasets.layout import SPLITS, fingerprint
from .errors import UserError
from .files import write_json
from .flops import mean_flops, num_parameters
from .loader import SequenceLoader
from .parameters import load
from .tables import Histories, ItemTable
from .zoo import AdoptedModel, build, own_words

VERSIONS = ("torch", "fuxictr", "numpy", "pandas", "polars", "pyarrow", "scikit-learn")


def run(
    config_dir: Path,
    root: Path,
    expid: str,
    seed: int | None,
    gpu: int,
    resume: bool,
    model_zoo: Path | None = None,
    data_root: Path | None = None,
    model_root: Path | None = None,
) -> dict[str, Any]:
    """Run an experiment and write its result; returns the result.

    Checkpoint, log, result and, while running, resume state and the evaluations so far are
    ``<model_root>/<dataset_id>/<expid>_seed<seed>.{model,log,json,resume,progress.json}``. None of them is
    touched before configuration and data have been checked.

    Args:
        config_dir: FuxiCTR configuration directory.
        root: where relative paths of the configuration start.
        expid: experiment id.
        seed: replaces the configuration's.
        gpu: CUDA device, -1 for the CPU.
        resume: go on with a killed run; of a finished one, return the result.
        model_zoo: folder of foreign models, see ``zoo.find_model``.
        data_root, model_root: replace the configuration's, see ``config.redirect``.

    Raises:
        UserError: bad input, or training cannot go on.
    """
    require_device(gpu)
    keep_freed_memory()
    params, model_class = load(config_dir, root, expid, seed, model_zoo, data_root, model_root)
    files = RunFiles(params)
    if resume:
        files.require_unchanged(params)
        if files.finished():
            print(f"{expid}, seed {params['seed']}: finished already, see {files.result}")
            return json.loads(files.result.read_text())
    ensure_generated(params)
    start = time.perf_counter()
    model, loaders = _build(params, model_class, gpu, files.name)
    about = _about(params)
    _keep_result_of_other_data(files.result, about["dataset_hash"])
    if resume:
        files.require_same_data(about["dataset_hash"])
    files.open(params, about["dataset_hash"], resume)
    logging.info(f"{expid}, seed {params['seed']}: {num_parameters(model):,} parameters")
    if resume and not files.state.exists():
        logging.info("--resume: nothing was saved yet, the run starts at its beginning")
    foreign = own_words(model_class, expid) if issubclass(model_class, AdoptedModel) else None
    try:
        with foreign or nullcontext():
            result = about | _train_and_evaluate(model, loaders, params, gpu, files)
    except TrainingError as error:
        raise UserError(f"{expid}, seed {params['seed']}: {error}") from None
    result["seconds"]["total"] = time.perf_counter() - start
    write_json(files.result, result)
    files.close()
    results.append_bars_line(result, config_dir)
    return result


def require_device(gpu: int) -> None:
    """Reject a CUDA device that is not there; -1 is the CPU."""
    if gpu >= 0 and (not torch.cuda.is_available() or gpu >= torch.cuda.device_count()):
        raise UserError(
            f"--gpu {gpu}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "write --gpu -1 for the CPU"
        )


class RunFiles:
    """The files of a run, all named by expid and seed."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.folder = Path(params["model_root"]) / params["dataset_id"]
        self.name = f"{params['model_id']}_seed{params['seed']}"
        self.result = self.folder / f"{self.name}.json"
        self.state = self.folder / f"{self.name}.resume"
        self.started_with = self.folder / f"{self.name}.resume.json"
        self.progress = self.folder / f"{self.name}.progress.json"
        self.log = self.folder / f"{self.name}.log"

    def require_unchanged(self, params: dict[str, Any]) -> None:
        """See to it that a resume is of the same run."""
        if self.started_with.exists():
            before = self._started()
        elif self.result.exists():
            before = json.loads(self.result.read_text())["params"]
        else:
            return
        known = before.keys() - {"dataset_hash"}
        changed = sorted(k for k in known | params.keys() if before.get(k) != params.get(k))
        if before and changed:
            raise UserError(
                f"--resume: {changed[0]} was {before.get(changed[0])!r} when the run started and "
                f"is {params.get(changed[0])!r} now; put it back, or start again without --resume"
            )

    def require_same_data(self, dataset_hash: str) -> None:
        """See to it that a resume is on the data that the run started with."""
        before = self._started().get("dataset_hash", dataset_hash)
        if before != dataset_hash:
            raise UserError(
                f"--resume: the data had hash {before} when the run started and has {dataset_hash} now; "
                "put it back, or start again without --resume"
            )

    def _started(self) -> dict[str, Any]:
        """What the run started with; empty if that is not known, and then the run starts again."""
        try:
            return json.loads(self.started_with.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:  # a crash of the machine while it was written
            self.state.unlink(missing_ok=True)
            return {}

    def finished(self) -> bool:
        """Whether there is a result, and no run was started since."""
        return self.result.exists() and not self.started_with.exists()

    def open(self, params: dict[str, Any], dataset_hash: str, resume: bool) -> None:
        """Make the folder and start the log; without ``resume``, forget what a killed run saved.

        The log is locked for as long as this process lives.

        Raises:
            UserError: another process runs this expid and seed, or the folder cannot be written.
        """
        root = logging.getLogger()
        for old in root.handlers[:]:  # of the run before, with its lock
            root.removeHandler(old)
            old.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handler = LogFile(self.log, mode="a")
            fcntl.flock(handler.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if resume and self.finished():  # since this process looked
                raise UserError(
                    f"{self.name}: another run_expid.py has just finished it, see {self.result}"
                )
            if not resume:
                handler.stream.truncate(0)
        except BlockingIOError:
            raise UserError(
                f"{self.name}: another run_expid.py is running it, see {self.log}; wait for it, or "
                "write another --seed"
            ) from None
        except OSError as error:
            raise UserError(
                f"model_root: {self.folder} cannot be written ({error.strerror})"
            ) from None
        handler.setFormatter(
            logging.Formatter("%(asctime)s P%(process)d %(levelname)s %(message)s")
        )
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
        root.addHandler(console)
        root.setLevel(logging.INFO)
        logging.raiseExceptions = False  # a console that cannot be written is told once, by print
        message = "Params: " + json.dumps(params, indent=4, default=str)
        handler.handle(logging.makeLogRecord({"levelname": "INFO", "msg": message}))
        if not resume:
            self.state.unlink(missing_ok=True)
            self.progress.unlink(missing_ok=True)
        write_json(self.started_with, params | {"dataset_hash": dataset_hash})

    def close(self) -> None:
        """A finished run needs nothing to resume from."""
        self.started_with.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)
        self.progress.unlink(missing_ok=True)


class LogFile(logging.FileHandler):
    """A log that cannot be written ends the run, instead of a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        raise UserError(f"{self.baseFilename}: cannot be written ({error.strerror})") from None


def _build(
    params: dict[str, Any], model_class: type[StagedModel], gpu: int, name: str
) -> tuple[StagedModel, dict[str, SequenceLoader]]:
    """The model with its first weights, and the loaders of the checked data."""
    seed_everything(params["seed"])
    feature_map = build_feature_map(params)
    loaders = make_loaders(params, feature_map, f"cuda:{gpu}" if gpu >= 0 else "cpu")
    expid, params = params["model_id"], {**params, "model_id": name, "gpu": gpu}
    model = build(model_class, feature_map, params, expid)
    with own_words(model_class, expid):
        mean_flops(model, next(iter(loaders["test"])), samples=1)  # fail now, not after training
    return model, loaders


def _keep_result_of_other_data(path: Path, dataset_hash: str) -> None:
    """Data sets of one name may differ, and results are named by it."""
    try:
        before = json.loads(path.read_text())["dataset_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no finished result
    if before != dataset_hash:
        raise UserError(
            f"{path}: is the result on other data (hash {before}, now {dataset_hash}), which this "
            "run would overwrite; write --model-root DIR, another folder, or move the file away"
        )


def _about(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that is known before training."""
    data = ("train_data", "valid_data", "test_data", "user_info", "item_info")
    return {
        "status": "done",
        "expid": params["model_id"],
        "seed": params["seed"],
        "model": params["model"],
        "dataset_id": params["dataset_id"],
        "dataset_hash": fingerprint(params[key] for key in data),
        "bayes": _bayes(params),
        "versions": {name: version(name) for name in VERSIONS},
        "command": ["python", *sys.argv],
        "params": params,
    }


def _train_and_evaluate(
    model: StagedModel,
    loaders: dict[str, SequenceLoader],
    params: dict[str, Any],
    gpu: int,
    files: RunFiles,
) -> dict[str, Any]:
    """The part of a result that is measured."""
    if gpu >= 0:
        torch.cuda.reset_peak_memory_stats(gpu)
    start = time.perf_counter()
    model.fit(
        loaders["train"],
        validation_data=loaders["valid"],
        resume_file=str(files.state),
        on_evaluation=lambda stage_log: write_json(files.progress, {"stage_log": stage_log}),
        **params,
    )
    fit_seconds = time.perf_counter() - start
    logging.info("****** Validation evaluation ******")  # headings as FuxiCTR's
    metrics = {"valid": model.evaluate(loaders["valid"])}
    logging.info("******** Test evaluation ********")
    start = time.perf_counter()
    try:
        metrics["test"] = model.evaluate(loaders["test"])
    except ValueError as error:
        raise TrainingError(f"test: {error}") from None
    test_seconds = time.perf_counter() - start
    return {
        "metrics": metrics,
        "routing": routing_report(model, loaders["test"]),
        "stage_log": model.stage_log,
        "num_parameters": num_parameters(model),
        "flops_per_sample": mean_flops(model, next(iter(loaders["test"]))),
        "train_samples_per_s": _training_speed(model.stage_log),
        "test_samples_per_s": len(loaders["test"].samples) / test_seconds,
        "peak_memory_bytes": peak_memory(gpu),
        "seconds": {"fit": fit_seconds, "test": test_seconds},
        "device": torch.cuda.get_device_name(gpu) if gpu >= 0 else "cpu",
    }


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


def peak_memory(gpu: int) -> int:
    """Peak bytes: of the GPU's allocator, or of the process since it started."""
    if gpu >= 0:
        return torch.cuda.max_memory_allocated(gpu)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _bayes(params: dict[str, Any]) -> dict[str, float]:
    """The best possible test metrics, where the data set's card knows them."""
    card = Path(params["data_root"]) / params["dataset_id"] / "dataset_card.json"
    if not card.exists():
        return {}
    try:
        card = json.loads(card.read_text())
    except ValueError as error:
        raise UserError(f"{card}: not a card ({error}); prepare the data again") from None
    names = {"AUC": "bayes_auc", "gAUC": "bayes_gauc"}
    return {metric: card[key]["test"] for metric, key in names.items() if key in card}


def _training_speed(stage_log: list[dict[str, Any]]) -> float:
    """Samples per second in the last stage, where everything trains: the median of its epochs."""
    last = stage_log[-1]["stage"]
    return statistics.median(e["samples_per_s"] for e in stage_log if e["stage"] == last)
