"""What a running tuner shows, on a terminal and in a file."""

import io
from pathlib import Path

import pytest

from engine.tuner.leaderboard import Display
from engine.tuner.search import Search
from engine.tuner.space import Space
from engine.tuner.trial import DONE, FAILED, RUNNING, Trial


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def entry(auc: float, stage: str = "joint", epoch: float = 1) -> dict:
    return {"stage": stage, "epoch": epoch, "AUC": auc, "logloss": 1 - auc}


def show(file: io.StringIO, model: dict) -> str:
    """One trial runs, one is done, one fails, one is left; the text that this shows."""
    search = Search()
    search.space = Space(Path(), "TWIN", model, {}, {})
    trials = [Trial(f"TWIN_{i}", {}, {}) for i in range(5)]
    search.trials, search.size = {trial.name: trial for trial in trials}, 5
    display = Display(search, file)
    trials[4].status, trials[4].metrics = DONE, {"valid": entry(0.4)}  # in an earlier call
    for trial in trials[:3]:
        trial.status = RUNNING
        display.event(trial, "started on cpu")
    display.refresh()
    display.evaluated(trials[0], entry(0.99, "backbone"))  # not what is ranked in the end
    display.evaluated(trials[0], entry(0.75, epoch=2))
    display.refresh()
    trials[1].status, trials[1].metrics = DONE, {"valid": entry(0.5)}
    display.event(trials[1], "done")
    trials[2].status = FAILED
    display.event(trials[2], "failed: bad luck")
    display.refresh()
    display.refresh()
    display.close()
    return file.getvalue()


@pytest.mark.parametrize(
    ("monitor", "before", "best", "own"),
    [
        ({"monitor": "AUC"}, "AUC 0.4000", "AUC 0.5000", "valid AUC 0.500000"),
        (
            {"monitor": {"logloss": 2}},
            "2 logloss 1.2000",
            "2 logloss 1.0000",
            "valid 2 logloss 1.000000",
        ),
    ],
)
def test_counts_best_and_time_left(monitor: dict, before: str, best: str, own: str) -> None:
    """The best is of finished trials, of earlier calls too, never of one that may yet fail."""
    lines = show(io.StringIO(), monitor).splitlines()
    assert lines == [
        *(f"TWIN_{i} started on cpu" for i in range(3)),
        f"1 of 5 done, 3 running, 0 failed, best {before}, 00:00 left",
        f"TWIN_1 done, {own}",
        "TWIN_2 failed: bad luck",
        f"2 of 5 done, 1 running, 1 failed, best {best}, 00:00 left",
    ]


def test_a_narrow_terminal_shows_what_matters() -> None:
    shown = show(Terminal(), {"monitor": "AUC"})
    assert "TWIN_2 failed: bad luck\n" in shown
    last = shown.rstrip().rpartition("\r")[2].rstrip("\x1b[A")
    assert "2 of 5 done, 1 running, 1 failed, best AUC 0.5000, 00:00 left" in last[:80]
    assert "TWIN_0 joint epoch 2" in last
