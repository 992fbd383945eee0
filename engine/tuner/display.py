"""What one sees of a running tuner: a progress line on a terminal, else one line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from .leaderboard import Monitor
from .trial import DONE, ENDED, FAILED, PRUNED, RUNNING, Trial


class Display:
    """Shows counts, the best validation score so far, and the time left.

    Args:
        size: how many trials there are.
        ended: how many of them had ended before.
        monitor: scores validation metrics.
        file: where to write; default: the standard output.
    """

    def __init__(self, size: int, ended: int, monitor: Monitor, file: TextIO | None = None) -> None:
        self.size, self.ended_before, self.monitor = size, ended, monitor
        self.file = file = file or sys.stdout
        self._start = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, str] = {}
        # The line is cut at the width of the terminal: what matters comes first.
        self._bar = tqdm(total=size, file=file, bar_format="{desc}") if file.isatty() else None

    def event(self, trial: Trial, text: str) -> None:
        """Say that a trial has changed its state."""
        self._stages.pop(trial.name, None)
        if trial.status == DONE:
            value = self.monitor.value(trial.metrics["valid"])
            text += f", valid {self.monitor} {value:.6f}"
        self._print(f"{trial.name} {text}")

    def evaluated(self, trial: Trial, entry: dict[str, Any]) -> None:
        """Take note of an evaluation of a running trial."""
        self._stages[trial.name] = f"{entry['stage']} epoch {entry['epoch']:g}"

    def refresh(self, trials: Iterable[Trial]) -> None:
        """Count again; the line changes, or one is printed when a count has changed."""
        trials = list(trials)
        counts = Counter(trial.status for trial in trials)
        if self._bar is None and counts == self._counts:
            return
        self._counts = counts
        ended = sum(counts[status] for status in ENDED)
        line = f"{counts[DONE]} of {self.size} done, {counts[RUNNING]} running, {counts[FAILED]} failed"
        if counts[PRUNED]:
            line += f", {counts[PRUNED]} pruned"
        if done := [trial.metrics["valid"] for trial in trials if trial.status == DONE]:
            best = max(done, key=self.monitor)
            line += f", best {self.monitor} {self.monitor.value(best):.4f}"
        new = ended - self.ended_before
        if new > 0 and ended < self.size:
            left = (time.monotonic() - self._start) / new * (self.size - ended)
            line += f", {tqdm.format_interval(left)} left"
        if self._bar is None:
            self._print(line)
            return
        running = ", ".join(f"{name[-12:]} {stage}" for name, stage in self._stages.items())
        self._bar.n = ended
        self._bar.set_description_str(line + (f" | {running}" if running else ""))

    def _print(self, line: str) -> None:
        tqdm.write(line, file=self.file)  # above the bar, if there is one
        self.file.flush()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()
