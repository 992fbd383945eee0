"""What a running tuner shows, on a terminal and in a file."""

from __future__ import annotations

import io

import pytest

from engine.tuner.display import Display
from engine.tuner.report import Monitor
from engine.tuner.trial import DONE, FAILED, RUNNING, Trial


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def entry(auc: float, stage: str = "joint", epoch: float = 1) -> dict:
    return {"stage": stage, "epoch": epoch, "AUC": auc, "logloss": 1 - auc}


def show(file: io.StringIO, monitor: Monitor) -> str:
    """One trial runs, one is done, one fails, one is left; the text that this shows."""
    trials = [Trial(f"TWIN_{i}", {}, {}) for i in range(4)]
    display = Display(4, 0, monitor, str(monitor), monitor.mode, file)
    for trial in trials[:3]:
        trial.status = RUNNING
        display.event(trial, "started on cpu")
    display.refresh(trials)
    display.evaluated(trials[0], entry(0.99, "backbone"))  # not what is ranked in the end
    display.evaluated(trials[0], entry(0.75, epoch=2))
    display.refresh(trials)
    trials[1].status, trials[1].metrics = DONE, {"valid": entry(0.5)}
    display.event(trials[1], "done")
    trials[2].status = FAILED
    display.event(trials[2], "failed: bad luck")
    display.refresh(trials)
    display.refresh(trials)
    display.close()
    return file.getvalue()


@pytest.mark.parametrize(
    ("monitor", "best", "own"),
    [
        ({"monitor": "AUC"}, "best valid AUC 0.750000", "valid AUC 0.500000"),
        (
            {"monitor": {"logloss": 2}, "monitor_mode": "min"},
            "best valid 2 logloss 0.500000",
            "valid 2 logloss 1.000000",
        ),
    ],
)
def test_counts_best_and_time_left(monitor: dict, best: str, own: str) -> None:
    lines = show(io.StringIO(), Monitor(monitor)).splitlines()
    assert lines[:4] == [
        *(f"TWIN_{i} started on cpu" for i in range(3)),
        "0/4 trials: 0 done, 3 running, 0 failed",
    ]
    assert lines[4:6] == [f"TWIN_1 done, {own}", "TWIN_2 failed: bad luck"]
    assert lines[6] == f"2/4 trials: 1 done, 1 running, 1 failed, {best}, about 00:00 left"
    assert len(lines) == 7  # nothing is said twice


def test_on_a_terminal_the_bar_has_the_stage_of_each_run() -> None:
    shown = show(Terminal(), Monitor({"monitor": "AUC"}))
    assert "TWIN_2 failed: bad luck\n" in shown
    last = shown.rstrip().rpartition("\r")[2]
    assert last.startswith("2/4 trials |")
    assert "1 done, 1 running, 1 failed, best valid AUC 0.750000" in last
    assert last.endswith("| TWIN_0 joint epoch 2")
