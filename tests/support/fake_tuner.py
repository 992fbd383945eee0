"""The tuner on ``fake_run.py``: in this process, or to be killed, ``python -m tests.support.fake_tuner FOLDER``.

A second argument is a number of trials for Optuna, or ``ray``.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from engine.common.errors import run_command
from engine.config.options import RunOptions
from engine.tuner import scheduler
from engine.tuner.command import make_engine, make_search, run_and_report
from engine.tuner.engines import Engine, LocalEngine
from engine.tuner.folder import Folder
from engine.tuner.search import Search
from engine.tuner.space import Space, read_space

from .command_line import ROOT, environment

scheduler.POLL_SECONDS = 0.02  # a run that only pretends ends soon
FAKE_RUN = Path(__file__).with_name("fake_run.py")
MODEL = {
    "model": "TWIN_MoS",
    "dataset_id": "tiny",
    "seed": 1,
    "monitor": {"AUC": 1, "gAUC": 1},
    "batch_size": 128,
    "learning_rate": 0.001,
    "topk": 1,
    "model_root": "./checkpoints/",
}
DATASET = {
    "data_format": "parquet",
    "train_data": "data/tiny/train.parquet",
    "rebuild_dataset": False,
    "max_len": 50,
}


class FakeTuner:
    """A folder with a tuner file, a plan for ``fake_run.py``, and the tuner's output ``out``."""

    def __init__(self, path: Path) -> None:
        self.path, self.out = path, path / "out"
        self.file, self.plan = path / "tuner.yaml", path / "plan.json"

    def write(self, choices: dict[str, Any], **plan: Any) -> None:
        """Write tuner file and plan."""
        content = {
            "base_expid": "TWIN_MoS_tiny",
            "model_config": {"TWIN_MoS_tiny": MODEL},
            "dataset_config": {"tiny": DATASET},
            "tuner_space": choices,
        }
        self.file.write_text(yaml.safe_dump(content))
        self.plan.write_text(json.dumps({"epochs": 2, "seconds": 0, "modes": {}} | plan))

    def space(self) -> Space:
        return read_space(self.file, RunOptions(home=self.path))

    def run(
        self,
        jobs: int = 2,
        tag: str = "",
        trials: int | None = None,
        engine: Engine | None = None,
    ) -> int:
        """Run the tuner; returns the exit code."""
        space, folder = self.space(), Folder(self.out)
        folder.open()
        try:
            self.search: Search = make_search(space, folder, tag, trials)
            engine = engine or LocalEngine([-1], jobs)
            command = [sys.executable, str(FAKE_RUN), str(self.plan), str(self.out)]
            options = RunOptions(home=self.path)
            return run_and_report(folder, self.search, engine, command, options)
        finally:
            folder.close()

    def status(self) -> dict[str, dict[str, Any]]:
        """The status files by trial."""
        files = sorted((self.out / "trials").glob("*.json"))
        return {file.stem: json.loads(file.read_text()) for file in files}

    def by_topk(self) -> dict[Any, dict[str, Any]]:
        """The status files by the tuned ``topk``."""
        return {status["tuned"]["topk"]: status for status in self.status().values()}

    def reports(self) -> dict[str, str]:
        """Table, leaderboards and best experiment."""
        names = ("table.md", "leaderboard.csv", "bars_leaderboard.csv")
        names += ("best/model_config.yaml", "best/dataset_config.yaml")
        return {name: (self.out / name).read_text() for name in names}

    def starts(self, expid: str) -> int:
        """How many times a run was started."""
        return len((self.out / "runs" / "tiny" / f"{expid}_seed1.starts").read_text().split())


def start(tuner: FakeTuner, *arguments: str) -> subprocess.Popen[str]:
    """The tuner in a process of its own; ``arguments`` are those of this file."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_tuner", str(tuner.path), *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    tuner = FakeTuner(Path(sys.argv[1]))
    how = sys.argv[2] if len(sys.argv) > 2 else ""
    run_command(
        lambda: tuner.run(
            trials=int(how) if how.isdigit() else None,
            engine=make_engine([-1], 1, ray=True) if how == "ray" else None,
        ),
        "the same command goes on",
    )
