"""Alternating timings and the report that they make.

A machine that others share too slows down and speeds up by itself, so absolute numbers say little.
Cases therefore take turns (ours, rival, ours, rival, ...), and what counts is the *ratio* of two
cases of one run. Nothing here passes or fails by a time.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..common.errors import UserError
from ..common.text_table import text_table
from .floor import Machine, Work

VERSIONS = ("torch", "fuxictr", "numpy", "pandas")


@dataclass
class Report:
    """What a measurement found.

    Attributes:
        title: what was measured, in one line.
        settings: sizes and options.
        samples: how many samples one call of a case handles; by case, if they differ.
        seconds: the times of each case, one per round.
        ratios: by name, ``(slow case, fast case, goal)``; the goal is a text.
        differences: the largest difference of two outputs that should agree.
        work: what a case has to move and compute at least.
        machine: what the device can do; with ``work``.
        notes: lines for the reader.
    """

    title: str
    settings: dict[str, Any]
    samples: int | dict[str, int]
    seconds: dict[str, list[float]]
    ratios: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    machine: Machine | None = None
    notes: list[str] = field(default_factory=list)

    def ratio(self, name: str) -> dict[str, Any]:
        """A ratio of medians, and its range over rounds; a case that ran once counts in each."""
        slow, fast, goal = self.ratios[name]
        slow_s, fast_s = self.seconds[slow], self.seconds[fast]
        rounds = range(max(len(slow_s), len(fast_s)))
        by_round = [slow_s[i % len(slow_s)] / fast_s[i % len(fast_s)] for i in rounds]
        value = median(slow_s) / median(fast_s)
        return {"median": value, "min": min(by_round), "max": max(by_round), "goal": goal}

    def text(self) -> str:
        """Tables for a terminal."""
        header = ["", "median ms", "min ms", "max ms", "samples/s"]
        rows = [[*header, "MB", "GFLOP", "floor ms", "x floor"] if self.work else header]
        for name, found in self.times().items():
            cells = [f"{1000 * found[key]:,.2f}" for key in ("median_s", "min_s", "max_s")]
            cells.append(f"{found['samples_per_s']:,.0f}")
            if name in self.work:
                cells += [f"{found['bytes'] / 1e6:,.1f}", f"{found['flops'] / 1e9:,.2f}"]
                cells.append(f"{1000 * found['floor_s']:,.2f}")
                cells.append(f"{found['median_s'] / found['floor_s']:,.1f}")
            rows.append([name, *cells])
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        parts = [self.title, settings, "", text_table(rows[0], rows[1:])]
        if self.ratios:
            rows = [["ratio", "of medians", "min", "max", "goal"]]
            for name in self.ratios:
                found = self.ratio(name)
                cells = [f"{found[key]:,.2f}" for key in ("median", "min", "max")]
                rows.append([name, *cells, found["goal"]])
            parts += ["", text_table(rows[0], rows[1:])]
        if self.differences:
            parts.append("")
        parts += [f"largest difference, {k}: {value:.2g}" for k, value in self.differences.items()]
        machine = [f"floor: {self.machine}"] if self.machine else []
        return "\n".join([*parts, *machine, *self.notes])

    def times(self) -> dict[str, dict[str, Any]]:
        """By case: median, minimum and maximum, samples per second, floor, and every round."""
        found = {}
        for name, times in self.seconds.items():
            samples = self.samples if isinstance(self.samples, int) else self.samples[name]
            found[name] = {
                "median_s": median(times),
                "min_s": min(times),
                "max_s": max(times),
                "samples": samples,
                "samples_per_s": samples / median(times),
                "seconds": times,
            }
            if name in self.work:
                floor = self.work[name].floor(self.machine)
                found[name] |= asdict(self.work[name]) | {"floor_s": floor}
        return found

    def to_json(self) -> str:
        """Everything in ``text``, and the times of every round."""
        content = {
            "title": self.title,
            "settings": self.settings,
            "times": self.times(),
            "machine": asdict(self.machine) if self.machine else None,
            "ratios": {name: self.ratio(name) for name in self.ratios},
            "differences": self.differences,
            "notes": self.notes,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in VERSIONS},
            },
            "threads": torch.get_num_threads(),
        }
        return json.dumps(content, indent=2)

    def publish(self, file: str | None) -> None:
        """Print the tables; write the JSON if a file is named."""
        print(self.text())
        if file:
            try:
                Path(file).write_text(self.to_json() + "\n")
            except OSError as error:
                raise UserError(f"--json {file}: cannot be written ({error.strerror})") from None


def alternate(
    cases: dict[str, Callable[[], object]],
    repeats: int,
    device: torch.device | None = None,
    once: Collection[str] = (),
) -> dict[str, list[float]]:
    """Seconds of each case in each of ``repeats`` rounds.

    Args:
        cases: what to call, by name; each runs once per round, in this order. Warm them up before.
        repeats: rounds, at least 1.
        device: if CUDA, a time ends when its work is done, not when it is queued.
        once: cases too slow for more than the first round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(repeats):
        for name, case in cases.items():
            if name in once and round_number:
                continue
            _wait(device)
            start = time.perf_counter()
            output = case()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
            del output  # freeing a batch is no part of making the next one
    return seconds


def require_close(what: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> float:
    """The largest difference; a measurement of outputs that disagree would mean nothing."""
    difference = float((ours.double() - theirs.double()).abs().max())
    if not difference <= tolerance:
        raise AssertionError(f"{what}: outputs differ by {difference:g}, more than {tolerance:g}")
    return difference


def find_device(name: str) -> torch.device:
    """The device of ``--device``."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device cuda: torch {torch.__version__} sees no CUDA device; write cpu")
    return torch.device(name)


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
