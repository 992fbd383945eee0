"""What one sees of a running tuner: a progress bar on a terminal, else one line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from .leaderboard import Monitor
from .trial import DONE, FAILED, PRUNED, RUNNING, Trial


class Display:
    """Counts, the best validation score so far, and the time left.

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
        """A trial changed its state."""
        self._stages.pop(trial.name, None)
        if trial.status == DONE:
            value = self.monitor.value(trial.metrics["valid"])
            text += f", valid {self.monitor} {value:.6f}"
        line = f"{trial.name} {text}"
        if self._bar is not None:
            self._bar.write(line, file=self.file)
            return
        print(line, file=self.file, flush=True)

    def evaluated(self, trial: Trial, entry: dict[str, Any]) -> None:
        """A running trial was evaluated."""
        self._stages[trial.name] = f"{entry['stage']} epoch {entry['epoch']:g}"

    def refresh(self, trials: Iterable[Trial]) -> None:
        """Count again; the line changes, or one is printed when a count has changed."""
        trials = list(trials)
        counts = Counter(trial.status for trial in trials)
        if self._bar is None and counts == self._counts:
            return
        self._counts = counts
        ended = counts[DONE] + counts[FAILED] + counts[PRUNED]
        parts = [f"{counts[DONE]} of {self.size} done", f"{counts[RUNNING]} running"]
        parts += [f"{counts[FAILED]} failed"]
        if counts[PRUNED]:
            parts.append(f"{counts[PRUNED]} pruned")
        done = [trial.metrics["valid"] for trial in trials if trial.status == DONE]
        if done:
            parts.append(
                f"best {self.monitor} {self.monitor.value(max(done, key=self.monitor)):.4f}"
            )
        new = ended - self.ended_before
        if new > 0 and ended < self.size:
            left = (time.monotonic() - self._start) / new * (self.size - ended)
            parts.append(f"{tqdm.format_interval(left)} left")
        line = ", ".join(parts)
        if self._bar is None:
            print(line, file=self.file, flush=True)
            return
        running = ", ".join(f"{name[-12:]} {stage}" for name, stage in self._stages.items())
        self._bar.n = ended
        self._bar.set_description_str(line + (f" | {running}" if running else ""))

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()
