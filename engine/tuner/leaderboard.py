"""What the tuner shows: the progress while trials run, then its report.

The progress is one line on a terminal, and otherwise a line for each change. The report is a table of all
trials, files for programs, and the best experiment.
"""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from shlex import quote
from typing import Any, TextIO

from tqdm import tqdm

from model_zoo.registry import publication

from ..baseline import record
from ..common.files import write_text
from ..common.places import RUN_COMMAND
from ..common.text_table import csv_text, text_table
from ..config.options import RunOptions
from ..config.read import monitor_modes
from ..datasets.prepared.card import card_beside, sampling
from .folder import Folder
from .search import Search
from .space import Space
from .trial import DONE, ENDED, FAILED, PRUNED, QUEUED, RUNNING, Trial, as_text

Rows = list[list[str]]
BARS = "bars_leaderboard.csv"
BARS_COLUMNS = (
    "Year", "Publication", "Model", "Paper URL", "gAUC", "AUC", "Logloss", "Running Steps",
    "Contributor",
)  # fmt: skip


class Monitor:
    """Scores trials for their rank: FuxiCTR's ``monitor`` on validation metrics."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        monitor = params["monitor"]
        self.weights = {monitor: 1} if isinstance(monitor, str) else dict(monitor)
        self.mode = next(iter(monitor_modes(monitor).values()))

    def value(self, metrics: Mapping[str, float]) -> float:
        """The weighted sum of the metrics."""
        return sum(weight * metrics[name] for name, weight in self.weights.items())

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """The score: larger is better, whatever the mode."""
        return -self.value(metrics) if self.mode == "min" else self.value(metrics)

    def __str__(self) -> str:
        return " + ".join(n if w == 1 else f"{w} {n}" for n, w in self.weights.items())


def ranked(trials: Iterable[Trial], monitor: Monitor) -> list[Trial]:
    """The trials from best to worst, then all without a result; ties are sorted by name."""

    def key(trial: Trial) -> tuple[bool, float, str, str]:
        done = trial.status == DONE
        score = monitor(trial.metrics["valid"]) if done else 0.0
        return (not done, -score, trial.status, trial.name)

    return sorted(trials, key=key)


def write_report(folder: Folder, search: Search, options: RunOptions) -> str:
    """Write ``table.md``, ``leaderboard.csv``, ``bars_leaderboard.csv`` and ``best/``.

    The files do not depend on when, where or how often a trial ran. They replace the report of another
    grid with the same output folder.

    Args:
        folder: the output folder.
        search: has the experiment, its choices and all trials.
        options: paths below their ``home`` are written relative to it.

    Returns:
        The table for a terminal, the best trial, and the failures.
    """
    folder.require_same_data(search.trials.values())
    monitor = Monitor(search.space.model)
    order = ranked(search.trials.values(), monitor)
    (header, *rows), board = _tables(search.space, order, monitor)
    markdown = [header, ["---"] * len(header), *rows]
    beside = _beside(order, options)
    lines = [f"# {search.space.expid}: best on validation first", *beside, ""]
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in markdown]
    write_text(folder.path / "table.md", "\n".join([*lines, ""]))
    write_text(folder.path / "leaderboard.csv", csv_text(board))
    parts = ["\n".join([text_table(header, rows), *beside])]
    if order and order[0].status == DONE:
        parts.append(_write_best(search.space, folder, order[0], options))
    else:  # these files are from another grid
        shutil.rmtree(folder.best, ignore_errors=True)
        (folder.path / BARS).unlink(missing_ok=True)
    return "\n\n".join([*parts, *failures(folder, order)])


def _beside(order: list[Trial], options: RunOptions) -> list[str]:
    """How the negatives of the data were drawn, and the counting baseline of the best trial."""
    if not order or order[0].status != DONE:
        return []
    best, params = order[0], order[0].params
    results = options.home / params.get("model_root", "./checkpoints/") / params["dataset_id"]
    entry = record.of(results, str(best.dataset_hash), params["max_len"])
    drawn = sampling(card_beside(options.home / params["train_data"]))
    return [f"metrics are on {drawn}"] * bool(drawn) + [
        f"{label}: " + ", ".join(f"{s} AUC {metrics[s]['AUC']:.6f}" for s in metrics)
        for label, metrics in (record.rows(entry) if entry else {}).items()
    ]


def failures(folder: Folder, trials: Iterable[Trial]) -> list[str]:
    """A line for each failed trial, with the reason and the path of its log."""
    failed = (trial for trial in trials if trial.status == FAILED)
    return [f"failed: {trial.name}: {trial.reason}\n  {folder.log(trial)}" for trial in failed]


def _tables(space: Space, order: list[Trial], monitor: Monitor) -> tuple[Rows, Rows]:
    """The table for people, and ``leaderboard.csv`` with every digit; each begins with its header."""
    measured = next((trial.metrics for trial in order if trial.metrics), {})
    metrics = [(split, name) for split in ("valid", "test") for name in measured.get(split, ())]
    table = [["trial", *space.choices, *map(" ".join, metrics), "note"]]
    columns = ["trial", "status", *space.choices, *map("_".join, metrics)]
    board = [[*columns, "monitor", "changes", "reason"]]
    for trial in order:
        tuned = [as_text(trial.tuned[key]) for key in space.choices]
        changes = as_text(trial.changes)
        if not trial.metrics:
            note, short, exact = trial.status, [""] * len(metrics), [""] * (len(metrics) + 1)
        else:
            values = [trial.metrics[split][name] for split, name in metrics]
            note = f"out of memory, ran with {changes}" if changes else ""
            short = [f"{value:.6f}" for value in values]
            exact = [repr(value) for value in (*values, monitor.value(trial.metrics["valid"]))]
        table.append([trial.name, *tuned, *short, note])
        board.append([trial.name, trial.status, *tuned, *exact, changes, trial.reason or ""])
    return table, board


def _write_best(space: Space, folder: Folder, trial: Trial, options: RunOptions) -> str:
    """Write ``best/`` and the row for BARS, and return the text about the best trial."""
    expid = f"{space.expid}_best"
    model_root = str(space.model.get("model_root", "./checkpoints/"))
    folder.write_config(folder.best, space, {expid: trial}, model_root)
    inside = folder.best.is_relative_to(options.home)
    steps = str(folder.best.relative_to(options.home) if inside else folder.best)
    zoo = f" --model-zoo {quote(str(options.model_zoo))}" if options.model_zoo else ""
    model, test = str(trial.params["model"]), trial.metrics["test"]
    entry = publication(model)
    year, venue, paper = (entry.year, entry.venue, entry.paper) if entry else ("", "", "")
    metrics = [f"{test[m]:.6f}" if m in test else "" for m in ("gAUC", "AUC", "logloss")]
    row = [year, venue, model, paper, *metrics, steps, ""]
    write_text(folder.path / BARS, csv_text([BARS_COLUMNS, row]))

    def listed(split: str) -> str:
        return ", ".join(f"{m} {value:.6f}" for m, value in trial.metrics[split].items())

    return (
        f"best: {trial.name} ({as_text(trial.tuned)})\n"
        f"valid {listed('valid')}\ntest  {listed('test')}\n"
        f"{RUN_COMMAND} --config {quote(steps)} --expid {quote(expid)}{zoo}"
    )


def exit_code(search: Search) -> int:
    """The exit code of the tuner: 1 if a trial failed or was left over, else 0."""
    return int(any(trial.status in (FAILED, QUEUED) for trial in search.selected()))


class Display:
    """Shows how many trials have which status, the best validation score so far, and the time left.

    Args:
        search: the trials to count.
        file: where to write; default: the standard output.
    """

    def __init__(self, search: Search, file: TextIO | None = None) -> None:
        self.search, self.monitor = search, Monitor(search.space.model)
        self.file = file = file or sys.stdout
        self._start = time.monotonic()
        self._ended_before = sum(trial.status != QUEUED for trial in search.selected())
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, str] = {}
        # The line is cut at the width of the terminal, so what matters comes first.
        self._bar = tqdm(file=file, bar_format="{desc}", disable=not file.isatty())

    def event(self, trial: Trial, text: str) -> None:
        """Show that a trial has changed its state."""
        self._stages.pop(trial.name, None)
        if trial.status == DONE:
            value = self.monitor.value(trial.metrics["valid"])
            text += f", valid {self.monitor} {value:.6f}"
        self._print(f"{trial.name} {text}")

    def evaluated(self, trial: Trial, entry: dict[str, Any]) -> None:
        """Show an evaluation of a running trial."""
        self._stages[trial.name] = f"{entry['stage']} epoch {entry['epoch']:g}"

    def refresh(self) -> None:
        """Count the trials again and show the counts, on a new line if this is no terminal."""
        trials, size = self.search.selected(), self.search.size
        counts = Counter(trial.status for trial in trials)
        line = f"{counts[DONE]} of {size} done, {counts[RUNNING]} running, {counts[FAILED]} failed"
        if counts[PRUNED]:
            line += f", {counts[PRUNED]} pruned"
        if done := [trial.metrics["valid"] for trial in trials if trial.status == DONE]:
            best = max(done, key=self.monitor)
            line += f", best {self.monitor} {self.monitor.value(best):.4f}"
        ended = sum(counts[status] for status in ENDED)
        if self._ended_before < ended < size:
            pace = (time.monotonic() - self._start) / (ended - self._ended_before)
            line += f", {tqdm.format_interval(pace * (size - ended))} left"
        if not self._bar.disable:
            running = ", ".join(f"{name[-12:]} {stage}" for name, stage in self._stages.items())
            self._bar.set_description_str(line + (f" | {running}" if running else ""))
        elif counts != self._counts:
            self._print(line)
        self._counts = counts

    def _print(self, line: str) -> None:
        tqdm.write(line, file=self.file)  # above the bar, if there is one
        self.file.flush()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()
