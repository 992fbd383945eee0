"""Counts of the index against a plain loop over the events of a log, with all that is odd in it."""

import json
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import model_zoo
from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.loader.loader import SequenceLoader
from engine.run.flops import spread_batch
from model_zoo.history.item_dict import ItemDict
from model_zoo.history.matches import Matches

from ...support.helpers import rows_of

USERS, ITEMS, ROWS = 12, 30, 200
WINDOWS = [3.0, 20.0]
RARE = {"item_id": 1, "tags": 1, "kind": 0}  # ``kind`` has no id of rare values
Shown = dict[str, list[set[int]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repeated values within an item, items without any, ties in time, users without events."""
    folder = tmp_path_factory.mktemp("matches")
    rng = np.random.default_rng(0)
    lengths = np.r_[0, 1, 60, rng.integers(0, 40, USERS - 3)]
    items = [rng.integers(1, ITEMS, n) for n in lengths]
    times = [np.sort(rng.integers(0, 40_000, n) // 1000 * 1000) for n in lengths]
    pl.DataFrame(
        {"user_index": np.arange(USERS), "full_item_seq": items, "full_time_seq": times},
        schema_overrides=dict.fromkeys(("full_item_seq", "full_time_seq"), pl.List(pl.Int64)),
    ).write_parquet(folder / "user_info.parquet")
    tags, vector = rng.integers(0, 6, (ITEMS, 3)), rng.normal(size=(ITEMS, 4))
    tags[0], vector[[0, 5]] = 0, 0
    table = {
        "item_index": np.arange(ITEMS),
        "item_id": np.arange(ITEMS) % 20,
        "tags": tags.tolist(),
        "price": np.zeros(ITEMS),
        "image": vector.tolist(),
        "kind": np.r_[0, rng.integers(1, 4, ITEMS - 1)],
    }
    pl.DataFrame(table).write_parquet(folder / "item_info.parquet")
    user = rng.integers(USERS, size=ROWS)
    seq_len = (rng.random(ROWS) * (lengths[user] + 1)).astype(int)
    last = [times[u][n - 1] if n else 0 for u, n in zip(user, seq_len, strict=True)]
    samples = {
        "user_index": user,
        "item_index": rng.integers(1, ITEMS, ROWS),
        "seq_len": seq_len,
        "time": np.array(last) + 1000 * rng.integers(0, 30, ROWS),
        "label": rng.integers(0, 2, ROWS).astype(float),
    }
    pl.DataFrame(samples).write_parquet(folder / "train.parquet", row_group_size=60)
    (folder / "dataset_card.json").write_text(json.dumps({"time_unit": "ms"}))
    return folder


def feature_map(data: Path, *leave_out: str) -> Any:
    item = {"source": "item"}
    described: list[dict[str, Any]] = [
        {"name": ["user_index", "item_index", "seq_len", "time"], "type": "meta"},
        {"name": "item_id", "type": "categorical", "vocab_size": 20, "oov_idx": 1} | item,
        {"name": "tags", "type": "sequence", "vocab_size": 6, "max_len": 3, "oov_idx": 1} | item,
        {"name": "price", "type": "numeric"} | item,
        {"name": "image", "type": "embedding", "embedding_dim": 4} | item,
        {"name": "kind", "type": "categorical", "vocab_size": 4} | item,
    ]
    if "time" in leave_out:
        described[0]["name"].remove("time")
    about = {"data_root": str(data.parent), "dataset_id": data.name, "label_col": {"name": "label"}}
    kept = [column for column in described if column["name"] not in leave_out]
    return build_feature_map(about | {"feature_cols": kept, "embedding_dim": 4})


def make(data: Path, **options: Any) -> SequenceLoader:
    paths = [str(data / f"{name}.parquet") for name in ("train", "user_info", "item_info")]
    return SequenceLoader(
        feature_map(data),
        *paths,
        **{"batch_size": 50, "match_features": True, "max_len": 100} | options,
    )


def plain_numbers(data: Path, newest: int | None, windows: list[float] | None) -> list[list[float]]:
    """The numbers of each sample by comparing every event with the candidate, in Python's numbers."""
    users = pl.read_parquet(data / "user_info.parquet").to_dicts()
    items = pl.read_parquet(data / "item_info.parquet").to_dicts()

    def shown(item: int, name: str) -> set[int]:
        values = items[item][name]
        return {*(values if isinstance(values, list) else [values])} - {0, RARE[name]}

    def scaled(count: float) -> float:
        return np.log(1 + count)

    def recency(gap: float) -> float:
        return max(0, 5 - np.log(1 + gap) / 3.6)

    everything = [
        event
        for user in users
        for event in zip(user["full_item_seq"], user["full_time_seq"], strict=True)
    ]
    found = []
    for row in pl.read_parquet(data / "train.parquet").to_dicts():
        user, now = users[row["user_index"]], row["time"] / 1000
        events = [*zip(user["full_item_seq"], user["full_time_seq"], strict=True)][: row["seq_len"]]
        events = events[-newest:] if newest else events
        names = list(RARE)
        shares = {}
        for name in names:
            own = shown(row["item_index"], name)
            shares[name] = [len(own & shown(item, name)) / max(1, len(own)) for item, _ in events]
        ages = [now - time / 1000 for _, time in events]
        first = {
            name: min((i for i, x in enumerate(reversed(shares[name])) if x), default=inf)
            for name in names
        }
        numbers = []
        for name in names:
            numbers.append(scaled(sum(shares[name])))
            for window in windows or ():
                near = [s for s, age in zip(shares[name], ages, strict=True) if age <= window]
                numbers.append(scaled(sum(near)))
        numbers += [sum(shares[name]) / max(1, len(events)) for name in names]
        numbers += [1 / (1 + first[name]) for name in names]
        if windows is not None:
            numbers += [
                recency(ages[-1 - first[name]]) if first[name] < inf else 0.0 for name in names
            ]
            numbers.append(recency(ages[-1]) if ages else 0.0)
            known = [item for item, time in everything if time < row["time"]]
            for name in names:
                own = shown(row["item_index"], name)
                most = max((sum(v in shown(i, name) for i in known) for v in own), default=0)
                numbers.append(scaled(1e6 * most / max(1, len(known))) / 3)
        found.append(numbers)
    return found


def twin(data: Path, **options: Any) -> Any:
    about = {"embedding_dim": 4, "model_root": str(data), "metrics": ["AUC"]}
    model_class = model_zoo.get_model("TWIN")
    return model_class(feature_map(data), match_features=True, **about | options)


def loaded(loader: SequenceLoader) -> torch.Tensor:
    return torch.cat([items.matches for _, items, _ in loader])


@pytest.mark.parametrize("windows", [None, [], WINDOWS])
@pytest.mark.parametrize("span", ["all", "max_len"])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_counts_are_those_of_a_plain_loop(
    data: Path, span: str, windows: list[float] | None, streaming: bool
) -> None:
    loader = make(data, max_len=7, match_span=span, match_windows=windows, streaming=streaming)
    newest = 7 if span == "max_len" else None
    wanted = torch.tensor(plain_numbers(data, newest, windows))
    found = loaded(loader)
    assert found.dtype == torch.float32 and found.shape == wanted.shape
    assert (wanted > 0).float().mean() > 0.3
    torch.testing.assert_close(found, wanted.float(), atol=1e-6, rtol=0)


def test_loaders_share_the_index(data: Path) -> None:
    first = make(data, match_windows=WINDOWS)
    second = make(data, match_features=first.matches)
    assert second.matches is first.matches
    assert torch.equal(loaded(first), loaded(second))
    assert make(data, match_features=False).matches is None


def test_a_folder_without_any_event_has_no_match(data: Path, tmp_path: Path) -> None:
    for name in ("item_info.parquet", "dataset_card.json"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    users = pl.read_parquet(data / "user_info.parquet")
    users.with_columns(pl.col("^full_.*$").list.head(0)).write_parquet(
        tmp_path / "user_info.parquet"
    )
    samples = pl.read_parquet(data / "train.parquet").with_columns(seq_len=0)
    samples.write_parquet(tmp_path / "train.parquet")
    assert not loaded(make(tmp_path, match_windows=WINDOWS)).any()


def test_windows_need_times(data: Path, tmp_path: Path) -> None:
    histories, items = (data / f"{name}_info.parquet" for name in ("user", "item"))
    paths = [data / "train.parquet", histories, items]
    options: dict[str, Any] = {"match_features": True, "match_windows": WINDOWS}
    with pytest.raises(UserError, match=r"match_windows: .* lacks times of samples"):
        SequenceLoader(feature_map(data, "time"), *paths, **options)


def test_some_feature_must_have_ids(data: Path) -> None:
    paths = [data / f"{name}.parquet" for name in ("train", "user_info", "item_info")]
    vectors = feature_map(data, "item_id", "tags", "kind")
    with pytest.raises(UserError, match="no feature of items has ids"):
        SequenceLoader(vectors, *paths, match_features=True)


@pytest.mark.parametrize("windows", [None, WINDOWS])
def test_items_alone_give_the_numbers_of_the_loader(data: Path, windows: list | None) -> None:
    """As LongCTR's loader gives them; and one sample alone has the numbers that it has in a batch."""
    loader = make(data, match_windows=windows)
    model = twin(data, match_windows=windows)
    batch = spread_batch(loader)
    batch_dict, items, mask = batch
    reader = model.matches

    def read(batch: tuple) -> torch.Tensor:
        return reader.read(getattr(batch[1], "matches", None), *model._positions(batch))

    found = read(batch)
    assert found.shape == (len(mask), reader.width)
    for keep, cut in (([3], 0), ([0, 5, 6], 1)):
        few = rows_of(batch, keep, min(cut, mask.shape[1] - int(mask[keep].sum(1).max())))
        torch.testing.assert_close(read(few), found[keep], atol=1e-6, rtol=0)
    plain = (batch_dict, dict(items), mask)
    if windows is None:
        torch.testing.assert_close(read(plain), found, atol=1e-6, rtol=0)
        other = ItemDict(items.tables, items.index.clone())
        other.index[:, :-1][mask == 0] = 7  # what padding shows changes nothing
        torch.testing.assert_close(read((batch_dict, other, mask)), found, atol=1e-6, rtol=0)
    else:
        with pytest.raises(ValueError, match="the batch has no times"):
            read(plain)


def test_cosines_are_counted_in_tiers(data: Path) -> None:
    batch = spread_batch(make(data))
    model = twin(data)
    found = model.matches.read(batch[1].matches, *model._positions(batch))[
        :, model.matches.counted :
    ][:, :8]
    image = batch[1].tables["image"].double().numpy()
    for row, index in enumerate(batch[1].index.tolist()):
        wanted, target = np.zeros(8), image[index[-1]]
        for item in index[:-1]:
            norms = np.linalg.norm(image[item]) * np.linalg.norm(target)
            if norms:
                wanted[min(7, int((image[item] @ target / norms + 1) * 4))] += 1
        assert found[row].numpy() == pytest.approx(np.log1p(wanted), abs=1e-6)


def test_matches_without_times_have_three_numbers_for_each_feature() -> None:
    never = Matches(torch.zeros(2), torch.zeros(2, 4, 1), torch.full((2, 4), inf))
    assert never.numbers().shape == (2, 12) and not never.numbers().any()
