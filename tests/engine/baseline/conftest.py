"""Random logs of exposures, in which labels mean nothing, as prepared folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.datasets.prepared import layout, ready_config

MakeData = Callable[..., dict[str, Any]]


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Write a random log; returns the parameters of the data set."""

    def make(
        users: int = 30, shown: int = 20, items: int = 40, unit: str = "", step: int = 700_000
    ) -> dict[str, Any]:
        rng = np.random.default_rng(1)
        moment = rng.permutation(users * shown).reshape(users, shown)
        moment.sort(axis=1)
        item = rng.integers(1, items + 1, (users, shown))
        label = rng.integers(0, 2, (users, shown))
        label[0] = 0  # a user without a history
        before = label.cumsum(1) - label
        samples = pl.DataFrame(
            {
                "user_index": np.repeat(np.arange(users), shown),
                "item_index": item.ravel(),
                "seq_len": before.ravel(),
                "time": 1_500_000_000_000 + step * moment.ravel(),
                "label": label.ravel(),
            }
        )
        clicks = samples.filter(pl.col("label") == 1)
        lists = clicks.group_by("user_index").agg(full_item_seq="item_index", full_time_seq="time")
        histories = samples.select(pl.col("user_index").unique()).join(
            lists, on="user_index", how="left"
        )
        histories = histories.sort("user_index").with_columns(
            pl.col("full_item_seq", "full_time_seq").fill_null([])
        )
        table = {
            "item_index": np.arange(items + 1),
            "kind": np.r_[0, rng.integers(0, 5, items)],  # 0 is missing
            "tags": [[0, 0], *rng.integers(1, 4, (items, 2)).tolist()],
            "image": [[0.0] * 3, *rng.normal(size=(items - 1, 3)).tolist(), [0.0] * 3],
        }
        features = {
            "kind": {"type": "categorical", "source": "item", "vocab_size": 5},
            "tags": {"type": "sequence", "source": "item", "vocab_size": 4, "max_len": 2},
            "image": {"type": "embedding", "source": "item", "embedding_dim": 3},
        }
        if not unit:
            samples, histories = samples.drop("time"), histories.drop("full_time_seq")
        late = pl.Series(moment.ravel())
        cuts = np.quantile(moment, [0.7, 0.8])
        splits = {
            "train": samples.filter(late < cuts[0]),
            "valid": samples.filter((late >= cuts[0]) & (late < cuts[1])),
            "test": samples.filter(late >= cuts[1]),
        }
        folder = tmp_path / "log"
        about = {"time_unit": unit}
        info = pl.DataFrame(table)
        item_ids = info.select("item_index", kind=pl.format("kind {}", "kind"))[1:]
        layout.write(
            layout.Dataset(splits, histories, info, features, "label", about, item_ids=item_ids),
            folder,
        )
        return ready_config.described(folder)

    return make
