"""The files of a run: their names, their lock, and the checks before a resume."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import lock, read_if_whole, write_json
from ..config.read import NO_NUMBERS


class RunFiles:
    """The files of a run, all named by experiment id and seed.

    Keys that the command line sets make it another run, so the names also have a digest of them.

    Args:
        params: checked parameters.
        changes: the parameters that the command line sets.
    """

    def __init__(self, params: dict[str, Any], changes: dict[str, Any] | None = None) -> None:
        self.folder = Path(params["model_root"]) / params["dataset_id"]
        self.name = f"{params['model_id']}{_digest(changes or {})}_seed{params['seed']}"
        self.result = self.folder / f"{self.name}.json"
        self.state = self.folder / f"{self.name}.resume"
        self.started_with = self.folder / f"{self.name}.resume.json"
        self.progress = self.folder / f"{self.name}.progress.json"
        self.log = self.folder / f"{self.name}.log"
        self.scalars = self.folder / "tensorboard" / self.name

    def require_unchanged(self, params: dict[str, Any]) -> None:
        """Raise a UserError if a parameter that can change the result differs on resume."""
        before = read_if_whole(self.result).get("params", {})
        if self.started_with.exists():
            before = read_if_whole(self.started_with)
            if not before:  # the machine crashed while the file was written: the run starts again
                self.state.unlink(missing_ok=True)
        now = json.loads(json.dumps(params))  # a file turns tuples into lists
        known = (before.keys() | now.keys()) - {"dataset_hash", *NO_NUMBERS}
        changed = sorted(key for key in known if before.get(key) != now.get(key))
        if before and changed:
            raise UserError(
                f"--resume: {changed[0]} was {before.get(changed[0])!r} when the run started and "
                f"is {now.get(changed[0])!r} now; put it back, or start again without --resume"
            )

    def require_same_data(self, dataset_hash: str, resume: bool) -> None:
        """Raise a UserError if a run to resume, or a result to overwrite, is on other data."""
        for file in (self.result, self.started_with) if resume else (self.result,):
            before = read_if_whole(file).get("dataset_hash", dataset_hash)
            if before != dataset_hash:
                other = "start again without --resume"
                if file == self.result:  # starting again would overwrite it
                    other = "write --model-root DIR, another folder for results"
                raise UserError(
                    f"{file}: is of a run on other data (hash {before}, now {dataset_hash}); put the "
                    f"data back, or {other}"
                )

    def finished(self) -> bool:
        """Whether there is a result, and no run has started after it."""
        return self.result.exists() and not self.started_with.exists()

    def open(self, params: dict[str, Any], dataset_hash: str, resume: bool) -> None:
        """Make the folder and start the log; without ``resume``, delete a killed run's state.

        The log is locked until ``close``, or until this process ends.

        Raises:
            UserError: another process runs this name, or the folder cannot be written.
        """
        _end_logging()  # a run that failed may have left its log open
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handler = LogFile(self.log, mode="a")
            assert handler.stream is not None  # it is open from the start
            lock(handler.stream)
            if resume and self.finished():  # since this process looked
                raise UserError(
                    f"{self.name}: another run_expid.py has just finished it, see {self.result}"
                )
            if not resume:
                handler.stream.truncate(0)
                self.state.unlink(missing_ok=True)
                self.progress.unlink(missing_ok=True)
        except BlockingIOError:
            raise UserError(
                f"{self.name}: another run_expid.py is running it, see {self.log}; wait for it, or "
                "write another --seed"
            ) from None
        except OSError as error:
            raise UserError(
                f"model_root: {self.folder} cannot be written ({error.strerror})"
            ) from None
        form = "%(asctime)s P%(process)d %(levelname)s %(message)s"
        handler.setFormatter(logging.Formatter(form))
        handlers: list[logging.Handler] = [handler, logging.StreamHandler(sys.stdout)]
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
        logging.raiseExceptions = False  # a console that cannot be written is told once, by print
        message = "Params: " + json.dumps(params, indent=4, default=str)
        handler.handle(logging.makeLogRecord({"levelname": "INFO", "msg": message}))
        write_json(self.started_with, params | {"dataset_hash": dataset_hash})

    def fit_seconds(self) -> float:
        """How long a killed run had trained at its last evaluation; 0 if the run starts anew."""
        return read_if_whole(self.progress).get("fit_seconds", 0.0)  # older files lack it

    def close(self) -> None:
        """Close the log, and delete the files that only a resume needs."""
        for file in (self.started_with, self.state, self.progress):
            file.unlink(missing_ok=True)
        _end_logging()


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
