"""The output folder of a tuner: its files, and a lock that only one tuner at a time can hold."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ..common.errors import UserError
from ..common.files import lock, read_if_whole, read_json, write_json, write_yaml, writing
from ..run.result import Progress, Result
from .space import Space
from .trial import Status, Trial


class Folder:
    """Reads and writes the files of a tuner. Each is written under another name and then renamed.

    Attributes:
        path: the folder itself. It is also a FuxiCTR configuration directory with all trials.
        runs: the ``model_root`` of the runs, and their working directory.
        best: the configuration directory with the best trial.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.runs = self.path / "runs"
        self.best = self.path / "best"
        self._trials = self.path / "trials"
        self._lock: TextIO

    def open(self) -> None:
        """Make the folder, and lock it for as long as this process lives.

        Raises:
            UserError: the folder has a configuration that no tuner has written, or another tuner uses it,
                or it cannot be written.
        """
        if (self.path / "model_config.yaml").exists() and not self._trials.exists():
            what = "has a configuration that no tuner has written"
            raise UserError(f"--output {self.path}: {what}; write another folder")
        with writing(f"--output {self.path}"):
            for path in (self.runs, self._trials):
                path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "tuner.lock", "a+")  # noqa: SIM115
        self._lock.seek(0)
        process = self._lock.read() or "unknown"
        try:
            lock(self._lock)
        except BlockingIOError:
            self.close()
            what = f"another tuner or study is using it, process {process}"
            raise UserError(f"{self.path}: {what}; wait, or write another --output") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def log(self, trial: Trial) -> Path:
        """The file with the output of a trial's runs."""
        return self._trials / f"{trial.name}.log"

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """The result of a trial's finished run; None if there is none that can be read."""
        return read_if_whole(self.runs / f"{trial.run_name}.json", Result) or None

    def evaluations(self, trial: Trial) -> list[dict[str, Any]]:
        """The evaluations of a trial's run so far, or of the whole run after its end."""
        files = (f"{trial.run_name}.json", f"{trial.run_name}.progress.json")
        found = (read_if_whole(self.runs / file, Progress) for file in files)
        return next((content["stage_log"] for content in found if "stage_log" in content), [])

    def save(self, trial: Trial) -> None:
        """Write the status file of a trial."""
        write_json(self._status(trial), trial.to_json())

    def restore(self, trial: Trial) -> None:
        """Restore a trial from its status file, if there is one."""
        file = self._status(trial)
        if file.exists():
            trial.restore(read_json(file, Status, "delete it to run the trial again"))
            trial.require_monitored(file)

    def started(self, space: Space) -> Iterator[Trial]:
        """The trials that earlier calls have started with values of this space, sorted by name."""
        for file in sorted(self._trials.glob(f"{space.expid}_*.json")):
            tuned = read_if_whole(file, Status).get("tuned", {})
            fits = all(tuned.get(key) in values for key, values in space.choices.items())
            if fits and tuned.keys() == space.choices.keys():
                trial = space.trial(tuned)
                self.restore(trial)
                if trial.attempts:
                    yield trial

    def write_config(self, path: Path, space: Space, trials: dict[str, Trial], root: str) -> None:
        """Write ``model_config.yaml`` and ``dataset_config.yaml``.

        Args:
            path: the folder of the two files.
            space: the experiment that the trials vary.
            trials: the trials by the experiment id that each gets.
            root: the ``model_root`` of the experiments.
        """
        entries = {}
        for expid, trial in trials.items():
            entries[expid], _ = space.split(trial.final_params())
            entries[expid]["model_root"] = root
        _, dataset = space.split({})
        path.mkdir(exist_ok=True)
        write_yaml(path / "model_config.yaml", entries)
        write_yaml(path / "dataset_config.yaml", {space.model["dataset_id"]: dataset})

    def require_same_data(self, trials: Iterable[Trial], expected: str | None = None) -> None:
        """Raise a UserError if a finished trial ran on other data and so cannot be compared.

        Args:
            trials: the trials; a trial without a result is skipped.
            expected: the hash of the data; None takes that of the first result.
        """
        for trial in trials:
            found = trial.dataset_hash
            expected = expected or found
            if found not in (None, expected):
                what = f"{trial.name} ran on other data (hash {found}, not {expected})"
                files = f"{self._status(trial)} and {self.runs / trial.run_name}.json"
                advice = f"take another folder than {self.path}, or delete {files} to run it again"
                raise UserError(f"{what}; put the data back, {advice}")

    def _status(self, trial: Trial) -> Path:
        return self._trials / f"{trial.name}.json"
