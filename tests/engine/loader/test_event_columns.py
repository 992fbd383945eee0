"""Buckets of events, loaded for batches, against plain Python; and data that do not fit."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.loader.loader import SequenceLoader
from model_zoo import get_model

ITEMS, LENGTHS = 9, [0, 5, 1, 12]
EVENT_COLS = [{"name": "action", "vocab_size": 4}, {"name": "time_gap", "vocab_size": 8}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four users, and a sample at each moment of their histories and after it; times in ms."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 900_000, n)) for n in LENGTHS]
    users = {
        "user_index": range(4),
        "full_item_seq": [rng.integers(1, ITEMS, n) for n in LENGTHS],
        "full_time_seq": times,
        "event_action": [rng.integers(1, 4, n) for n in LENGTHS],
    }
    lists = dict.fromkeys([name for name in users if name != "user_index"], pl.List(pl.Int64))
    pl.DataFrame(users, schema_overrides=lists).write_parquet(tmp_path / "user_info.parquet")
    items = {"item_index": range(ITEMS), "item_id": range(ITEMS)}
    pl.DataFrame(items).write_parquet(tmp_path / "item_info.parquet")
    rows = [(user, n) for user, length in enumerate(LENGTHS) for n in range(length + 1)]
    samples = {
        "user_index": [user for user, _ in rows],
        "seq_len": [n for _, n in rows],
        "item_index": [1] * len(rows),
        "time": [(int(times[user][n - 1]) if n else 0) + 700 * n for user, n in rows],
        "label": [n % 2 for _, n in rows],
    }
    pl.DataFrame(samples).write_parquet(tmp_path / "train.parquet")
    (tmp_path / "dataset_card.json").write_text(json.dumps({"time_unit": "ms"}))
    return tmp_path


def load(folder: Path, event_cols: list[dict[str, Any]] = EVENT_COLS, **options: Any) -> Any:
    meta = ["user_index", "item_index", "seq_len", "time"]
    item = {"name": "item_id", "type": "categorical", "vocab_size": ITEMS, "source": "item"}
    described = {
        "data_root": str(folder.parent),
        "dataset_id": "events",
        "feature_cols": [{"name": meta, "type": "meta"}, item],
        "label_col": {"name": "label"},
        "event_cols": event_cols,
        "embedding_dim": 4,
    }
    paths = [folder / f"{name}.parquet" for name in ("train", "user_info", "item_info")]
    feature_map = build_feature_map(described)
    return SequenceLoader(feature_map, *paths, event_cols=event_cols, **options)


@pytest.mark.parametrize("streaming", [False, True])
def test_buckets_stand_beside_their_items(folder: Path, streaming: bool) -> None:
    users = pl.read_parquet(folder / "user_info.parquet").to_dicts()
    samples = iter(pl.read_parquet(folder / "train.parquet").to_dicts())
    for batch_dict, items, mask_BL in load(folder, batch_size=6, max_len=7, streaming=streaming):
        for b, mask_L in enumerate(mask_BL > 0):
            row = next(samples)
            user, n = users[row["user_index"]], row["seq_len"]
            events = range(max(0, n - 7), n)
            gaps = [(row["time"] - user["full_time_seq"][i]) / 1000 for i in events]
            wanted = {
                "action": [user["event_action"][i] for i in events],
                "time_gap": [min(7, int(math.log2(1 + gap))) for gap in gaps],
            }
            assert items.index[b, :-1][mask_L].tolist() == [
                user["full_item_seq"][i] for i in events
            ]
            for name, bucket_BL in items.events.items():
                assert bucket_BL[b][mask_L].tolist() == wanted.pop(name)
                assert not bucket_BL[b][~mask_L].any()
            assert not wanted
        assert torch.equal(batch_dict["label"], batch_dict["seq_len"] % 2)


def test_without_event_cols_there_are_none(folder: Path) -> None:
    assert next(iter(load(folder, [])))[1].events == {}


def changed(folder: Path, *columns: pl.Expr) -> Path:
    users = pl.read_parquet(folder / "user_info.parquet")
    users.with_columns(columns).write_parquet(folder / "user_info.parquet")
    return folder


def test_data_that_do_not_fit_are_rejected(folder: Path) -> None:
    with pytest.raises(UserError, match=r"user_info.parquet: column 'event_played' is missing"):
        load(folder, [{"name": "played", "vocab_size": 3}])
    with pytest.raises(UserError, match=r"event_action, row \d: a value is outside 0 to 1"):
        load(folder, [{"name": "action", "vocab_size": 2}])
    with pytest.raises(
        UserError, match=r"event_cols, 'action': vocab_size is missing; write how many"
    ):
        load(folder, [{"name": "action"}])
    with pytest.raises(UserError, match=r"event_action, row 1: the list needs one entry for each"):
        load(changed(folder, pl.col("event_action").list.head(4)))
    times = pl.col("full_time_seq")
    for change, error in (
        (times.cast(pl.List(pl.Datetime)), "full_time_seq is .*; it must hold whole numbers"),
        (times.cast(pl.List(pl.String)), "full_time_seq is .*; it must hold whole numbers"),
        (times.list.head(4), r"full_time_seq, row 1: the list needs one entry for each"),
    ):
        with pytest.raises(UserError, match=error):
            load(changed(folder, change), EVENT_COLS[1:])
    users = pl.read_parquet(folder / "user_info.parquet").drop("full_time_seq")
    users.write_parquet(folder / "user_info.parquet")
    with pytest.raises(UserError, match=r"event_cols, time_gap: .* lacks times of samples"):
        load(folder, EVENT_COLS[1:])


def test_a_model_reads_what_the_loader_gives(folder: Path) -> None:
    """And its tables of buckets learn from it."""
    loaded = load(folder, batch_size=30)
    feature_map = loaded.samples.feature_map
    settings = {"embedding_dim": 4, "event_cols": EVENT_COLS, "verbose": 0, "metrics": ["AUC"]}
    settings |= {
        "embedding_initializer": "partial(nn.init.normal_, std=0.5)",
        "model_root": str(folder),
    }
    model = get_model("TWIN_MoS")(feature_map, **settings)
    batch = next(iter(loaded))
    model.add_loss(model(batch), model.get_labels(batch)).backward()
    shown = batch[1].events["action"][batch[2] > 0].long().unique()
    value_ND = model.encoder.global_block.short_attention.events.value_ND
    assert value_ND.grad[shown].any(1).all()
