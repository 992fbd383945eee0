"""The benchmarks run, their numbers are numbers, and what they compare agrees. No times are judged.

The rival is a stand-in with LongCTR's file and class names. ``LONGCTR_DIR=DIR`` in the environment also
runs against a checkout of LongCTR itself.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.bench import harness, inputs, model_cases, part_cases, rivals
from engine.bench.__main__ import COMMANDS, main
from engine.bench.child import in_own_process
from engine.common.errors import UserError
from model_zoo.history.item_dict import ItemDict

LONGCTR = os.environ.get("LONGCTR_DIR")
CPU = torch.device("cpu")
SMALL = ("--repeats", "2", "--threads", "1")
LOADER = ("loader", "--users", "40", "--length", "60", "--batch", "64", *SMALL)
STEP = ("step", "--models", "TWIN", "--length", "60", "--batch", "16", *SMALL)

STAND_IN_LOADER = """
from keras_preprocessing.sequence import pad_sequences
from engine.loader.loader import SequenceLoader

class LongCTRDataLoader(SequenceLoader):
    def __iter__(self):
        for batch_dict, item_dict, mask in super().__iter__():
            yield batch_dict, dict(item_dict), mask
"""
STAND_IN_TWIN = """
import model_zoo
from fuxictr.pytorch.models import BaseModel

class TWIN(BaseModel):
    def __init__(self, feature_map, **options):
        super().__init__(feature_map, **options)
        self.inner = model_zoo.TWIN(feature_map, **options)

    def forward(self, batch):
        return self.inner(batch)

    def state_dict(self):
        weights = self.inner.state_dict()
        for name in list(weights):
            bare = name.removeprefix("encoder.global_block.").removeprefix("classifier.")
            weights[bare.replace("long_attention.W_k", "long_attention.W_h")] = weights.pop(name)
        return weights

    def train_step(self, batch):
        loss = self.inner.add_loss(self(batch), self.inner.get_labels(batch))
        loss.backward()
        return loss
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A folder that looks like a LongCTR checkout."""
    (tmp_path / "TWIN").mkdir()
    (tmp_path / rivals.LOADER).write_text(STAND_IN_LOADER)
    (tmp_path / "TWIN" / "TWIN.py").write_text(STAND_IN_TWIN)
    return str(tmp_path)


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that ``python -m engine.bench arguments`` writes."""
    file = folder / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench", *arguments, "--json", str(file)])
        main()
    result = json.loads(file.read_text())
    for times in result["times"].values():
        assert 0 < times["min_s"] <= times["median_s"] <= times["max_s"] < math.inf
        assert 0 < times["samples_per_s"] < math.inf
    for ratio in result["ratios"].values():
        assert 0 < ratio["min"] <= ratio["max"] < math.inf
        assert 0 < ratio["median"] < math.inf
    return result


def test_loader(tmp_path: Path, stand_in: str) -> None:
    result = bench(tmp_path, *LOADER, "--longctr", stand_in)
    assert len(result["times"]) == 3 and len(result["ratios"]) == 2
    assert result["differences"] == {"first batch of both loaders": 0}
    assert "peak memory of loading" in result["notes"][0]


def test_metrics(tmp_path: Path) -> None:
    result = bench(tmp_path, "metrics", "--rows", "4000", "--users", "40", "--repeats", "2")
    assert set(result["differences"]) == {"AUC", "gAUC", "logloss"}
    assert max(result["differences"].values()) < 1e-12
    assert len(result["times"]["FuxiCTR"]["seconds"]) == 1
    assert len(result["times"]["ours"]["seconds"]) == 2


def test_scan(tmp_path: Path) -> None:
    result = bench(tmp_path, "scan", "--length", "12", "--batch", "4", *SMALL)
    assert len(result["times"]) == 4 and len(result["ratios"]) == 2
    assert len(result["differences"]) == 3
    assert max(result["differences"].values()) < part_cases.TOLERANCE
    assert "peak memory of both scans, length 12" in result["notes"][0]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own() -> None:
    """What the loop keeps for backward grows with its length, in the process that runs it."""
    short, long = (
        in_own_process(part_cases.peak_bytes, part_cases.LOOP, length, 64, CPU)
        for length in (20, 100)
    )
    state = 4 * 64 * 128 * 16  # bytes of the states of a position; the loop keeps several
    assert 2 * state * 80 < long - short < 12 * state * 80


def test_dispatch(tmp_path: Path) -> None:
    result = bench(tmp_path, "dispatch", "--length", "60", "--batch", "16", *SMALL)
    assert len(result["times"]) == 4 and len(result["ratios"]) == 2
    assert set(result["differences"]) == {"encoder", "encoder, gradients"}


def test_step(tmp_path: Path, stand_in: str) -> None:
    result = bench(tmp_path, *STEP, "--longctr", stand_in)
    signals = {f"our TWIN, {signal}" for signal in model_cases.SIGNALS}
    assert set(result["times"]) == {"LongCTR's TWIN", "our TWIN", "our TWIN, MoS"} | signals
    assert len(result["ratios"]) == 4
    assert result["differences"]["predictions, TWIN"] < model_cases.TOLERANCE
    for times in result["times"].values():
        assert times["bytes"] > 0 and times["flops"] > 0 and times["floor_s"] > 0


@pytest.mark.slow
def test_step_of_every_model_without_a_rival(tmp_path: Path) -> None:
    result = bench(tmp_path, "step", "--length", "20", "--batch", "8", "--amp", "bf16", *SMALL)
    assert result["settings"]["amp"] == "bf16"
    subjects = model_cases.SUBJECTS
    mixtures = {f"our {name}, MoS" for name, subject in subjects.items() if subject.mixture_goal}
    assert set(result["times"]) == {f"our {name}" for name in subjects} | mixtures | {
        f"our {name}, {signal}"
        for name, subject in subjects.items()
        for signal in model_cases.SIGNALS
        if subject.signals
    }
    assert result["times"]["our TransAct"]["samples"] == 2
    assert "--longctr DIR" in result["notes"][0]


def test_growth(tmp_path: Path) -> None:
    sizes = ("--lengths", "120", "--experts", "1", "3", "--batch", "6", *SMALL)
    plot = tmp_path / "growth.svg"
    result = bench(tmp_path, "growth", "--model", "SDIM", *sizes, "--plot", str(plot))
    assert "MoS, 3 experts, length 120" in result["times"]
    assert "MoS, 3 experts, length 120 / MoS, 1 experts, length 120" in result["ratios"]
    assert "<svg" in plot.read_text()[:2_000]


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cases, "BATCHES", 2)
    arguments = ("--rows", "300", "900", "--length", "12", "--batch", "16", *SMALL)
    result = bench(tmp_path, "table", *arguments)
    assert len(result["times"]) == 5 and len(result["ratios"]) == 3


def test_prepare(tmp_path: Path) -> None:
    result = bench(tmp_path, "prepare", "--rows", "3000", "6000", "--users", "30")
    assert result["times"]["6,000 rows"]["samples"] == 6000
    assert "GiB of memory at most" in result["notes"][0] and "of a row" in result["notes"][2]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_commands_say_what_they_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--help"], ["loader", "--help"]):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "samples of a batch (default: 8192)" in text


@pytest.mark.skipif(not LONGCTR, reason="LONGCTR_DIR names no checkout of LongCTR")
@pytest.mark.parametrize("command", [LOADER, STEP], ids=["loader", "step"])
def test_longctr_itself(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = bench(tmp_path, *command, "--longctr", str(LONGCTR))
    assert max(result["differences"].values()) < model_cases.TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*STEP, "--longctr", "nowhere"), "has no TWIN/TWIN.py"),
        (("step", "--models", "TWINS"), "--models: invalid choice: 'TWINS' .choose from 'TWIN'"),
        (("growth", "--model", "MIRRN"), "--model: invalid choice: 'MIRRN' .*'Mamba4Rec'"),
        (("growth", "--lengths", "0"), "--lengths: is 0; write a number above 0"),
        (("step", "--length", "20", "--longctr", "."), "--length 20: LongCTR's models need 50"),
        ((*LOADER, "--batch", "999"), "--batch 999: .* has 640 training samples"),
        ((*STEP, "--json", "nowhere/x.json"), "there is no folder nowhere"),
        (("growth", "--plot", "nowhere/x.svg"), "there is no folder nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_is_refused_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "dispatch", "--device", "cuda"])
    with pytest.raises(UserError, match="--device cuda"):
        main()


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(
    "draw", [inputs.evenly, model_cases.by_popularity, model_cases.from_few(5)]
)
def test_items_are_drawn_from_the_whole_table(draw: inputs.Draw) -> None:
    drawn = draw(50, (40, 30), torch.Generator().manual_seed(0))
    assert drawn.shape == (40, 30) and drawn.min() >= 1 and drawn.max() <= 49
    counts = drawn.flatten().bincount(minlength=50).sort(descending=True).values
    if draw is model_cases.by_popularity:
        assert 2 < counts[0] / counts[3] < 5
    else:
        assert (counts > 0).sum() == (49 if draw is inputs.evenly else 5)


def test_a_random_batch_is_left_padded() -> None:
    batch_dict, items, mask_BL = inputs.random_batch(8, 400, CPU)
    assert isinstance(items, ItemDict) and torch.equal(items.index[:, :-1] > 0, mask_BL > 0)
    assert torch.equal(mask_BL.sum(1).long(), batch_dict["seq_len"])
    assert (mask_BL.diff(dim=1) >= 0).all() and mask_BL[:, -1].all()
    assert torch.equal(items.index[:, -1], batch_dict["item_index"])


def test_a_broken_checkout_is_named(tmp_path: Path) -> None:
    (tmp_path / rivals.LOADER).write_text("import no_such_package")
    with pytest.raises(UserError, match=r"longctr_dataloader\.py.*no_such_package"):
        rivals.load_class(tmp_path, rivals.LOADER, "LongCTRDataLoader")


def report() -> harness.Report:
    return harness.Report("a title", harness.Namespace(device=CPU, repeats=3, amp=None))


def test_cases_take_turns() -> None:
    calls: list[str] = []
    cases = [
        harness.Case(name, lambda name=name: calls.append(name), once=name == "b") for name in "abc"
    ]
    seconds = harness.take_turns(cases, 2, CPU)
    assert calls == ["a", "b", "c", "a", "c"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 1, "c": 2}


def test_a_case_is_compared_with_those_that_it_names() -> None:
    made = report()
    cases = [
        harness.Case("theirs", lambda: None, {"ours": "at least 2"}),
        harness.Case("ours", lambda: None),
    ]
    made.time(cases, 10)
    assert made.ratios["theirs / ours"]["goal"] == "at least 2"
    assert made.times["ours"]["samples"] == 10 and "theirs / ours" in made.text()


def test_a_ratio_is_of_medians() -> None:
    made = report()
    made.record("slow", [6.0], 1)
    made.record("fast", [1.0, 2.0, 3.0], 1)
    made.compare("slow", "fast")
    assert made.ratios["slow / fast"] == {"median": 3.0, "min": 2.0, "max": 6.0, "goal": ""}


def test_a_floor_is_the_slower_of_moving_and_computing() -> None:
    made, square = report(), torch.ones(100, 100)
    for moved, floor_s in ((1e9, 1.0), (2e5, 2e-3)):  # 2e6 FLOPs take 2e-3 s
        made.time([harness.Case("product", lambda: square @ square, moved=moved)], 1)
        assert made.times["product"]["floor_s"] == pytest.approx(floor_s)


def test_outputs_that_differ_are_not_timed() -> None:
    made = report()
    with pytest.raises(AssertionError, match="outputs differ by 1"):
        made.agree("x", [torch.zeros(2)], [torch.ones(2)], 1e-5)
    with pytest.raises(AssertionError):
        made.agree("x", [torch.zeros(2)], [torch.full((2,), torch.nan)], 1e-5)
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(AssertionError, match="gradients"):
        made.agree_with_gradients("x", x.square(), x, [x], 1e-5)
