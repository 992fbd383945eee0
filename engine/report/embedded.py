"""The runs as JSON for the page's script, which shows one when it is opened.

A text that many runs share, such as a configuration, is stored once. Numbers have six digits, shares
four; of the stages' routing only what the page shows is kept. This makes hundreds of runs a few megabytes.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import yaml

from ..analysis.figures.style import EXPERT_COLOURS
from ..analysis.results import Run
from .leaderboard import LOSSES, Group


def embedded(known: list[Group], folder: Path) -> str:
    """JSON of all runs, by group in the given order, safe inside a ``<script>``.

    Args:
        folder: that the page is about; files are named relative to it.
    """
    texts: dict[str, int] = {}
    content = {
        "groups": [
            {"expid": group.expid, "runs": [_run(run, folder, texts) for run in group.runs]}
            for group in known
        ],
        "texts": list(texts),
        "colours": [_colour(colour) for colour in EXPERT_COLOURS],
        "losses": LOSSES,
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")  # or a value could close the script with its own tag


def _colour(colour: str) -> str:
    """A colour of the figures for CSS, which does not know greys as fractions."""
    return colour if colour.startswith("#") else "#" + 3 * f"{round(255 * float(colour)):02x}"


def _run(run: Run, folder: Path, texts: dict[str, int]) -> dict[str, Any]:
    def shared(content: dict[str, Any], flow: bool | None = None) -> int:
        text = yaml.safe_dump(content, default_flow_style=flow, sort_keys=False, width=100)
        return texts.setdefault(text, len(texts))

    metrics = list(run["metrics"]["valid"])
    seedless = {key: value for key, value in run["params"].items() if key != "seed"}
    numbers = {
        key: run[key] for key in (
            "metrics", "num_parameters", "flops_per_sample", "train_samples_per_s", "test_samples_per_s",
            "peak_memory_bytes", "seconds",
        )
    }  # fmt: skip
    return {
        "file": run["file"].relative_to(folder).as_posix(),
        "seed": run["seed"],
        "device": _device(run),
        "command": shlex.join(run["command"]),
        "config": shared(seedless),
        "versions": shared(run["versions"], flow=False),
        "routing": rounded(run["routing"], 4),
        "logged": metrics,
        "log": [_stage(entry, metrics) for entry in run["stage_log"]],
        **rounded(numbers, 6),
    }


def _device(run: Run) -> str:
    """With its threads, which move the last digits, where they are known."""
    threads = run.get("threads") if run["device"] == "cpu" else None
    return f"{run['device']}, {threads} thread{'s' * (threads != 1)}" if threads else run["device"]


def _stage(entry: dict[str, Any], metrics: list[str]) -> list[Any]:
    """An evaluation as the list that ``page.js`` reads: names would take more room than numbers."""
    return [
        entry["stage"],
        *rounded([entry["epoch"], entry["train_loss"], [entry.get(m) for m in metrics]], 6),
        entry["best"],
        *rounded([entry["learning_rate"], entry["samples_per_s"]], 4),
        {
            name: rounded([branch["item_share"], branch["item_entropy"], branch["switch_rate"]], 4)
            for name, branch in entry["routing"].items()
        },
    ]


def rounded(value: Any, digits: int) -> Any:
    """The same with fewer significant digits of floats; what JSON cannot hold becomes null."""
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry, digits) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
