"""Write the runs as JSON into the page; its script reads them and shows a run that is opened.

A text that many runs share, such as a configuration, is stored once. Numbers have six digits. What the
page does not show of the routing is left out. So hundreds of runs take a few megabytes.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ..analysis.figures.style import EXPERT_COLOURS
from ..analysis.results import Run
from .groups import PLAIN, Group

KEPT = (
    "metrics", "num_parameters", "flops_per_sample", "train_samples_per_s", "test_samples_per_s",
    "peak_memory_bytes", "seconds",
)  # fmt: skip


def embedded(known: list[Group], folder: Path) -> str:
    """Return all runs as JSON that is safe inside a ``<script>``, grouped as they are given.

    Args:
        known: configurations with their runs.
        folder: the folder that the page is about; files are named relative to it.
    """
    texts: dict[str, int] = {}
    content = {
        "groups": [
            {"expid": group.expid, "runs": [_run(run, folder, texts) for run in group.runs]}
            for group in known
        ],
        "texts": list(texts),
        "colours": EXPERT_COLOURS,
        "plain": PLAIN,
    }
    rounded = json.loads(
        json.dumps(content),
        parse_float=lambda text: float(f"{float(text):.6g}"),
        parse_constant=lambda _: None,  # JSON has no NaN
    )
    text = json.dumps(rounded, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # or a value could close the script with its own tag


def _run(run: Run, folder: Path, texts: dict[str, int]) -> dict[str, Any]:
    """Pick what the page shows of a run; ``texts`` has the place of each shared text."""
    metrics = list(run["metrics"]["valid"])
    seedless = {key: value for key, value in run["params"].items() if key != "seed"}
    return {
        "file": run["file"].relative_to(folder).as_posix(),
        "seed": run["seed"],
        "device": _device(run),
        "command": shlex.join(run["command"]),
        "config": texts.setdefault(_lines(seedless), len(texts)),
        "versions": texts.setdefault(_lines(run["versions"]), len(texts)),
        "routing": run["routing"],
        "logged": metrics,
        "log": [_stage(entry, metrics) for entry in _evaluations(run)],
        **{key: run[key] for key in KEPT},
    }


def _lines(content: dict[str, Any]) -> str:
    """Write a mapping with one line of YAML for each key."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in content.items()}
    return "".join(f"{key}: {text}\n" for key, text in texts.items())


def _device(run: Run) -> str:
    """Name the device. On a CPU the number of threads moves the last digits, so it is named too."""
    threads = run.get("threads") if run["device"] == "cpu" else None
    return f"{run['device']}, {threads} thread{'s' * (threads != 1)}" if threads else run["device"]


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """List all evaluations of a run.

    Each stage begins with the evaluation of its first weights, if there was one.
    """
    starts = {entry["stage"]: [{"epoch": 0.0} | entry] for entry in run.get("stage_start", ())}
    return [e for entry in run["stage_log"] for e in (*starts.pop(entry["stage"], ()), entry)]


def _stage(entry: dict[str, Any], metrics: list[str]) -> list[Any]:
    """Make an evaluation a list for ``page.js``: names would take more room than the numbers."""
    parts = ("item_share", "item_entropy", "switch_rate")
    routing = {n: [branch[p] for p in parts] for n, branch in entry.get("routing", {}).items()}
    loss, rate, speed = map(entry.get, ("train_loss", "learning_rate", "samples_per_s"))
    found = [entry.get(name) for name in metrics]
    return [entry["stage"], entry["epoch"], loss, found, entry["best"], rate, speed, routing]
