"""The display of a running tuner: a progress line on a terminal, otherwise a line for each change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any, TextIO

from tqdm import tqdm

from .leaderboard import Monitor
from .search import Search
from .trial import DONE, ENDED, FAILED, PRUNED, QUEUED, RUNNING, Trial


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
