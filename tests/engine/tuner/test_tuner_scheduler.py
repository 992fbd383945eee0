"""Scheduling on runs that only pretend: retries, memory, kills, locks, what is written.

``fake_run.py`` stands for ``run_expid.py``; a trial's ``topk`` decides what befalls it.
"""

import csv
import io
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml

from engine.baseline import record
from engine.common.errors import UserError
from engine.tuner import scheduler, trial
from engine.tuner.engines import threads_environment
from engine.tuner.folder import Folder

from ...support.command_line import alive, children, kill_child, wait_for
from ...support.fake_tuner import FakeTuner, start


@pytest.fixture
def tuner(tmp_path: Path) -> FakeTuner:
    return FakeTuner(tmp_path)


# ---------------------------------------------------------------- the usual way


def test_results_are_ranked_and_the_best_is_ready_to_run(
    tuner: FakeTuner, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner.write({"learning_rate": [0.01, 0.1], "topk": [1, 2, 3]})
    assert tuner.run() == 0
    rows = list(csv.DictReader(io.StringIO(tuner.reports()["leaderboard.csv"])))
    scores = [float(row["valid_AUC"]) + float(row["valid_gAUC"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 6
    assert [float(row["monitor"]) for row in rows] == scores
    best = rows[0]
    saved = tuner.status()[best["trial"]]
    assert saved["metrics"]["valid"]["AUC"] == float(best["valid_AUC"])
    assert saved["status"] == "done" and saved["attempts"][0]["exit_code"] == 0
    entry = yaml.safe_load(tuner.reports()["best/model_config.yaml"])["TWIN_MoS_tiny_best"]
    assert entry["topk"] == int(best["topk"])
    assert entry["learning_rate"] == float(best["learning_rate"])
    assert entry["model_root"] == "./checkpoints/"
    bars = next(csv.DictReader(io.StringIO(tuner.reports()["bars_leaderboard.csv"])))
    assert bars == {
        "Year": "2026",
        "Publication": "WWW'26",
        "Model": "TWIN_MoS",
        "Paper URL": "https://doi.org/10.1145/3774904.3792483",
        "gAUC": f"{float(best['test_gAUC']):.6f}",
        "AUC": f"{float(best['test_AUC']):.6f}",
        "Logloss": f"{float(best['test_logloss']):.6f}",
        "Running Steps": "out/best",
        "Contributor": "",
    }
    shown = capsys.readouterr().out
    assert "6 of 6 done, 0 running, 0 failed, best " in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("TWIN_MoS_tiny_")][
        -6:
    ] == [row["trial"] for row in rows]


def test_the_report_names_sampled_negatives_and_the_counting_baseline(
    tuner: FakeTuner, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {split: {"AUC": 0.75} for split in ("valid", "test")}
    entry = {"metrics": {record.ALL: metrics}}
    record.add(tuner.path / "checkpoints" / "tiny", "same", 50, entry)
    card = tuner.path / "data" / "tiny" / "dataset_card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"negatives": {"per_positive": 4, "from": "time", "rate": 0.1}}))
    tuner.write({"topk": [1, 2]})
    assert tuner.run() == 0
    for text in (tuner.reports()["table.md"], capsys.readouterr().out):
        lines = text.splitlines()
        place = lines.index("metrics are on sampled negatives (4, time)")
        assert lines[place + 1] == "counting baseline: valid AUC 0.750000, test AUC 0.750000"


def test_monitor_that_falls_is_ranked_the_other_way(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2, 3]})
    text = tuner.file.read_text()
    content = yaml.safe_load(text)
    content["model_config"]["TWIN_MoS_tiny"] |= {"monitor": "logloss"}
    tuner.file.write_text(yaml.safe_dump(content))
    assert tuner.run() == 0
    rows = csv.DictReader(io.StringIO(tuner.reports()["leaderboard.csv"]))
    losses = [float(row["valid_logloss"]) for row in rows]
    assert losses == sorted(losses)


def test_finished_trials_are_kept_when_the_grid_grows(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2]})
    assert tuner.run() == 0
    first = tuner.status()
    tuner.write({"topk": [3, 2, 1]})
    assert tuner.run() == 0
    assert first.items() <= tuner.status().items() and len(tuner.status()) == 3
    assert all(tuner.starts(name) == 1 for name in tuner.status())
    assert len(tuner.reports()["leaderboard.csv"].splitlines()) == 4


def test_grids_may_share_a_folder_and_each_report_is_of_one(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2]})
    assert tuner.run() == 0
    first = tuner.reports()
    tuner.write({"topk": [3]}, modes={"3": "fails"})
    assert tuner.run() == 1
    rows = list(csv.DictReader(io.StringIO((tuner.out / "leaderboard.csv").read_text())))
    assert [(row["topk"], row["status"]) for row in rows] == [("3", "failed")]
    assert not (tuner.out / "best").exists() and not (tuner.out / "bars_leaderboard.csv").exists()
    tuner.write({"topk": [1, 2]})
    assert tuner.run() == 0 and tuner.reports() == first
    assert all(tuner.starts(status["name"]) == 1 for status in map(tuner.by_topk().get, (1, 2)))


def test_tag_runs_a_part_and_reports_all(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2, 3]})
    names = [one.name for one in tuner.space().grid()]
    assert tuner.run(tag=names[1]) == 0
    assert list(tuner.status()) == [names[1]]
    rows = list(csv.DictReader(io.StringIO(tuner.reports()["leaderboard.csv"])))
    assert [row["status"] for row in rows] == ["done", "queued", "queued"]
    with pytest.raises(UserError, match=r"--tag nothing: in no trial's name; there are TWIN_MoS"):
        tuner.run(tag="nothing")


def test_parallel_cpu_runs_share_the_cores(
    tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert threads_environment(cores)["OMP_NUM_THREADS"] == "1"
    assert threads_environment(10 * cores)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in threads_environment(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tuner.write({"topk": [1]})
    assert tuner.run(jobs=2) == 0
    (starts,) = (tuner.out / "runs" / "tiny").glob("*.starts")
    assert starts.read_text() == "3\n"


# ---------------------------------------------------------------- misfortune


def test_failures_are_tried_once_more_and_named(
    tuner: FakeTuner, capsys: pytest.CaptureFixture[str]
) -> None:
    modes = {"1": "fails", "2": "fails once", "3": "no result"}
    tuner.write({"topk": [1, 2, 3, 4]}, modes=modes)
    assert tuner.run() == 1
    status = tuner.by_topk()
    assert {topk: s["status"] for topk, s in status.items()} == {
        1: "failed", 2: "done", 3: "failed", 4: "done"
    }  # fmt: skip
    assert [attempt["exit_code"] for attempt in status[1]["attempts"]] == [1, 1]
    assert [attempt["exit_code"] for attempt in status[2]["attempts"]] == [1, 0]
    assert status[1]["reason"] == "topk is unlucky"
    assert status[3]["reason"] == "ended without a result"
    assert "error: topk is unlucky" in status[1]["log_tail"]
    log = (tuner.out / "trials" / f"{status[2]['name']}.log").read_text()
    assert "bad luck" in log and "1 epochs are there" in log  # it went on where it failed
    shown = capsys.readouterr().out.split("best:")[1]
    for topk in (1, 3):
        assert f"{status[topk]['reason']}" in shown
        assert str(tuner.out / "trials" / f"{status[topk]['name']}.log") in shown
    assert status[2]["name"] not in shown.partition("failed")[2]

    tuner.write({"topk": [1, 2, 3, 4]})  # the cause is gone: failed trials run again, no other
    assert tuner.run() == 0
    assert [tuner.starts(status[topk]["name"]) for topk in (1, 2, 3, 4)] == [3, 2, 3, 1]


def test_no_memory_halves_the_batch_until_it_fits(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2]}, modes={"1": "no memory"})
    assert tuner.run() == 0
    status = tuner.by_topk()[1]
    assert status["changes"] == {"batch_size": 32, "accumulation_steps": 4}
    assert [attempt["exit_code"] for attempt in status["attempts"]] == [1, 1, 0]
    log = (tuner.out / "trials" / f"{status['name']}.log").read_text()
    assert log.count("0 epochs are there") == 3  # a fresh start each time
    assert "out of memory, ran with batch_size: 32" in tuner.reports()["table.md"]
    before = tuner.reports()
    assert tuner.run() == 0 and tuner.reports() == before


def test_killed_by_the_system_is_no_memory_too_and_ends(
    tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux counts what it kills for want of memory."""
    monkeypatch.setattr(scheduler, "memory_kills", iter(range(100)).__next__)
    monkeypatch.setattr(trial, "HALVINGS", 2)
    tuner.write({"topk": [1]}, modes={"1": "killed"})
    assert tuner.run() == 1
    (status,) = tuner.status().values()
    assert status["reason"] == "out of memory: killed by SIGKILL"
    assert len(status["attempts"]) == 3 and status["changes"]["batch_size"] == 128 // 2**2
    assert not (tuner.out / "best").exists()


@pytest.mark.slow
def test_killed_by_somebody_it_goes_on_as_it_was(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2]}, modes={"1": "killed twice"})
    assert tuner.run() == 0
    status = tuner.by_topk()[1]
    assert [attempt["exit_code"] for attempt in status["attempts"]] == [-9, -9, 0]
    assert status["changes"] == {} and status["status"] == "done"
    tuner.write({"topk": [3]}, modes={"3": "killed"})
    assert tuner.run() == 1  # but not for ever
    assert tuner.by_topk()[3]["reason"] == "killed by SIGKILL"


def test_different_data_is_not_compared(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2, 3]}, hashes={"2": "other"})
    with pytest.raises(UserError, match="ran on other data"):
        tuner.run(jobs=1)
    with pytest.raises(UserError, match="ran on other data"):
        tuner.run(jobs=1)
    assert not (tuner.out / "leaderboard.csv").exists()


def test_output_that_another_tuner_uses(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]})
    holder = Folder(tuner.out)
    holder.open()
    with pytest.raises(
        UserError, match=f"another tuner or study is using it, process {os.getpid()}"
    ):
        tuner.run()
    holder.close()
    assert tuner.run() == 0


def test_a_configuration_of_others_is_not_overwritten(tuner: FakeTuner) -> None:
    tuner.out.mkdir()
    mine = tuner.out / "model_config.yaml"
    mine.write_text("Base: {}\n")
    tuner.write({"topk": [1]})
    with pytest.raises(UserError, match="a configuration that no tuner has written"):
        tuner.run()
    assert mine.read_text() == "Base: {}\n" and list(tuner.out.iterdir()) == [mine]


def test_a_damaged_progress_file_stops_nothing(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]}, seconds=0.1)
    (tuner.out / "runs" / "tiny").mkdir(parents=True)
    (only,) = tuner.space().grid()
    (tuner.out / "runs" / f"{only.run_name}.progress.json").write_text("{half")
    assert tuner.run() == 0


def test_a_part_by_number_as_in_fuxictr(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2, 3]})
    assert tuner.run(tag="002") == 0
    assert {topk for topk, s in tuner.by_topk().items() if s["status"] == "done"} == {2}


def test_trials_that_ran_on_other_data_are_named(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]})
    assert tuner.run() == 0
    (only,) = tuner.search.trials.values()
    folder = Folder(tuner.out)
    folder.require_same_data([only], "same")
    with pytest.raises(UserError, match=f"{only.name} ran on other data .hash same, not new"):
        folder.require_same_data([only], "new")


def test_what_was_out_of_memory_gets_its_batch_back(
    tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it failed for good, in the next call: the cause may be gone."""
    monkeypatch.setattr(trial, "HALVINGS", 1)
    tuner.write({"topk": [1]}, modes={"1": "never enough memory"})
    assert tuner.run() == 1
    tuner.write({"topk": [1]})
    assert tuner.run() == 0
    (status,) = tuner.status().values()
    assert status["changes"] == {} and status["status"] == "done"


def test_damaged_status_file_is_named(tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]})
    assert tuner.run() == 0
    (file,) = (tuner.out / "trials").glob("*.json")
    for text in ("{}", "half", "[]"):
        file.write_text(text)
        with pytest.raises(UserError, match=str(file)):
            tuner.run()


# ---------------------------------------------------------------- kills

GRID = {"learning_rate": [0.1, 0.2, 0.3], "topk": [1, 2, 3, 4]}
MODES = {"2": "fails once", "3": "fails", "4": "no memory"}


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_reports(tmp_path: Path) -> None:
    undisturbed, killed = FakeTuner(tmp_path / "calm"), FakeTuner(tmp_path / "killed")
    for tuner in (undisturbed, killed):
        tuner.path.mkdir()
        tuner.write(GRID, modes=MODES, epochs=3, seconds=0.1)
    assert undisturbed.run() == 1
    rng = random.Random(1)
    for _ in range(3):
        with start(killed) as process:
            wait_for(lambda process=process: children(process.pid))
            time.sleep(rng.uniform(0, 1.5))
            runs = children(process.pid)
            process.kill()
        wait_for(lambda runs=runs: not any(map(alive, runs)))
    assert killed.run() == 1
    assert killed.reports() == {
        name: text.replace(str(undisturbed.path), str(killed.path))
        for name, text in undisturbed.reports().items()
    }
    attempts = [a for status in killed.status().values() for a in status["attempts"]]
    assert any(a["end"] is None for a in attempts)  # so the kills did interrupt


@pytest.mark.slow
def test_runs_killed_three_times_end_with_the_same_reports(tmp_path: Path) -> None:
    undisturbed, killed = FakeTuner(tmp_path / "calm"), FakeTuner(tmp_path / "killed")
    for tuner in (undisturbed, killed):
        tuner.path.mkdir()
        tuner.write(GRID, epochs=3, seconds=0.1)
    assert undisturbed.run() == 0
    rng = random.Random(2)
    with start(killed) as process:
        for _ in range(3):
            wait_for(lambda: children(process.pid))
            time.sleep(rng.uniform(0.1, 0.6))
            kill_child(process.pid)
        shown, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert killed.reports() == {
        name: text.replace(str(undisturbed.path), str(killed.path))
        for name, text in undisturbed.reports().items()
    }
    attempts = [a for status in killed.status().values() for a in status["attempts"]]
    assert sum(a["exit_code"] == -signal.SIGKILL for a in attempts) == 3


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupted_it_ends_its_runs_and_goes_on(how: signal.Signals, tuner: FakeTuner) -> None:
    tuner.write({"topk": [1, 2, 3]}, epochs=10, seconds=0.2)
    with start(tuner) as process:
        wait_for(lambda: list((tuner.out / "runs").glob("tiny/*.resume")))
        runs = children(process.pid)
        process.send_signal(how)
        shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted; the same command goes on" in shown
    assert "Traceback" not in shown and runs and not any(map(alive, runs))
    assert {status["status"] for status in tuner.status().values()} == {"queued"}
    tuner.write({"topk": [1, 2, 3]}, epochs=10)
    assert tuner.run() == 0
    log = "".join(file.read_text() for file in (tuner.out / "trials").glob("*.log"))
    assert "0 epochs" in log and any(f"{n} epochs are there" in log for n in range(1, 10))


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_was_ignored_stays_ignored(before: signal.Handlers, tuner: FakeTuner) -> None:
    tuner.write({"topk": [1]})
    real = signal.signal(signal.SIGHUP, before)
    try:
        assert tuner.run() == 0
        assert (signal.getsignal(signal.SIGHUP) is before) == (before is signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, real)
