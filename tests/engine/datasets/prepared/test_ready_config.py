"""The configuration that is written with a data set follows from the data."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.read import list_experiments, read_yaml
from engine.datasets.prepared import ready_config
from model_zoo.registry import model_names

NEGATIVES = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.00012}


def written(data: Path, folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """The checked parameters of every experiment for the tiny data, whose card is changed."""
    shutil.copytree(data, folder / "mine")
    card = folder / "mine" / "dataset_card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    ready_config.write(folder / "mine", folder / "mine")
    options = RunOptions(folder / "mine" / "config")
    return {model: load(f"{model}_mine", options).params for model in model_names()}


@pytest.mark.parametrize("negatives", [{}, {"negatives": NEGATIVES}])
def test_the_start_of_every_model_follows_from_the_negatives(
    tiny_data: Path, tmp_path: Path, negatives: dict
) -> None:
    for params in written(tiny_data, tmp_path, **negatives).values():
        start = (params["embedding_initializer"], params["embedding_regularizer"])
        assert "codebook_restarts" not in params  # the shipped models have fewer, as the paper
        assert params.get("match_features") == (True if negatives else None)
        assert params.get("negative_sampling_rate") == (0.00012 if negatives else None)
        if negatives:
            assert start == ("partial(nn.init.normal_, std=0.25)", 0)
        else:
            assert start == ("partial(nn.init.normal_, std=1e-4)", 1e-5)


@pytest.mark.parametrize("unit", ["s", "order", None])
@pytest.mark.parametrize("of", ["events", "samples", "events samples"])
def test_matches_are_counted_in_windows_where_times_are_known(
    unit: str | None, of: str, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "timed")
    if "events" in of:
        users = pl.read_parquet(data / "user_info.parquet")
        users.with_columns(full_time_seq="full_item_seq").write_parquet(data / "user_info.parquet")
    if "samples" in of:
        about = json.loads((data / "feature_map.json").read_text())
        about["features"].append({"time": {"type": "meta"}})
        (data / "feature_map.json").write_text(json.dumps(about))
    known = unit == "s" and of == "events samples"
    for model, params in written(data, tmp_path, time_unit=unit, negatives=NEGATIVES).items():
        assert params["match_windows"] == ([1800, 86_400, 604_800] if known else None)
        gap = [{"name": "time_gap", "vocab_size": 32}]  # HSTU reads times in any case
        wanted = gap if known and model.startswith("HSTU") else None
        assert params.get("event_cols") == wanted
    for model, time_gap in (("TWIN", True), ("HSTU", False)):
        options = RunOptions(tmp_path / "mine" / "config", changes={"time_gap": time_gap})
        found = load(f"{model}_mine", options).params.get("event_cols")
        assert found == (gap if known and time_gap else None)


def test_a_key_that_all_models_share_is_written_once(tiny_data: Path, tmp_path: Path) -> None:
    written(tiny_data, tmp_path, negatives=NEGATIVES)
    config = tmp_path / "mine" / "config"
    assert len(list_experiments(config)) == len(model_names())
    base, *experiments = read_yaml(config / "model_config.yaml").values()
    assert base["embedding_regularizer"] == 0
    assert not any("embedding_regularizer" in experiment for experiment in experiments)


@pytest.mark.parametrize(
    ("samples", "batch", "epochs"),
    [(1, 32, 20), (20_000, 64, 20), (80_000, 256, 20), (255_000, 1024, 20), (999_000, 1024, 20),
     (4_000_000, 4096, 5), (9_000_000, 8192, 2), (10**9, 8192, 2)],
)  # fmt: skip
def test_the_training_follows_from_the_number_of_samples(
    samples: int, batch: int, epochs: int
) -> None:
    found = ready_config.budget(samples)
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)
    evaluations = samples / batch / (found["eval_steps"] or samples / batch)
    assert round(evaluations) == (5 if samples > 10_000_000 else 1)


def test_no_warm_up_is_longer_than_the_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = ready_config.budget(10**8)
    monkeypatch.setattr(ready_config, "budget", lambda samples: huge)
    params = written(tiny_data, tmp_path)["TWIN_MoS"]
    assert (params["backbone_warmup_epochs"], params["expert_warmup_epochs"]) == (0.5, 0.5)


def test_gauc_is_left_out_where_no_user_has_both_labels(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    label = json.loads((tmp_path / "data" / "feature_map.json").read_text())["labels"][0]
    test = tmp_path / "data" / "test.parquet"
    pl.read_parquet(test).with_columns(pl.col("user_index").cast(pl.Int64) % 2).with_columns(
        pl.col("user_index").cast(pl.Float64).alias(label)
    ).write_parquet(test)
    params = written(tmp_path / "data", tmp_path)["TWIN"]
    assert params["metrics"] == ["AUC", "logloss"] and params["monitor"] == "AUC"
    assert "gAUC is left out" in capsys.readouterr().out
