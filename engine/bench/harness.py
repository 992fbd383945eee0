"""What every benchmark shares: cases that take turns, and the report that they make.

A machine that other jobs use too slows down and speeds up by itself, so a single time says little.
Cases therefore take turns (ours, rival, ours, rival, ...), and what counts is the ratio of two cases
of one run. Nothing here passes or fails by a time.

Beside a time stands its floor, where that is known. Any implementation has to move some bytes, which
takes as long as a plain copy of them. It has to do some FLOPs, which take as long as in a plain matrix
product. The floor is the longer of the two. A time above it is overhead, or arithmetic that is no
matrix product.
"""

import json
import platform
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..common.text_table import text_table
from ..run.flops import count_flops

NO_SETTINGS = ("folder", "json", "plot", "longctr", "data")
FLOAT = 4  # bytes
Tensors = Sequence[Tensor]
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns, to measure the machine with
# The columns of both tables: what each shows, and what that is multiplied by.
TIMES = {"median ms": ("median_s", 1e3), "min ms": ("min_s", 1e3), "max ms": ("max_s", 1e3)}
TIMES |= {"p99 ms": ("p99_s", 1e3)}
TIMES |= {"samples/s": ("samples_per_s", 1), "MB": ("bytes", 1e-6), "GFLOP": ("flops", 1e-9)}
TIMES |= {"floor ms": ("floor_s", 1e3), "x floor": ("times_floor", 1)}
RATIOS = {"of medians": ("median", 1), "min": ("min", 1), "max": ("max", 1), "goal": ("goal", 1)}


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        name: its line in the report.
        run: what to call.
        over: the cases over which the ratio of its time is shown, and the goal for each.
        moved: bytes that any implementation has to move in one call, if a floor is to be shown.
        once: it is too slow for a warm-up and for more than the first round.
    """

    name: str
    run: Callable[[], object]
    over: Mapping[str, str] = field(default_factory=dict)
    moved: float | None = None
    once: bool = False


class Report:
    """What a command measured: times, ratios of times, differences of outputs, and notes.

    Args:
        title: says in one line what was measured.
        args: the command's options, which become the settings of the report.
    """

    def __init__(self, title: str, args: Namespace) -> None:
        self.title = title
        given = {name: value for name, value in vars(args).items() if value not in (None, False)}
        self.settings = {name: value for name, value in given.items() if name not in NO_SETTINGS}
        self.device: torch.device = args.device
        self.machine: dict[str, float] = {}  # its speeds, once a floor is shown
        self.times: dict[str, dict[str, Any]] = {}
        self.ratios: dict[str, dict[str, Any]] = {}
        self.differences: dict[str, float] = {}
        self.notes: list[str] = []
        if "longctr" in args and not args.longctr:
            self.notes.append("no rival: name a checkout of LongCTR with --longctr DIR to have one")

    def agree(self, what: str, ours: Tensors, theirs: Tensors, tolerance: float) -> None:
        """Compare outputs before they are timed, and keep the largest difference by ``what``.

        The difference is relative to the largest number of ``theirs``, or to 1 if all are smaller.

        Raises:
            AssertionError: outputs differ by more than ``tolerance``, or one is not a number.
        """
        for a, b in zip(ours, theirs, strict=True):
            a, b = a.detach().double().cpu(), b.detach().double().cpu()
            difference = float((a - b).abs().max() / b.abs().max().clamp(min=1))
            if not difference <= tolerance:
                raise AssertionError(f"{what}: outputs differ by {difference:g} > {tolerance:g}")
            self.differences[what] = max(difference, self.differences.get(what, 0.0))

    def agree_with_gradients(
        self, what: str, ours: Tensor, theirs: Tensor, leaves: Sequence[Tensor], tolerance: float
    ) -> None:
        """Compare two outputs, and their gradients at the same leaves; see ``agree``."""
        self.agree(what, [ours], [theirs], tolerance)
        a, b = (torch.autograd.grad(y.square().sum(), leaves) for y in (ours, theirs))
        self.agree(f"{what}, gradients", a, b, tolerance)

    def time(self, cases: Sequence[Case], samples: int) -> None:
        """Warm the cases up, time them in turns, and add them to the report.

        Args:
            cases: what to time; a case names in ``over`` others of these, or earlier ones.
            samples: how many samples one call of a case handles.
        """
        for case in cases:
            if not case.once:
                case.run()
        flops = {case.name: count_flops(case.run) for case in cases if case.moved is not None}
        seconds = take_turns(cases, self.settings["repeats"], self.device)
        for case in cases:
            self.record(case.name, seconds[case.name], samples)
            if case.moved is not None:
                self._add_floor(case, {"bytes": case.moved, "flops": flops[case.name]})
        for case in cases:
            for other, goal in case.over.items():
                self.compare(case.name, other, goal)

    def _add_floor(self, case: Case, work: dict[str, float]) -> None:
        """Add the floor of a timed case, and on a GPU how well the case uses it.

        ``work`` has the bytes and FLOPs of one call.
        """
        self.machine = measure_machine(self.device)
        floor_s = max(amount / self.machine[f"{name}_per_s"] for name, amount in work.items())
        found = self.times[case.name]
        found |= work | {"floor_s": floor_s, "times_floor": found["median_s"] / floor_s}
        if self.device.type == "cuda":
            self.notes.append(f"{case.name}: {_gpu_use(case, found)}")

    def record(self, name: str, seconds: list[float], samples: int) -> None:
        """Add times, one per round, of something that handles so many samples."""
        middle = median(seconds)
        found = {"median_s": middle, "min_s": min(seconds), "max_s": max(seconds)}
        found |= {"samples": samples, "samples_per_s": samples / middle}
        if len(seconds) >= 100:
            found["p99_s"] = quantiles(seconds, n=100)[-1]
        self.times[name] = {**found, "seconds": seconds}

    def compare(self, slow: str, fast: str, goal: str = "") -> None:
        """Add the ratio of the medians of two cases, its range over rounds, and the goal for it.

        A case that ran once counts in each round.
        """
        slow_s, fast_s = self.times[slow]["seconds"], self.times[fast]["seconds"]
        rounds = range(max(len(slow_s), len(fast_s)))
        by_round = [slow_s[i % len(slow_s)] / fast_s[i % len(fast_s)] for i in rounds]
        found = {"median": median(slow_s) / median(fast_s), "min": min(by_round)}
        self.ratios[f"{slow} / {fast}"] = {**found, "max": max(by_round), "goal": goal}

    def text(self) -> str:
        """The report as tables for a terminal."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        parts = [self.title, settings, "", _table(TIMES, self.times), ""]
        if self.ratios:
            parts += [_table(RATIOS, self.ratios), ""]
        parts += [f"largest difference, {k}: {value:.2g}" for k, value in self.differences.items()]
        if self.machine:
            parts.append(
                f"floor: a plain copy moves {self.machine['bytes_per_s'] / 1e9:.1f} GB/s, "
                f"a float32 matrix product does {self.machine['flops_per_s'] / 1e9:,.0f} GFLOP/s"
            )
        return "\n".join([*parts, *self.notes])

    def publish(self, file: str | None) -> None:
        """Print the report, and write it as JSON if a file is named."""
        print(self.text())
        if file:
            versions = {name: version(name) for name in ("torch", "fuxictr", "numpy")}
            versions["python"] = platform.python_version()
            content = vars(self) | {"versions": versions, "threads": torch.get_num_threads()}
            Path(file).write_text(json.dumps(content, indent=2, default=str) + "\n")


def take_turns(cases: Sequence[Case], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Run the cases in this order in each round, and return the seconds of each case, by name.

    On a GPU a time ends when the work is done, not when it is queued.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    for i in range(repeats):
        for case in cases:
            if case.once and i:
                continue
            wait()
            start = time.perf_counter()
            output = case.run()
            wait()
            seconds[case.name].append(time.perf_counter() - start)
            del output  # freeing a batch is no part of making the next one
    return seconds


@cache
def measure_machine(device: torch.device) -> dict[str, float]:
    """Measure bytes (read plus written) and FLOPs per second: the best of a few copies and products."""
    size = MATRIX[device.type]
    source = torch.ones(16 * size**2, device=device)  # far beyond any cache
    target = torch.empty_like(source)
    a, b, c = (torch.ones(size, size, device=device) for _ in range(3))
    copy = Case("copy", lambda: target.copy_(source))
    product = Case("product", lambda: torch.mm(a, b, out=c))
    best_s = {name: min(s) for name, s in take_turns([copy, product], 6, device).items()}
    moved, flops = 2 * FLOAT * source.numel(), 2 * size**3
    return {"bytes_per_s": moved / best_s["copy"], "flops_per_s": flops / best_s["product"]}


def _gpu_use(case: Case, times: dict[str, Any]) -> str:
    """Run a case once more, and say what share of its time a kernel is at work, and its memory."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        case.run()
        torch.cuda.synchronize()
    kernel_s = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    peak, time_s = torch.cuda.max_memory_allocated() - held, times["median_s"]
    return (
        f"kernels run for {kernel_s / time_s:.0%} of the time, {times['flops'] / time_s / 1e9:,.0f} "
        f"GFLOP/s, {times['bytes'] / time_s / 1e9:,.1f} GB/s, peak memory {peak / 2**30:.2f} GiB more"
    )


def _table(columns: Mapping[str, tuple[str, float]], found: dict[str, dict[str, Any]]) -> str:
    """Make a table with a line for each name in ``found``; a column that no line fills is left out."""
    some = {key for values in found.values() for key in values}
    shown = {heading: show for heading, show in columns.items() if show[0] in some}
    rows = [
        [name, *(_cell(values[key], factor) for key, factor in shown.values() if key in values)]
        for name, values in found.items()
    ]
    return text_table(["", *shown], rows)


def _cell(value: Any, factor: float) -> str:
    if isinstance(value, str):
        return value
    return f"{value * factor:,.{0 if value * factor >= 1000 else 2}f}"
