"""The loader against an independent, straightforward implementation of LongCTR's batches."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.loader import columnar as tables
from engine.loader import columns
from engine.loader.columnar import Histories, ItemTable
from engine.loader.loader import SequenceLoader

NUM_ITEMS, NUM_USERS, ROWS = 50, 17, 333


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random data: ragged and empty histories, seq_len of 0 and shorter than the history."""
    folder = tmp_path_factory.mktemp("random")
    rng = np.random.default_rng(0)
    lengths = np.r_[0, 1, 40, rng.integers(0, 40, NUM_USERS - 3)]
    histories = [rng.integers(1, NUM_ITEMS, n) for n in lengths]
    pl.DataFrame(
        {"user_index": np.arange(NUM_USERS), "full_item_seq": histories},
        schema_overrides={"full_item_seq": pl.List(pl.Int32)},
    ).write_parquet(folder / "user_info.parquet")
    image = rng.normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    tags = rng.integers(1, 9, (NUM_ITEMS, 3))
    image[0], tags[0] = 0, 0
    pl.DataFrame(
        {
            "item_index": np.arange(NUM_ITEMS),
            "item_id": rng.permutation(np.arange(1, NUM_ITEMS + 1)) * (np.arange(NUM_ITEMS) > 0),
            "tags": tags.tolist(),
            "price": rng.random(NUM_ITEMS) * (np.arange(NUM_ITEMS) > 0),
            "image": image.tolist(),
        }
    ).write_parquet(folder / "item_info.parquet")
    user = rng.integers(NUM_USERS, size=ROWS)
    pl.DataFrame(
        {
            "user_index": user,
            "item_index": rng.integers(1, NUM_ITEMS, ROWS),
            "seq_len": (rng.random(ROWS) * (lengths[user] + 1)).astype(int),
            "hour": rng.integers(0, 24, ROWS),
            "label": rng.integers(0, 2, ROWS).astype(float),
        }
    ).write_parquet(folder / "train.parquet", row_group_size=50)
    return folder


@pytest.fixture(scope="module")
def feature_map(data: Path):
    described: list[dict[str, Any]] = [
        {"name": ["user_index", "item_index", "seq_len"], "type": "meta"},
        {"name": "hour", "type": "categorical", "vocab_size": 24},
        {"name": "item_id", "type": "categorical", "vocab_size": NUM_ITEMS + 1, "source": "item"},
        {"name": "tags", "type": "sequence", "vocab_size": 9, "max_len": 3, "source": "item"},
        {"name": "price", "type": "numeric", "source": "item"},
        {"name": "image", "type": "embedding", "embedding_dim": 4, "source": "item"},
    ]
    return build_feature_map(
        {
            "data_root": str(data.parent),
            "dataset_id": "random",
            "feature_cols": described,
            "label_col": {"name": "label"},
        }
    )


def make(data: Path, feature_map, **options: Any) -> SequenceLoader:
    paths = [str(data / f"{name}.parquet") for name in ("train", "user_info", "item_info")]
    return SequenceLoader(feature_map, *paths, **options)


def straightforward(data: Path, rows: list[dict], max_len: int) -> tuple[dict, np.ndarray]:
    """LongCTR's collate, sample by sample in plain Python."""
    histories = pl.read_parquet(data / "user_info.parquet")["full_item_seq"].to_list()
    items = pl.read_parquet(data / "item_info.parquet").to_dicts()
    L = max(1, min(max(row["seq_len"] for row in rows), max_len))
    positions = []
    for row in rows:
        kept = histories[row["user_index"]][: row["seq_len"]][-L:]
        positions += [0] * (L - len(kept)) + kept + [row["item_index"]]
    item_dict = {
        name: np.array([items[i][name] for i in positions])
        for name in ("item_id", "tags", "price", "image")
    }
    mask = (np.array(positions).reshape(len(rows), L + 1)[:, :-1] > 0).astype(np.float32)
    return item_dict, mask


@pytest.mark.parametrize("front", [2, tables.FRONT])
@pytest.mark.parametrize("piece", [1, 25, tables.ITEMS_PER_PIECE])
def test_histories_read_in_pieces_are_the_same(
    front: int, piece: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are windows longer than the zeros before the first item."""
    frame = pl.read_parquet(data / "user_info.parquet")
    frame.write_parquet(tmp_path / "user_info.parquet", row_group_size=5)
    monkeypatch.setattr(tables, "ITEMS_PER_PIECE", piece)
    monkeypatch.setattr(tables, "FRONT", front)
    found = Histories(tmp_path / "user_info.parquet")
    wanted = frame["full_item_seq"].to_list()
    assert found.lengths().tolist() == list(map(len, wanted))
    user_B = np.arange(NUM_USERS)
    for max_len in (1, 7, 40):  # each longer than the one before
        index_BL1, _ = found.batch(user_B, found.lengths(), user_B + 1, max_len)
        for user, row in enumerate(index_BL1.tolist()):
            kept = wanted[user][-max_len:]
            assert row == [0] * (max_len - len(kept)) + kept + [user + 1]
    for column, value, message in (
        (
            "full_item_seq",
            [3, NUM_ITEMS, 4],
            f"row 11: the item index {NUM_ITEMS} is not between 1 and",
        ),
        (
            "full_item_seq",
            None,
            "full_item_seq, row 11: the list is missing; write an empty one",
        ),
        (
            "full_item_seq",
            [3, None],
            "full_item_seq, row 11: the list has missing values; leave",
        ),
        ("user_index", 99, "column user_index, row 11: the value is 99"),
    ):
        rows = frame.to_dicts()
        rows[11][column] = value
        pl.DataFrame(rows, schema=frame.schema).write_parquet(tmp_path / "bad.parquet")
        with pytest.raises(UserError, match=message):
            Histories(tmp_path / "bad.parquet").check_items(NUM_ITEMS, Path("items"))


@pytest.mark.parametrize("max_len", [1, 7, 25, 100])
@pytest.mark.parametrize("batch_size", [1, 32, 1000])
def test_same_content_as_the_straightforward_loader(
    data: Path, feature_map, batch_size: int, max_len: int
) -> None:
    loader = make(data, feature_map, batch_size=batch_size, max_len=max_len)
    rows = pl.read_parquet(data / "train.parquet").to_dicts()
    assert len(loader) == -(-ROWS // batch_size) and loader.num_samples == ROWS
    for number, (batch_dict, item_dict, mask) in enumerate(loader):
        part = rows[number * batch_size : (number + 1) * batch_size]
        expected, expected_mask = straightforward(data, part, max_len)
        assert torch.equal(mask, torch.from_numpy(expected_mask))
        assert set(item_dict) == set(expected)
        for name, values in expected.items():
            assert np.array_equal(
                item_dict[name].numpy(), values.astype(item_dict[name].numpy().dtype)
            )
        for name in ("user_index", "item_index", "seq_len", "hour", "label"):
            assert batch_dict[name].tolist() == [row[name] for row in part]
        assert batch_dict["hour"].dtype == item_dict["item_id"].dtype == torch.int64
        assert batch_dict["label"].dtype == item_dict["price"].dtype == torch.float32
        if number == 20:
            break


def order(loader: SequenceLoader) -> list[tuple]:
    return [
        row
        for batch_dict, _, _ in loader
        for row in zip(*(batch_dict[k].tolist() for k in sorted(batch_dict)), strict=True)
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_shuffle_is_seeded_and_loses_nothing(data: Path, feature_map, streaming: bool) -> None:
    def shuffled(seed: int, **options: Any) -> SequenceLoader:
        return make(
            data,
            feature_map,
            batch_size=32,
            shuffle=True,
            seed=seed,
            streaming=streaming,
            **options,
        )

    loader = shuffled(3)
    first, second = order(loader), order(loader)
    assert first != second and sorted(first) == sorted(second)
    assert sorted(first) == sorted(order(make(data, feature_map, batch_size=32)))
    again = shuffled(3)
    assert order(again) == first and order(again) == second
    again.epoch = 1  # as after a resume
    assert order(again) == second
    assert order(shuffled(4)) != first


def test_streaming_in_file_order_is_the_same(data: Path, feature_map) -> None:
    whole = make(data, feature_map, batch_size=32)
    streamed = make(data, feature_map, batch_size=32, streaming=True)
    for a, b in zip(whole, streamed, strict=True):
        assert all(a[0][k].equal(b[0][k]) for k in a[0]) and a[2].equal(b[2])


def test_item_dict_behaves_as_longctr_models_use_it(data: Path, feature_map) -> None:
    """LongCTR writes moved tensors back into the dictionary while it walks over it."""
    _, item_dict, mask = next(iter(make(data, feature_map, batch_size=8)))
    before = item_dict["price"]
    for name, value in item_dict.items():
        item_dict[name] = value.double()
    assert item_dict["price"].dtype == torch.float64 and item_dict["price"].shape == before.shape
    assert before.shape == (8 * (mask.shape[1] + 1),)


def test_only_left_padding(data: Path, feature_map) -> None:
    with pytest.raises(UserError, match="padding is 'post'"):
        make(data, feature_map, padding="post")


@pytest.mark.parametrize("piece", [1, 4, 7, 1000])
def test_an_item_table_read_in_pieces_is_the_same(
    piece: int, data: Path, feature_map, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ItemTable(data / "item_info.parquet", feature_map).tables
    items = pl.read_parquet(data / "item_info.parquet")
    items.write_parquet(tmp_path / "item_info.parquet", row_group_size=7)
    monkeypatch.setattr(columns, "PIECE", piece)
    found = ItemTable(tmp_path / "item_info.parquet", feature_map).tables
    assert set(found) == set(whole)
    assert all(table.equal(whole[name]) for name, table in found.items())
    for name, value, message in (
        ("item_index", 99, "column item_index, row 23: the value is 99, but rows must be numbered"),
        ("item_id", 77, "column item_id, row 23: the value is 77, which is outside"),
        ("price", float("nan"), "column price, row 23: the value is nan"),
        ("image", [1.0], "column image, row 23: the list has 1 values"),
        ("price", None, "column price, row 23: the value is missing"),
    ):
        rows = items.to_dicts()
        rows[23][name] = value
        pl.DataFrame(rows, schema=items.schema).write_parquet(tmp_path / "bad.parquet")
        with pytest.raises(UserError, match=message):
            ItemTable(tmp_path / "bad.parquet", feature_map)
