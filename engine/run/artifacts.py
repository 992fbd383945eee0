"""The files of a run: what they are called, who may write them, and what a resume is checked for."""

from __future__ import annotations

import fcntl
import json
import logging
import sys
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import write_json


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
        self.scalars = self.folder / "tensorboard" / self.name

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

    def keep_result_of_other_data(self, dataset_hash: str) -> None:
        """Refuse to overwrite a result: data sets of one name may differ, and it is named by that."""
        try:
            before = json.loads(self.result.read_text())["dataset_hash"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # no finished result
        if before != dataset_hash:
            raise UserError(
                f"{self.result}: is the result on other data (hash {before}, now {dataset_hash}), which "
                "this run would overwrite; write --model-root DIR, another folder, or move the file away"
            )

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

    def fit_seconds(self) -> float:
        """How long a killed run had trained at its last evaluation; 0 of a run that starts anew."""
        try:
            progress = json.loads(self.progress.read_text())
        except (OSError, ValueError):
            return 0.0
        return progress.get("fit_seconds", 0.0)  # older files lack it

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
