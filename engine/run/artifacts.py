"""The files of a run: their names, their lock, the checks before a resume, and numbers for TensorBoard."""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from model_zoo.training.progress import load_state, save_atomically, state_before

from ..common.errors import UserError
from ..common.files import lock, read_if_whole
from ..config.read import NO_NUMBERS
from .result import Progress, Result


class RunFiles:
    """The files of a run, all named by experiment id and seed.

    Keys that the command line sets make it another run, so the names also have a digest of them.

    Args:
        params: checked parameters.
        changes: the parameters that the command line sets.

    Attributes:
        identity: what makes an open run itself, as a text in JSON.
    """

    identity = ""

    def __init__(self, params: dict[str, Any], changes: dict[str, Any] | None = None) -> None:
        self.folder = Path(params["model_root"]) / params["dataset_id"]
        self.name = f"{params['model_id']}{_digest(changes or {})}_seed{params['seed']}"
        self.result = self.folder / f"{self.name}.json"
        self.state = self.folder / f"{self.name}.resume"
        self.states = self.state, state_before(self.state)
        self.progress = self.folder / f"{self.name}.progress.json"
        self.log = self.folder / f"{self.name}.log"
        self.scalars = self.folder / "tensorboard" / self.name

    @cached_property
    def started_with(self) -> dict[str, Any]:
        """The identity of the killed run whose state is there; empty if there is none."""
        saved = load_state(self.state, peek=True)
        return json.loads(saved["identity"]) if saved else {}

    def require_unchanged(self, params: dict[str, Any], code: dict[str, str]) -> None:
        """Raise a UserError if anything but the data differs between a run and its resume.

        Args:
            params: checked parameters.
            code: what else can change the numbers; it matters until the run has finished.
        """
        before, now = self.started_with, params | code
        if self.finished():
            before, now = read_if_whole(self.result, Result).get("params", {}), params
        now = json.loads(json.dumps(now))  # a file turns tuples into lists
        known = (before.keys() | now.keys()) - {"dataset_hash", *NO_NUMBERS}
        changed = sorted(key for key in known if before.get(key) != now.get(key))
        if before and changed:
            was, new = (found.get(changed[0]) for found in (before, now))
            what = f"{changed[0]} was {was!r} when the run started and is {new!r} now"
            raise UserError(f"--resume: {what}; put it back, or {self._again()}")

    def require_same_data(self, dataset_hash: str, resume: bool) -> None:
        """Raise a UserError if a run to resume, or a result to overwrite, is on other data."""
        known = {self.result: read_if_whole(self.result, Result)}
        if resume:
            known[self.state] = self.started_with
        for file, found in known.items():
            before = found.get("dataset_hash", dataset_hash)
            if before != dataset_hash:
                other = self._again()
                if file == self.result:  # starting again would overwrite it
                    other = "write --model-root DIR, another folder for results"
                what = f"is of a run on other data (hash {before}, now {dataset_hash})"
                raise UserError(f"{file}: {what}; put the data back, or {other}")

    def _again(self) -> str:
        return f"start again without --resume, or after deleting {self.state}*"

    def finished(self) -> bool:
        """Whether there is a result, and no run has started after it."""
        return self.result.exists() and not self._has_state()

    def _has_state(self) -> bool:
        return any(map(Path.exists, self.states))

    def open(self, identity: dict[str, Any], resume: bool) -> None:
        """Make the folder and start the log; without ``resume``, delete a killed run's state.

        The log is locked until ``close``, or until this process ends.

        Args:
            identity: what makes this run itself: parameters, data hash and code.
            resume: go on with a saved state if there is one.

        Raises:
            UserError: another process runs this name, or the folder cannot be written.
            TrainingError: the state cannot be written.
        """
        _end_logging()  # a run that failed may have left its log open
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handler = LogFile(self.log, mode="a")
            assert handler.stream is not None  # it is open from the start
            lock(handler.stream)
            if resume and self.finished():  # since this process looked
                what = f"another run_expid.py has just finished it, see {self.result}"
                raise UserError(f"{self.name}: {what}")
            if not resume:
                handler.stream.truncate(0)
                self._delete_states()
        except BlockingIOError:
            what = f"another run_expid.py is running it, see {self.log}"
            advice = "wait for it, or write another --seed"
            raise UserError(f"{self.name}: {what}; {advice}") from None
        except OSError as error:
            what = f"{self.folder} cannot be written ({error.strerror})"
            raise UserError(f"model_root: {what}") from None
        form = "%(asctime)s P%(process)d %(levelname)s %(message)s"
        handler.setFormatter(logging.Formatter(form))
        handlers: list[logging.Handler] = [handler, logging.StreamHandler(sys.stdout)]
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
        logging.raiseExceptions = False  # a console that cannot be written is told once, by print
        message = "Params: " + json.dumps(identity, indent=4)
        handler.handle(logging.makeLogRecord({"levelname": "INFO", "msg": message}))
        self.identity = json.dumps(identity)
        if not self._has_state():
            if resume:
                logging.info("--resume: nothing was saved, so the run starts at its beginning")
            # From now on, an earlier result is not this run's.
            save_atomically({"identity": self.identity}, self.state)

    def fit_seconds(self) -> float:
        """How long a killed run had trained at its last evaluation; 0 if the run starts anew."""
        return read_if_whole(self.progress, Progress).get("fit_seconds", 0.0)  # older files lack it

    def close(self) -> None:
        """Close the log, and delete the files that only a resume needs."""
        self._delete_states()
        _end_logging()

    def _delete_states(self) -> None:
        for file in (*self.states, self.progress):
            file.unlink(missing_ok=True)


class LogFile(logging.FileHandler):
    """A log that ends the run if it cannot be written, instead of one traceback per line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise a UserError if the file cannot be written."""
        if isinstance(error := sys.exception(), OSError):
            raise UserError(f"{self.baseFilename}: cannot be written ({error.strerror})") from None
        super().handleError(record)


def _end_logging() -> None:
    """Close log and console, since a message between two runs belongs to neither."""
    logging.basicConfig(level=logging.WARNING, handlers=[], force=True)


def _digest(changes: dict[str, Any]) -> str:
    """The part of a file name that stands for changed keys; empty if they change no number."""
    kept = {key: value for key, value in changes.items() if key not in NO_NUMBERS}
    text = json.dumps(kept, sort_keys=True)
    return f"_set_{hashlib.sha256(text.encode()).hexdigest()[:12]}" if kept else ""


class ScalarWriter:
    """Writes each evaluation of a run's stage log once; the step is the evaluation's number from 1.

    Args:
        folder: the folder of the event file. The files of an earlier run there are removed.

    Raises:
        UserError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional
        except ImportError:
            what = "needs the package tensorboard, which is not installed"
            advice = "run pip install -r requirements-extras.txt, or write False"
            raise UserError(f"tensorboard: True {what}; {advice}") from None
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._written = 0

    def write(self, stage_log: list[dict[str, Any]]) -> None:
        """Add the new evaluations, which are all evaluations so far after a resume."""
        for step, entry in enumerate(stage_log[self._written :], start=self._written + 1):
            for tag, value in scalars(entry):
                self._writer.add_scalar(tag, value, step)
        self._written = len(stage_log)
        self._writer.flush()


def scalars(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The tag and the value of each number of an evaluation that TensorBoard can draw."""
    known = ("train_loss", "learning_rate", "samples_per_s", "valid_seconds")
    for key, value in entry.items():
        if isinstance(value, float | int) and not isinstance(value, bool) and key != "epoch":
            yield (f"train/{key}" if key in known else f"valid/{key}"), value
    for branch, routing in entry["routing"].items():
        for key, value in routing.items():
            if isinstance(value, float):
                yield f"routing/{branch}/{key}", value
        for expert, share in enumerate(routing["item_share"]):
            yield f"routing/{branch}/load/{expert}", share
