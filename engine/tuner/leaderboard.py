"""The report of a tuner: a table of all trials, files for machines, and the best experiment."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from model_zoo.registry import publication

from ..common.places import RUN_COMMAND
from ..common.text_table import text_table
from .folder import Folder
from .space import Space
from .trial import DONE, FAILED, QUEUED, Trial, as_text

BARS_COLUMNS = (
    "Year", "Publication", "Model", "Paper URL", "gAUC", "AUC", "Logloss", "Running Steps",
    "Contributor",
)  # fmt: skip


class Monitor:
    """The score by which trials are ranked: FuxiCTR's ``monitor`` on validation metrics."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        monitor = params["monitor"]
        self.weights = {monitor: 1} if isinstance(monitor, str) else dict(monitor)
        self.mode = params.get("monitor_mode", "max")

    def value(self, metrics: Mapping[str, float]) -> float:
        """The weighted sum of the metrics."""
        return sum(weight * metrics[name] for name, weight in self.weights.items())

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """The score: larger is better, whatever the mode."""
        return -self.value(metrics) if self.mode == "min" else self.value(metrics)

    def __str__(self) -> str:
        return " + ".join(n if w == 1 else f"{w} {n}" for n, w in self.weights.items())


def ranked(trials: Mapping[str, Trial], monitor: Monitor) -> list[Trial]:
    """The trials, the best first and those without a result last. Ties are in the order of names."""

    def key(trial: Trial) -> tuple[bool, float, str, str]:
        done = trial.status == DONE
        score = monitor(trial.metrics["valid"]) if done else 0.0
        return (not done, -score, trial.status, trial.name)

    return sorted(trials.values(), key=key)


def write_report(space: Space, folder: Folder, trials: Mapping[str, Trial], root: Path) -> str:
    """Write ``table.md``, ``leaderboard.csv``, ``bars_leaderboard.csv`` and ``best/``.

    The files do not depend on when, where or how often a trial ran.

    Args:
        space: the experiment and its choices.
        folder: the output folder.
        trials: all trials by name.
        root: the folder of the repository; paths below it are written relative to it.

    Returns:
        The table for a terminal, the best trial, and the failures.
    """
    folder.require_same_data(trials.values())
    monitor = Monitor(space.model)
    order = ranked(trials, monitor)
    header, rows = _table(space, order)
    folder.write_text("table.md", _markdown(space, header, rows))
    folder.write_text("leaderboard.csv", _leaderboard(space, order, monitor))
    parts = [text_table(header, rows)]
    if order and order[0].status == DONE:
        parts.append(_write_best(space, folder, order[0], root))
    failed = [trial for trial in order if trial.status == FAILED]
    if failed:
        parts.append("\n".join(f"failed: {t.name}: {t.reason}\n  {folder.log(t)}" for t in failed))
    return "\n\n".join(parts)


def _table(space: Space, order: list[Trial]) -> tuple[list[str], list[list[str]]]:
    metrics = _metrics(order)
    header = ["trial", *space.choices, *(f"{split} {m}" for split, m in metrics), "note"]
    rows = [
        [trial.name, *(as_text(trial.tuned[key]) for key in space.choices)]
        + [f"{trial.metrics[s][m]:.6f}" if trial.metrics else "" for s, m in metrics]
        + [_note(trial)]
        for trial in order
    ]
    return header, rows


def _note(trial: Trial) -> str:
    """What the table notes on a trial: its status if it has no result, and a smaller batch."""
    notes = [] if trial.status == DONE else [trial.status]
    if trial.changes and trial.status == DONE:
        notes.append("out of memory, ran with " + as_text(trial.changes))
    return "; ".join(notes)


def _markdown(space: Space, header: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    title = f"# {space.expid}: best on validation first"
    return "\n".join([title, "", line(header), line(["---"] * len(header)), *map(line, rows), ""])


def _leaderboard(space: Space, order: list[Trial], monitor: Monitor) -> str:
    """The text of ``leaderboard.csv``: all trials, with every digit."""
    metrics = _metrics(order)
    names = [f"{split}_{metric}" for split, metric in metrics]
    rows = []
    for trial in order:
        score = repr(monitor.value(trial.metrics["valid"])) if trial.metrics else ""
        rows.append(
            [trial.name, trial.status, *(as_text(trial.tuned[key]) for key in space.choices)]
            + [repr(trial.metrics[s][m]) if trial.metrics else "" for s, m in metrics]
            + [score, as_text(trial.changes), trial.reason or ""]
        )
    end = ["monitor", "changes", "reason"]
    return _csv([["trial", "status", *space.choices, *names, *end], *rows])


def _write_best(space: Space, folder: Folder, trial: Trial, root: Path) -> str:
    """Write ``best/`` and the row for BARS; returns what the terminal shows of the best trial."""
    expid = f"{space.expid}_best"
    model_root = str(space.model.get("model_root", "./checkpoints/"))
    folder.write_config(folder.best, space, {expid: trial}, model_root)
    inside = folder.best.is_relative_to(root)
    steps = str(folder.best.relative_to(root) if inside else folder.best)
    model, test = str(trial.params["model"]), trial.metrics["test"]
    entry = publication(model)
    year, venue, paper = (entry.year, entry.venue, entry.paper) if entry else ("", "", "")
    metrics = [f"{test[m]:.6f}" if m in test else "" for m in ("gAUC", "AUC", "logloss")]
    row = [year, venue, model, paper, *metrics, steps, ""]
    folder.write_text("bars_leaderboard.csv", _csv([list(BARS_COLUMNS), row]))

    def listed(split: str) -> str:
        return ", ".join(f"{m} {value:.6f}" for m, value in trial.metrics[split].items())

    return (
        f"best: {trial.name} ({as_text(trial.tuned)})\n"
        f"valid {listed('valid')}\ntest  {listed('test')}\n"
        f"{RUN_COMMAND} --config {quote(steps)} --expid {quote(expid)}"
    )


def _metrics(order: list[Trial]) -> list[tuple[str, str]]:
    """The split and the name of each metric. All finished trials have the same metrics."""
    done = next((trial.metrics for trial in order if trial.metrics), {})
    return [(split, name) for split in ("valid", "test") for name in done.get(split, ())]


def _csv(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def exit_code(trials: list[Trial]) -> int:
    """The exit code of the tuner: 1 if a trial failed or was left over, else 0."""
    return int(any(trial.status in (FAILED, QUEUED) for trial in trials))
