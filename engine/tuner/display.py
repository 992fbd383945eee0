"""What one sees of a running tuner: a progress bar on a terminal, else one line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from tqdm import tqdm

from .trial import DONE, FAILED, PRUNED, RUNNING, Trial

Score = Callable[[dict[str, float]], float]


class Display:
    """Counts, the best validation score so far, and the time left.

    Args:
        size: how many trials there are.
        ended: how many of them had ended before.
        score: of validation metrics, larger is better.
        shown: the score as the user wrote it, such as ``"AUC + gAUC"``.
        mode: ``max`` or ``min``; undoes the sign of the score.
        file: where to write; default: the standard output.
    """

    def __init__(
        self,
        size: int,
        ended: int,
        score: Score,
        shown: str,
        mode: str,
        file: TextIO | None = None,
    ) -> None:
        self.size, self.ended_before, self.score = size, ended, score
        self.shown, self.sign = shown, -1 if mode == "min" else 1
        self.file = file = file or sys.stdout
        self.best: float | None = None
        self._start = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, str] = {}
        self._bar = (
            tqdm(
                total=size,
                initial=ended,
                unit="trial",
                file=file,
                bar_format="{n_fmt}/{total_fmt} trials |{bar:20}| {desc}",
            )
            if file.isatty()
            else None
        )

    def event(self, trial: Trial, text: str) -> None:
        """A trial changed its state."""
        self._stages.pop(trial.name, None)
        if trial.status == DONE:
            self._score(trial.metrics["valid"])
            text += f", valid {self.shown} {self.sign * self.score(trial.metrics['valid']):.6f}"
        line = f"{trial.name} {text}"
        if self._bar is not None:
            self._bar.write(line, file=self.file)
            return
        print(line, file=self.file, flush=True)

    def evaluated(self, trial: Trial, entry: dict[str, Any]) -> None:
        """A running trial was evaluated."""
        if entry["stage"] == "joint":
            self._score(entry)
        self._stages[trial.name] = f"{entry['stage']} epoch {entry['epoch']:g}"

    def refresh(self, trials: Iterable[Trial]) -> None:
        """Count again; the bar moves, or a line is printed when a count has changed."""
        counts = Counter(trial.status for trial in trials)
        ended = counts[DONE] + counts[FAILED] + counts[PRUNED]
        if self._bar is not None:
            running = ", ".join(f"{name[-12:]} {stage}" for name, stage in self._stages.items())
            self._bar.n = ended
            self._bar.set_description_str(
                self._summary(counts) + (f" | {running}" if running else "")
            )
        elif counts != self._counts:
            print(
                f"{ended}/{self.size} trials: {self._summary(counts)}", file=self.file, flush=True
            )
        self._counts = counts

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _score(self, metrics: dict[str, float]) -> None:
        score = self.score(metrics)
        self.best = score if self.best is None else max(self.best, score)

    def _summary(self, counts: Counter[str]) -> str:
        ended = counts[DONE] + counts[FAILED] + counts[PRUNED]
        parts = [f"{counts[DONE]} done", f"{counts[RUNNING]} running", f"{counts[FAILED]} failed"]
        if counts[PRUNED]:
            parts.append(f"{counts[PRUNED]} pruned")
        if self.best is not None:
            parts.append(f"best valid {self.shown} {self.sign * self.best:.6f}")
        new = ended - self.ended_before
        if new > 0 and ended < self.size:
            left = (time.monotonic() - self._start) / new * (self.size - ended)
            parts.append(f"about {tqdm.format_interval(left)} left")
        return ", ".join(parts)
