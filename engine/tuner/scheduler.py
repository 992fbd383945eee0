"""The loop between search and engine: start, watch, judge how a run ended, try again."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from .display import Display
from .engines import Engine, Exit, Job
from .folder import Folder
from .search import Search
from .space import Space
from .trial import DONE, FAILED, PRUNED, QUEUED, RUNNING, Trial, as_text

POLL_SECONDS = 0.2
TRIES = 2  # how often a trial that fails runs in one call of the tuner
LOST_TRIES = 10  # how often a trial runs that somebody kills, or whose machine is lost
# The exit codes of a run that somebody ended. run_expid.py answers Ctrl-C with 130.
FROM_OUTSIDE = (130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
BUSY = "another run_expid.py is running it"
MEMORY_SECONDS = 10  # a process that Linux kills for want of memory has ended by then
TAIL_LINES = 20  # the status file keeps so many lines of the log
OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|DefaultCPUAllocator: can't allocate memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)

Command = Callable[[Trial, int], Sequence[str]]
"""Gives the command line of a trial on a CUDA device; -1 is the CPU."""


class Scheduler:
    """Runs the trials of a search on an engine. Every change is on disk before the next step.

    Args:
        space: the experiment and the choices, for the configuration that the runs read.
        folder: the output folder, which this process has locked.
        search: says which trial runs next.
        engine: runs the command lines.
        command: gives the command line of a trial.
        display: shows the progress.
    """

    def __init__(
        self,
        space: Space,
        folder: Folder,
        search: Search,
        engine: Engine,
        command: Command,
        display: Display,
    ) -> None:
        self.space, self.folder, self.search, self.engine = space, folder, search, engine
        self.command, self.display = command, display
        self.running: dict[str, Trial] = {}
        self._again: deque[Trial] = deque()
        self._tries: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._memory_kills = deque([memory_kills()], maxlen=int(MEMORY_SECONDS / POLL_SECONDS))
        self._log_start: dict[str, int] = {}
        self._evaluations: dict[str, int] = {}
        self._configured: set[str] = set()

    def run(self) -> None:
        """Run trials until none is left.

        Raises:
            UserError: a result is on other data than the others.
            KeyboardInterrupt: Ctrl-C; the runs have ended and are back in the queue.
        """
        for trial in self.search.selected():
            self.folder.save(trial)
        try:
            # An engine that runs nothing and is not free has lost its machines. It waits for others.
            while self._start_all() or self.running or not self.engine.free():
                exits = self.engine.poll()
                self._memory_kills.append(memory_kills())
                for ended in exits:
                    self._judge(ended)
                self._watch()
                self.display.refresh(self.search.selected())
                time.sleep(POLL_SECONDS)
        finally:
            self.engine.close()
            for trial in self.running.values():
                self._end_attempt(trial, None)
                trial.status = QUEUED
                self.folder.save(trial)
            self.display.close()

    def _configure(self, trial: Trial) -> None:
        """Make sure that the configuration directory has the trial."""
        if trial.expid not in self._configured:
            trials = {trial.expid: trial for trial in self.search.trials.values()}
            self.folder.write_config(self.folder.path, self.space, trials, str(self.folder.runs))
            self._configured = set(trials)

    # ---------------------------------------------------------------- start and watch

    def _start_all(self) -> bool:
        """Start trials until the engine is full; returns whether any was started."""
        started = False
        while self.engine.free():
            trial = self._again.popleft() if self._again else self.search.next()
            if trial is None:
                break
            self._start(trial)
            started = True
        return started

    def _start(self, trial: Trial) -> None:
        self._configure(trial)
        log = self.folder.log(trial)
        self._log_start[trial.name] = log.stat().st_size if log.exists() else 0
        trial.status, trial.reason, trial.log_tail = RUNNING, None, []
        trial.attempts.append({"start": now(), "end": None, "exit_code": None, "device": None})
        self.folder.save(trial)
        self.running[trial.name] = trial
        job = Job(trial.name, partial(self.command, trial), log, self.folder.runs)
        trial.attempts[-1]["device"] = self.engine.start(job)
        self.folder.save(trial)
        where = f"started on {trial.attempts[-1]['device']}"
        self.display.event(trial, f"{where}: {as_text(trial.tuned | trial.changes)}")

    def _watch(self) -> None:
        """Read the evaluations of the running trials, and stop those that the search gives up."""
        for name, trial in list(self.running.items()):
            stage_log = self.folder.progress(trial)
            if len(stage_log) <= self._evaluations.get(name, 0):
                continue
            self._evaluations[name] = len(stage_log)
            self.display.evaluated(trial, stage_log[-1])
            if self.search.observe(trial, stage_log):
                self.engine.stop(name)
                if (
                    result := self.folder.result(trial)
                ) is not None:  # it ended before it could be stopped
                    self._done(trial, result)
                else:
                    self._finish(trial, PRUNED, None, f"pruned after {len(stage_log)} evaluations")

    # ---------------------------------------------------------------- the end of a run

    def _judge(self, ended: Exit) -> None:
        """Decide whether a run that ended is done, has failed, or is tried again."""
        trial = self.running[ended.name]
        trial.attempts[-1]["device"] = ended.device
        result = self.folder.result(trial) if ended.code == 0 else None
        if result is not None:
            self._done(trial, result)
            return
        tail = self._tail(trial)
        killed = ended.code == -signal.SIGKILL and self._memory_kills[-1] > self._memory_kills[0]
        memory = killed or (ended.code != 0 and any(map(OUT_OF_MEMORY.search, tail)))
        busy = ended.code == 2 and any(BUSY in line for line in tail)
        if not memory and (ended.code is None or busy or ended.code in FROM_OUTSIDE):
            self._lost[trial.name] += 1
            if self._lost[trial.name] < LOST_TRIES:
                ran = "runs elsewhere" if busy else "was killed"
                what = f"{ended.device} was lost" if ended.code is None else ran
                self._repeat(trial, ended.code, f"{what}, back in the queue")
                return
        reason = _reason(ended, tail)
        trial.log_tail = tail
        if memory and trial.halve_batch():
            batch = f"out of memory, again with batch_size {trial.changes['batch_size']}"
            self._repeat(trial, ended.code, batch)
            return
        self._tries[trial.name] += 1
        if self._tries[trial.name] < TRIES and not memory:
            self._repeat(trial, ended.code, f"failed ({reason}), once more")
            return
        trial.reason = f"out of memory: {reason}" if memory else reason
        self._finish(trial, FAILED, ended.code, f"failed: {trial.reason}")

    def _done(self, trial: Trial, result: dict[str, Any]) -> None:
        trial.metrics, trial.dataset_hash = result["metrics"], result["dataset_hash"]
        self._finish(trial, DONE, 0, "done")
        self.folder.require_same_data(self.search.trials.values())

    def _repeat(self, trial: Trial, code: int | None, text: str) -> None:
        self._again.append(trial)
        self._leave(trial, QUEUED, code, text)

    def _finish(self, trial: Trial, status: str, code: int | None, text: str) -> None:
        self._leave(trial, status, code, text)
        self.search.tell(trial)

    def _leave(self, trial: Trial, status: str, code: int | None, text: str) -> None:
        del self.running[trial.name]
        self._evaluations.pop(trial.name, None)
        self._end_attempt(trial, code)
        trial.status = status
        self.folder.save(trial)
        self.display.event(trial, text)

    def _end_attempt(self, trial: Trial, code: int | None) -> None:
        trial.attempts[-1] |= {"end": now(), "exit_code": code}

    def _tail(self, trial: Trial) -> list[str]:
        """The last lines that the latest run of a trial has written."""
        try:
            with open(self.folder.log(trial), "rb") as file:
                file.seek(self._log_start[trial.name])
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        lines = [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]
        return [line for line in lines if line][-TAIL_LINES:]


def memory_kills() -> int:
    """How many processes Linux has killed for want of memory since it started; elsewhere 0."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def now() -> str:
    """The local time as text, which sorts by time."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _reason(ended: Exit, tail: list[str]) -> str:
    """Say in one line why a run failed."""
    if ended.code is None:
        return f"{ended.device} was lost, {LOST_TRIES} times"
    if ended.code < 0:
        known = -ended.code in set(signal.Signals)
        return f"killed by {signal.Signals(-ended.code).name if known else -ended.code}"
    if ended.code == 0:
        return "ended without a result"
    errors = [line for line in tail if line.startswith("error: ")]
    return (errors or tail or [f"exit code {ended.code}"])[-1].removeprefix("error: ")
