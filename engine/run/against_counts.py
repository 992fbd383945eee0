"""What a run says about the counting baseline of its data: no model should lose to it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from ..baseline import record
from ..datasets.prepared.card import CARD

Result = dict[str, Any]
Baselines = dict[int, record.Entry | None]  # by max_len


def baselines_of(runs: list[Result]) -> Baselines:
    """The baseline for each ``max_len`` of runs on one data set; None where it was not measured."""
    own = {run["params"]["max_len"]: run for run in runs}
    return {n: record.of(_folder(run), run["dataset_hash"], n) for n, run in own.items()}


def verdicts(runs: list[Result], baselines: Baselines) -> list[str]:
    """A line for each experiment that loses to the baseline, or the command that measures it."""
    lines = []
    for max_len, entry in baselines.items():
        tests: dict[str, list[float]] = {}
        for run in (run for run in runs if run["params"]["max_len"] == max_len):
            data, results = Path(run["params"]["train_data"]).parent, _folder(run)
            tests.setdefault(run["expid"], []).append(run["metrics"]["test"].get("AUC", 1.0))
        if entry:
            best = entry["metrics"][record.ALL]["test"]["AUC"]
            lines += [
                f"{expid} loses to the counting baseline, which is no neural model: test AUC "
                f"{fmean(found):.4f} against {best:.4f}"
                for expid, found in tests.items()
                if fmean(found) < best
            ]
        elif (data / CARD).exists():
            how = record.command(data, results, max_len)
            lines.append(
                f"the counting baseline, which these models should beat, is missing: {how}"
            )
    return lines


def _folder(run: Result) -> Path:
    """The folder of the results of a run."""
    return Path(run["params"]["model_root"], run["params"]["dataset_id"])
