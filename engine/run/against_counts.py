"""What a run says about the counting baseline of its data: no model should lose to it."""

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
        own = [run for run in runs if run["params"]["max_len"] == max_len]
        if entry is None:
            lines += _missing(own[0], max_len)
            continue
        best, tests = entry["metrics"][record.ALL]["test"]["AUC"], dict[str, list[float]]()
        for run in own:
            tests.setdefault(run["expid"], []).append(run["metrics"]["test"].get("AUC", 1.0))
        lines += [
            f"{expid} loses to the counting baseline, which is no neural model: test AUC "
            f"{fmean(found):.4f} against {best:.4f}"
            for expid, found in tests.items()
            if fmean(found) < best
        ]
    return lines


def _missing(run: Result, max_len: int) -> list[str]:
    """The command that measures the baseline of a run, if its data were prepared here."""
    data, results = Path(run["params"]["train_data"]).parent, _folder(run)
    if not (data / CARD).exists():
        return []
    others = ", ".join(map(str, record.lengths(results, run["dataset_hash"])))
    length = f"{max_len}, but for {others}" if others else max_len
    said = f"the counting baseline to beat was not measured for max_len {length}"
    return [f"{said}: {record.command(data, results, max_len)}"]


def _folder(run: Result) -> Path:
    """The folder of the results of a run."""
    return Path(run["params"]["model_root"], run["params"]["dataset_id"])
