"""The benchmarks run, their numbers are numbers, and what they compare agrees. No times are judged.

The rival is a stand-in with LongCTR's file and class names. ``LONGCTR_DIR=DIR`` in the environment also
runs against a checkout of LongCTR itself.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.bench import dispatch, longctr, scan, step, table
from engine.bench.floor import Machine, Work
from engine.bench.scan_memory import peak_bytes
from engine.bench.timing import Report, alternate, find_device, require_close
from engine.common.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
LONGCTR = os.environ.get("LONGCTR_DIR")
SMALL = ("--repeats", "2", "--threads", "1")
LOADER = ("loader", "--users", "40", "--length", "60", "--batch", "64", *SMALL)
STEP = ("step", "--models", "TWIN", "--length", "60", "--batch", "16", *SMALL)

STAND_IN_LOADER = """
from keras_preprocessing.sequence import pad_sequences
from engine.loader import SequenceLoader

class LongCTRDataLoader(SequenceLoader):
    def __iter__(self):
        for batch_dict, item_dict, mask in super().__iter__():
            yield batch_dict, dict(item_dict), mask
"""
STAND_IN_TWIN = """
import model_zoo

class TWIN(model_zoo.TWIN):
    def state_dict(self):
        weights = super().state_dict()
        for name in list(weights):
            bare = name.removeprefix("encoder.global_block.").removeprefix("classifier.")
            weights[bare.replace("long_attention.W_k", "long_attention.W_h")] = weights.pop(name)
        return weights

    def train_step(self, batch):
        loss = self.add_loss(self(batch), self.get_labels(batch))
        loss.backward()
        return loss
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A folder that looks like a LongCTR checkout."""
    (tmp_path / "TWIN").mkdir()
    (tmp_path / longctr.LOADER).write_text(STAND_IN_LOADER)
    (tmp_path / "TWIN" / "TWIN.py").write_text(STAND_IN_TWIN)
    return str(tmp_path)


def bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON and the printed text of ``python -m engine.bench arguments``."""
    file = folder / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "engine.bench", *arguments, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    for times in result["times"].values():
        assert 0 < times["min_s"] <= times["median_s"] <= times["max_s"] < math.inf
        assert 0 < times["samples_per_s"] < math.inf
    for ratio in result["ratios"].values():
        assert 0 < ratio["min"] <= ratio["max"] < math.inf
        assert 0 < ratio["median"] < math.inf
    for name in [*result["times"], *result["ratios"], *result["differences"]]:
        assert name in done.stdout
    return result, done.stdout


def test_loader(tmp_path: Path, stand_in: str) -> None:
    result, text = bench(tmp_path, *LOADER, "--longctr", stand_in)
    assert "peak memory of loading" in text
    assert len(result["times"]) == 4 and len(result["ratios"]) == 3
    assert result["differences"] == {"first batch of both loaders": 0}


def test_metrics(tmp_path: Path) -> None:
    result, _ = bench(tmp_path, "metrics", "--rows", "4000", "--users", "40", "--repeats", "2")
    assert set(result["differences"]) == {"AUC", "gAUC", "logloss"}
    assert max(result["differences"].values()) < 1e-12
    assert len(result["times"]["FuxiCTR, gAUC"]["seconds"]) == 1
    assert len(result["times"]["ours, gAUC"]["seconds"]) == 2


def test_scan(tmp_path: Path) -> None:
    result, text = bench(tmp_path, "scan", "--length", "12", "60", "--batch", "4", *SMALL)
    assert len(result["times"]) == 2 * 6 and len(result["ratios"]) == 2 * 4
    assert max(result["differences"].values()) < scan.TOLERANCE
    assert text.count("peak memory, length") == 2


def test_scan_memory() -> None:
    """What a loop keeps for backward grows with its length, in the process that runs it."""
    cpu = torch.device("cpu")
    short, long = (peak_bytes("loop over unbind", length, 64, cpu) for length in (20, 100))
    state = 4 * 64 * 128 * 16  # bytes of the states of a position; the loop keeps several
    assert 2 * state * 80 < long - short < 12 * state * 80


def test_dispatch(tmp_path: Path) -> None:
    result, _ = bench(tmp_path, "dispatch", "--length", "60", "--batch", "16", *SMALL)
    assert len(result["ratios"]) == 4
    assert max(result["differences"].values()) < dispatch.TOLERANCE


def test_step(tmp_path: Path, stand_in: str) -> None:
    result, _ = bench(tmp_path, *STEP, "--longctr", stand_in)
    assert len(result["times"]) == 3 and len(result["ratios"]) == 2
    assert result["differences"]["predictions, TWIN"] < step.TOLERANCE
    for times in result["times"].values():
        assert times["bytes"] > 0 and times["flops"] > 0 and times["floor_s"] > 0


def test_step_of_every_case_without_a_rival(tmp_path: Path) -> None:
    result, _ = bench(tmp_path, "step", "--length", "20", "--batch", "8", "--amp", "bf16", *SMALL)
    assert result["settings"]["amp"] == "bf16"
    assert set(result["times"]) == {f"our {name}" for name in step.CASES} | {
        f"our {name}, MoS" for name, case in step.CASES.items() if case.mixture_goal
    }
    assert result["times"]["our TransAct"]["samples"] == 2


def test_growth(tmp_path: Path) -> None:
    sizes = ("--lengths", "12", "120", "--experts", "1", "3", "--batch", "6", *SMALL)
    plot = tmp_path / "growth.svg"
    result, _ = bench(tmp_path, "growth", *sizes, "--plot", str(plot))
    assert "MoS, length 120, 3 experts" in result["times"]
    assert "3 experts / 1, length 120" in result["ratios"]
    assert "<svg" in plot.read_text()[:2_000]


def test_a_floor_is_the_slower_of_moving_and_computing() -> None:
    machine = Machine(bytes_per_s=10.0, flops_per_s=100.0)
    assert Work(bytes=20.0, flops=100.0).floor(machine) == 2.0
    assert Work(bytes=20.0, flops=500.0).floor(machine) == 5.0


def test_table(tmp_path: Path) -> None:
    arguments = ("--rows", "300", "12000", "--length", "12", "--batch", "16", *SMALL)
    result, _ = bench(tmp_path, "table", *arguments)
    assert len(result["times"]) == 7 and len(result["ratios"]) == 4


@pytest.mark.parametrize("draw", [table.evenly, table.by_popularity, table.from_few(5)])
def test_items_are_drawn_from_the_whole_table(draw: table.Draw) -> None:
    drawn = draw(50, (40, 30), torch.Generator().manual_seed(0))
    assert drawn.shape == (40, 30) and drawn.min() >= 1 and drawn.max() <= 49
    counts = drawn.flatten().bincount(minlength=50).sort(descending=True).values
    if draw is table.by_popularity:
        assert 2 < counts[0] / counts[3] < 5
    else:
        assert (counts > 0).sum() == (49 if draw is table.evenly else 5)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_prepare(tmp_path: Path, form: str) -> None:
    result, text = bench(tmp_path, "prepare", "--rows", "3000", "--users", "30", "--form", form)
    assert [times["samples"] for times in result["times"].values()] == [3000, 3000]
    assert "peak memory of data/prepare.py: 0." in text
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_without_a_rival_it_says_so(tmp_path: Path) -> None:
    result, text = bench(tmp_path, *STEP)
    assert set(result["times"]) == {"our TWIN", "our TWIN, MoS"}
    assert "--longctr DIR" in text


@pytest.mark.skipif(not LONGCTR, reason="LONGCTR_DIR names no checkout of LongCTR")
@pytest.mark.parametrize("command", [LOADER, STEP], ids=["loader", "step"])
def test_longctr_itself(tmp_path: Path, command: tuple[str, ...]) -> None:
    result, _ = bench(tmp_path, *command, "--longctr", str(LONGCTR))
    assert max(result["differences"].values()) < step.TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*STEP, "--longctr", "nowhere"), "has no TWIN/TWIN.py"),
        (("step", "--models", "TWINS"), "--models TWINS: write some of TWIN"),
        (("growth", "--model", "MIRRN"), "--model MIRRN: write one of TWIN"),
        (("growth", "--lengths", "0"), "--lengths 0: write 1 or more"),
        (("step", "--length", "20", "--longctr", "."), "--length 20"),
        (("loader", "--batch", "0"), "--batch 0: write 1 or more"),
        ((*LOADER, "--batch", "9999"), "--batch 9999"),
        (("metrics", "--rows", "1"), "write more rows"),
        ((*STEP, "--json", "nowhere/x.json"), "there is no folder nowhere"),
        (("growth", "--plot", "nowhere/x.svg"), "there is no folder nowhere"),
        (("table", "--rows", "100", "0"), "--rows 0: write 1 or more"),
        (("table", "--rows", "1", "100"), "--rows 1 100: write a small"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.bench.__main__ import main

    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(UserError, match=message):
        main()
    torch.set_num_threads(threads)


def test_a_broken_checkout_is_named(tmp_path: Path) -> None:
    (tmp_path / longctr.LOADER).write_text("import no_such_package")
    with pytest.raises(UserError, match=r"longctr_dataloader\.py.*no_such_package"):
        longctr.load_class(tmp_path, longctr.LOADER, "LongCTRDataLoader")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_is_refused_without_cuda() -> None:
    with pytest.raises(UserError, match="--device cuda"):
        find_device("cuda")


def test_the_stand_in_pads_as_keras_does() -> None:
    sequences = [np.array([1, 2, 3, 4]), np.array([5]), np.array([], dtype=np.int64)]
    padded = longctr.pad_sequences(sequences, maxlen=3, value=0)
    assert padded.tolist() == [[2, 3, 4], [0, 0, 5], [0, 0, 0]]
    assert padded.dtype == np.int32
    with pytest.raises(NotImplementedError):
        longctr.pad_sequences(sequences, maxlen=3, padding="post")


def test_cases_take_turns() -> None:
    calls: list[str] = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = alternate(cases, repeats=2, once=["b"])
    assert calls == ["a", "b", "c", "a", "c"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 1, "c": 2}


def test_a_ratio_is_of_medians() -> None:
    seconds = {"slow": [6.0], "fast": [1.0, 2.0, 3.0]}
    report = Report("", {}, 1, seconds, ratios={"r": ("slow", "fast", "")})
    assert report.ratio("r") == {"median": 3.0, "min": 2.0, "max": 6.0, "goal": ""}


def test_outputs_that_differ_are_not_timed() -> None:
    with pytest.raises(AssertionError, match="outputs differ by 1"):
        require_close("x", torch.zeros(2), torch.ones(2), 1e-5)
    with pytest.raises(AssertionError):
        require_close("x", torch.zeros(2), torch.full((2,), torch.nan), 1e-5)
