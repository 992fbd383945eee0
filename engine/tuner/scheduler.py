"""The loop between search and engine: it starts runs, watches them, and repeats failed ones."""

import re
import signal
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .engines import Engine, Exit, Job
from .folder import Folder
from .leaderboard import Display
from .search import Search
from .trial import DONE, ENDED, FAILED, PRUNED, QUEUED, RUNNING, Trial, as_text

POLL_SECONDS = 0.2
TRIES = 2  # how often a trial that fails runs in one call of the tuner
LOST_TRIES = 10  # how often a trial runs if its runs are killed or their machines are lost
# The exit codes of a run that was ended from outside. run_expid.py answers Ctrl-C with 130.
FROM_OUTSIDE = (130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
BUSY = "another run_expid.py is running it"
MEMORY_SECONDS = 10  # after this time, a process that Linux kills for lack of memory has ended
TAIL_LINES = 20  # how many lines of the log the status file keeps
OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|DefaultCPUAllocator: can't allocate memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)


@dataclass
class Record:
    """What one call of the tuner knows about a trial, in addition to the status file.

    Attributes:
        tries: how many of its runs failed.
        lost: how many of its runs were ended from outside.
        log_start: where in the log the output of the latest run starts.
        evaluations: how many evaluations of the latest run were seen.
    """

    tries: int = 0
    lost: int = 0
    log_start: int = 0
    evaluations: int = 0


class Scheduler:
    """Runs the trials of a search on an engine. Every change is on disk before the next step.

    Args:
        folder: the output folder, which this process has locked.
        search: says which trial runs next.
        engine: runs the command lines.
        command: the command line that runs an experiment. Each trial adds its ``--expid`` and its
            ``--seed``, and ``--resume``, so that a run that was killed goes on.
    """

    def __init__(self, folder: Folder, search: Search, engine: Engine, command: list[str]) -> None:
        self.folder, self.search, self.engine, self.command = folder, search, engine, command
        self.display = Display(search)
        self._records: defaultdict[str, Record] = defaultdict(Record)
        self._memory_kills = deque([memory_kills()], maxlen=int(MEMORY_SECONDS / POLL_SECONDS))
        self._configured: set[str] = set()

    def run(self) -> None:
        """Run trials until none is left. SIGTERM and SIGHUP end it as Ctrl-C does, unless they are ignored.

        Raises:
            UserError: the results are not all on the same data.
            KeyboardInterrupt: Ctrl-C; the runs have ended and are back in the queue.
        """
        for ending in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(ending) is not signal.SIG_IGN:
                signal.signal(ending, signal.default_int_handler)
        for trial in self.search.selected():
            self.folder.save(trial)
        try:
            self._start_all()
            # An engine that runs nothing and is not free has lost its machines. It waits for others.
            while self._running() or not self.engine.free():
                exits = self.engine.poll()
                self._memory_kills.append(memory_kills())
                for ended in exits:
                    self._judge(ended)
                self._watch()
                self.display.refresh()
                time.sleep(POLL_SECONDS)
                self._start_all()
        finally:
            self.engine.close()
            for trial in self._running():
                self._leave(trial, QUEUED, None, "stopped, back in the queue")
            self.display.close()

    def _running(self) -> list[Trial]:
        return [trial for trial in self.search.selected() if trial.status == RUNNING]

    # ---------------------------------------------------------------- start and watch

    def _start_all(self) -> None:
        """Start trials until the engine is full."""
        while self.engine.free() and (trial := self.search.next()) is not None:
            self._start(trial)

    def _start(self, trial: Trial) -> None:
        if trial.expid not in self._configured:
            trials = {trial.expid: trial for trial in self.search.trials.values()}
            path, root = self.folder.path, str(self.folder.runs)
            self.folder.write_config(path, self.search.space, trials, root)
            self._configured = set(trials)
        log, record = self.folder.log(trial), self._records[trial.name]
        record.log_start = log.stat().st_size if log.exists() else 0
        record.evaluations = 0
        of_trial = ["--expid", trial.expid, "--seed", str(trial.params["seed"]), "--resume"]
        job = Job(trial.name, [*self.command, *of_trial], log, self.folder.runs)
        device = self.engine.start(job)
        trial.status, trial.reason, trial.log_tail = RUNNING, None, []
        trial.attempts.append({"start": now(), "end": None, "exit_code": None, "device": device})
        self.folder.save(trial)
        self.display.event(trial, f"started on {device}: {as_text(trial.tuned | trial.changes)}")

    def _watch(self) -> None:
        """Read the evaluations of the running trials, and stop those that the search gives up."""
        for trial in self._running():
            record, stage_log = self._records[trial.name], self.folder.evaluations(trial)
            if len(stage_log) <= record.evaluations:
                continue
            record.evaluations = len(stage_log)
            self.display.evaluated(trial, stage_log[-1])
            if self.search.observe(trial, stage_log):
                self.engine.stop(trial.name)
                if result := self.folder.result(trial):  # it ended before it could be stopped
                    self._done(trial, result)
                else:
                    self._leave(trial, PRUNED, None, f"pruned after {len(stage_log)} evaluations")

    # ---------------------------------------------------------------- the end of a run

    def _judge(self, ended: Exit) -> None:
        """Decide whether a run that ended is done, has failed, or is tried again."""
        trial, record = self.search.trials[ended.name], self._records[ended.name]
        trial.attempts[-1]["device"] = ended.device
        if ended.code == 0 and (result := self.folder.result(trial)):
            return self._done(trial, result)
        tail = trial.log_tail = self._tail(trial)
        reason = _reason(ended, tail)
        killed = ended.code == -signal.SIGKILL and self._memory_kills[-1] > self._memory_kills[0]
        memory = killed or (ended.code != 0 and any(map(OUT_OF_MEMORY.search, tail)))
        busy = ended.code == 2 and any(BUSY in line for line in tail)
        lost = not memory and (busy or ended.code is None or ended.code in FROM_OUTSIDE)
        record.lost += lost
        status = QUEUED
        if lost and record.lost < LOST_TRIES:
            text = f"{reason}, back in the queue"
        elif memory and trial.halve_batch():
            text = f"out of memory, again with batch_size {trial.changes['batch_size']}"
        elif not memory and (tries := record.tries + 1) < TRIES:
            record.tries, text = tries, f"failed ({reason}), once more"
        else:
            status, trial.reason = FAILED, f"out of memory: {reason}" if memory else reason
            text = f"failed: {trial.reason}"
        self._leave(trial, status, ended.code, text)

    def _done(self, trial: Trial, result: dict[str, Any]) -> None:
        trial.metrics, trial.dataset_hash = result["metrics"], result["dataset_hash"]
        self._leave(trial, DONE, 0, "done")
        self.folder.require_same_data(self.search.trials.values())

    def _leave(self, trial: Trial, status: str, code: int | None, text: str) -> None:
        """Record how a run ended, and give its trial a new status."""
        trial.attempts[-1] |= {"end": now(), "exit_code": code}
        trial.status = status
        self.folder.save(trial)
        self.display.event(trial, text)
        if status in ENDED:
            self.search.tell(trial)

    def _tail(self, trial: Trial) -> list[str]:
        """The last lines that the latest run of a trial has written."""
        log = self.folder.log(trial)
        written = log.read_bytes()[self._records[trial.name].log_start :] if log.exists() else b""
        lines = written.decode(errors="replace").splitlines()
        return [line.rstrip() for line in lines if line.strip()][-TAIL_LINES:]


def memory_kills() -> int:
    """How many processes Linux has killed for lack of memory since it booted; elsewhere 0."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def now() -> str:
    """The local time as text, which sorts by time."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _reason(ended: Exit, tail: list[str]) -> str:
    """The reason why a run failed, in one line."""
    if ended.code is None:
        return f"{ended.device} was lost"
    if ended.code < 0:
        known = -ended.code in set(signal.Signals)
        return f"killed by {signal.Signals(-ended.code).name if known else -ended.code}"
    if ended.code == 0:
        return "ended without a result"
    errors = [line for line in tail if line.startswith("error: ")]
    return (errors or tail or [f"exit code {ended.code}"])[-1].removeprefix("error: ")
