"""Whole runs against a rival: both start equal, see the same samples, and so end equal. No times are
judged.

The rival is a stand-in with LongCTR's entry point, which asks of FuxiCTR what LongCTR's asks.
``LONGCTR_DIR=DIR`` in the environment also runs LongCTR itself.
"""

import argparse
import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.bench import child, epoch_cases
from engine.bench.__main__ import COMMANDS, main
from engine.common.errors import UserError
from engine.common.places import CONFIG
from engine.config.read import model_part, read_yaml
from engine.datasets import synthetic
from engine.datasets.prepared import layout

from ...support.command_line import Outcome, run_module

OPTIONS = COMMANDS["epoch"]["options"]
MODELS = OPTIONS["models"]
LONGCTR = os.environ.get("LONGCTR_DIR")
TINY = ("--users", "60", "--length", "60", "--repeats", "1", "--threads", "1")
STAND_IN = """
import argparse, fuxictr, os, sys
os.chdir(os.path.dirname(os.path.realpath(__file__)))
assert fuxictr.__version__ == "2.3.2"
from keras_preprocessing.sequence import pad_sequences
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor, build_dataset
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr.utils import load_config
from engine.loader.loader import SequenceLoader
import model_zoo


class TWIN(model_zoo.TWIN):
    fit, evaluate, train_step = BaseModel.fit, BaseModel.evaluate, BaseModel.train_step


parser = argparse.ArgumentParser()
for name in ("--config", "--expid", "--gpu"):
    parser.add_argument(name)
args = parser.parse_args()
params = load_config(args.config, args.expid) | {"gpu": int(args.gpu)}
seed_everything(params["seed"])
os.makedirs(params["model_root"] + params["dataset_id"], exist_ok=True)
processor = FeatureProcessor(**params)
build_dataset(processor, **params)
feature_map = FeatureMap(params["dataset_id"], processor.data_dir)
feature_map.load(processor.json_file, params)
params["data_loader"] = SequenceLoader
model = TWIN(feature_map, **params, longctr_compat=True)
model.compile(params["optimizer"], params["loss"], params["learning_rate"])
train, valid = RankDataLoader(feature_map, stage="train", **params).make_iterator()
model.fit(train, validation_data=valid, **params)
model.evaluate(valid)
model.evaluate(RankDataLoader(feature_map, stage="test", **params).make_iterator())
open("results.csv", "a").write(args.expid)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder that looks like a LongCTR checkout."""
    folder = tmp_path / "checkout"
    (folder / "TWIN").mkdir(parents=True)
    (folder / "TWIN" / "TWIN.py").touch()
    (folder / "run_expid.py").write_text(STAND_IN)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    layout.write(synthetic.generate(replace(synthetic.SIZES["small"], users=20), 1), folder)
    return folder


def set_up(data: Path, folder: Path, model: str, **options: Any) -> dict[str, int]:
    """What ``epoch_cases.set_up`` makes with such options."""
    given = OPTIONS | {"rows": 64, "longctr": "somewhere"} | options
    return epoch_cases.set_up(data, folder, model, argparse.Namespace(**given))


def bench(*arguments: str) -> Outcome:
    return run_module("engine.bench", "epoch", *arguments)


def compare(model: str, checkout: Path | str, folder: Path) -> dict[str, Any]:
    """The JSON of a run against a checkout. Of 88 samples, one pair in another order is 5e-4 of AUC."""
    file = folder / "result.json"
    command = ("--models", model, "--longctr", str(checkout), "--rows", "700", "--batch", "256")
    done = bench(*TINY, *command, "--json", str(file))
    assert done.code == 0, done.stderr
    assert "700 train, 88 valid, 88 test samples" in done.stdout
    result = json.loads(file.read_text())
    assert result["differences"][f"{model}, mean validation logloss"] < 1e-4
    assert result["differences"][f"{model}, mean validation AUC"] < 3e-3
    return result


@pytest.mark.slow
def test_both_sides_end_with_the_same_numbers(tmp_path: Path, stand_in: Path) -> None:
    before = sorted(stand_in.rglob("*"))
    result = compare("TWIN", stand_in, tmp_path)
    sides = ("LongCTR's TWIN", "our TWIN")
    assert set(result["times"]) == set(sides)
    assert all(0 < times["min_s"] < math.inf for times in result["times"].values())
    assert all(times["samples"] == 700 for times in result["times"].values())
    assert set(result["ratios"]) == {f"{sides[0]} / {sides[1]}"}
    assert len(result["differences"]) == 3
    assert sorted(stand_in.rglob("*")) == before, "the checkout was written to"


@pytest.fixture
def imagined_runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs write their metrics at once, in place of processes that train; returns their arguments."""
    started: list[list[str]] = []

    def run(*arguments: str, log: Path, **variables: str) -> tuple[float, int]:
        started.append([*arguments])
        metrics = {"AUC": 0.75, "gAUC": 0.625, "logloss": 0.5}
        if "engine.bench.rivals" in arguments:
            Path(arguments[4]).write_text(json.dumps([metrics, metrics]))
            return 10.0, 2**30
        expid = arguments[arguments.index("--expid") + 1]
        seed = epoch_cases.FIRST_SEED + int(expid[-1])
        folder = log.parent / "checkpoints" / epoch_cases.DATASET
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"stage_log": [metrics | {"AUC": 0.5}]})
        (folder / f"{expid}_seed{seed}.json").write_text(text)
        return 2.0, 2**29

    monkeypatch.setattr(epoch_cases, "run_python", run)
    return started


def test_both_sides_take_turns(
    data: Path,
    stand_in: Path,
    tmp_path: Path,
    imagined_runs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "result.json"
    command = ("epoch", "--models", "TWIN", "--rows", "64", "--data", str(data), "--threads", "1")
    command += ("--longctr", str(stand_in), "--json", str(file))
    monkeypatch.setattr(sys, "argv", ["bench", *command])
    main()
    result = json.loads(file.read_text())
    assert result["ratios"]["LongCTR's TWIN / our TWIN"]["median"] == 5
    assert result["differences"]["TWIN, mean validation AUC"] == 0.25
    expids = [run[run.index("--expid") + 1] for run in imagined_runs]
    assert expids == ["longctr_0", "ours_0", "longctr_1", "ours_1"]
    assert "our TWIN: peak memory 0.50 GiB" in result["notes"]


@pytest.mark.slow
def test_without_a_rival_ours_alone_is_measured(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("epoch", *TINY, "--models", "SDIM", "--rows", "300", "--data", str(data))
    monkeypatch.setattr(sys, "argv", ["bench", *command])
    main()
    text = capsys.readouterr().out
    assert re.search(r"our SDIM: peak memory [01]\.", text)
    assert "LongCTR's" not in text and "--longctr DIR" in text


@pytest.mark.skipif(not LONGCTR, reason="LONGCTR_DIR names no checkout of LongCTR")
@pytest.mark.parametrize("model", MODELS)
def test_longctr_itself_ends_with_the_same_auc(model: str, tmp_path: Path) -> None:
    compare(model, str(LONGCTR), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "TWINN"), "--models: invalid choice: 'TWINN'"),
        (("--longctr", "nowhere"), "--longctr nowhere: has no run_expid.py"),
        (("--longctr", "CHECKOUT", "--models", "TWIN", "--length", "20"), "--length 20"),
        (("--rows", "0"), "--rows: is 0; write a number above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = tuple(str(stand_in) if a == "CHECKOUT" else a for a in arguments)
    monkeypatch.setattr(sys, "argv", ["bench", "epoch", *arguments])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.slow
def test_a_rival_that_fails_is_quoted(
    stand_in: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand_in / "run_expid.py").write_text("raise RuntimeError('short history')")
    command = ("epoch", "--models", "TWIN", "--longctr", str(stand_in), "--data", str(data))
    monkeypatch.setattr(sys, "argv", ["bench", *command])
    with pytest.raises(UserError, match="RuntimeError: short history"):
        main()


@pytest.mark.parametrize("model", MODELS)
def test_two_experiments_differ_in_nothing_but_the_start(
    model: str, data: Path, tmp_path: Path
) -> None:
    set_up(data, tmp_path / "a", model)
    config: dict[str, Any] = read_yaml(tmp_path / "a" / "config" / "model_config.yaml")
    for i in range(2):
        theirs, ours = (config[f"{side}_{i}"] for side in ("longctr", "ours"))
        start = str(tmp_path / "a" / f"start_{i}.model")
        own = {"longctr_compat": True, "backbone_checkpoint": start}
        assert ours == theirs | own and theirs["seed"] == epoch_cases.FIRST_SEED + i
        assert theirs["model"] == model and theirs["epochs"] == 1 and not theirs["shuffle"]
        assert not any(value for key, value in theirs.items() if key.endswith("dropout"))
        assert theirs.get("reuse_hash", True)
    published = model_part(CONFIG, f"{model}_MicroVideo1.7M_x2")
    assert theirs["embedding_dim"] == published["embedding_dim"]
    assert theirs["learning_rate"] == published["learning_rate"]


def test_training_samples_are_shuffled_once(data: Path, tmp_path: Path) -> None:
    counts = [set_up(data, tmp_path / name, "TWIN", rows=100) for name in "ab"]
    of_a, of_b, whole = (
        pl.read_parquet(folder / "train.parquet")
        for folder in (*(tmp_path / n / "data" / epoch_cases.DATASET for n in "ab"), data)
    )
    assert of_a.equals(of_b) and counts[0] == {"train": 100, "valid": 13, "test": 13}
    assert not of_a.equals(whole.head(100))
    assert len(of_a.join(whole.unique(), on=whole.columns, how="semi")) == 100


def test_a_process_is_measured_and_a_failure_quoted(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    seconds, peak_bytes = child.run_python("-c", "print('x'); sum(range(10**6))", log=log)
    assert seconds > 0 and peak_bytes > 2**20
    assert log.read_text() == "x\n"
    with pytest.raises(UserError, match=r"exit code 3: .*went wrong"):
        child.run_python("-c", "print('went wrong'); raise SystemExit(3)", log=log)
