"""The stand-ins of the paper's data sets: their schema, their shape, and that they can be learned."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import model_zoo
from engine.common.errors import UserError
from engine.config.read import load_experiment, read_yaml
from engine.config.validate import check
from engine.datasets import paper
from engine.datasets.prepared import layout
from engine.datasets.prepared.card import CARD, SPLITS

from . import stand_ins
from .helpers import CONFIG, build_model, loader

FRACTION = 0.004


@pytest.fixture(scope="module", params=paper.NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stand-in of each, written once."""
    folder = tmp_path_factory.mktemp("data") / request.param
    layout.write(stand_ins.generate(request.param, FRACTION), folder)
    return folder


def read(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def params_of(folder: Path) -> dict[str, Any]:
    """Parameters of a small TWIN on one of the data sets, whose own configuration is used."""
    tiny = load_experiment(CONFIG, "TWIN_session_hopping_tiny")
    files = {f"{s}_data": str(folder / f"{s}.parquet") for s in SPLITS}
    files |= {f: str(folder / f"{f}.parquet") for f in ("user_info", "item_info")}
    block = read_yaml(CONFIG / "dataset_config.yaml")[folder.name]
    params = tiny | block | files | {"dataset_id": folder.name, "data_root": str(folder.parent)}
    return check(params, model_zoo.get_model("TWIN"))


def test_columns_are_those_of_the_configuration(folder: Path) -> None:
    feature_map = paper.feature_map(folder.name)
    tables = {"": read(folder, "train"), "item": read(folder, "item_info")}
    assert set(tables[""].columns) | set(tables["item"].columns) == {
        *feature_map.features,
        *feature_map.labels,
    }
    assert read(folder, "valid").schema == read(folder, "test").schema == tables[""].schema
    for name, spec in paper.features(feature_map).items():
        column = tables[spec["source"]][name]
        if spec["type"] == "embedding":
            assert column.dtype == pl.List(pl.Float32)
            assert column.list.len().unique().to_list() == [spec["embedding_dim"]]
            continue
        if spec["type"] == "sequence":
            assert column.list.len().unique().to_list() == [spec["max_len"]]
            column = column.explode()
        assert column.dtype == pl.Int64 and column.max() < spec["vocab_size"], name
        # Only padding is 0: in row 0 of the item table and at the ends of sequences.
        assert column.min() == (0 if spec["source"] == "item" or spec["type"] == "sequence" else 1)
    assert tables[""][feature_map.labels[0]].dtype == pl.Int64


def test_every_item_id_of_the_vocabulary_occurs(folder: Path) -> None:
    name, spec = next(
        (k, v)
        for k, v in paper.feature_map(folder.name).features.items()
        if v.get("source") == "item"
    )
    ids = read(folder, "item_info")[name].unique().sort().to_list()
    assert ids == list(range(spec["vocab_size"]))


def test_a_fraction_has_fewer_users_and_samples(folder: Path) -> None:
    shape = stand_ins.SHAPES[folder.name]
    for split, count in zip(SPLITS, shape.samples, strict=True):
        assert len(read(folder, split)) == round(FRACTION * count)
    histories = read(folder, "user_info")
    assert len(histories) == round(FRACTION * shape.users)
    length = histories["full_item_seq"].list.len()
    assert length.min() >= 1 and length.max() <= shape.max_history
    assert 0.5 < length.mean() / shape.history < 1.5
    assert read(folder, "train").to_series(-1).mean() == pytest.approx(shape.label_rate, abs=0.02)


def test_histories_end_before_the_sample_and_splits_follow_in_time(folder: Path) -> None:
    length = read(folder, "user_info")["full_item_seq"].list.len().to_numpy()
    newest = np.zeros(len(length))
    for split in SPLITS:
        table = read(folder, split)
        user, seq_len = table["user_index"].to_numpy(), table["seq_len"].to_numpy()
        assert (seq_len >= 1).all() and (seq_len <= length[user]).all()
        assert (seq_len >= newest[user]).all()
        np.maximum.at(newest, user, seq_len)


def test_users_hop_between_few_themes(folder: Path) -> None:
    """Sessions of 8 items or more, but for a user's first and last; themes reappear."""
    theme = np.r_[-1, np.arange(len(read(folder, "item_info")) - 1) % stand_ins.THEMES]
    reappeared = 0
    for history in read(folder, "user_info")["full_item_seq"].to_list():
        themes = theme[history]
        starts = np.flatnonzero(np.r_[True, themes[1:] != themes[:-1]])
        assert len(set(themes)) <= stand_ins.FAVOURITES
        assert (np.diff(starts)[1:] >= stand_ins.SESSION[0]).all()
        reappeared += len(starts) > len(set(themes))
    assert reappeared > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", paper.NAMES)
def test_twin_learns_and_stays_below_the_best_possible(name: str, tmp_path: Path) -> None:
    fraction = 30_000 / stand_ins.SHAPES[name].samples[0]
    card = layout.write(stand_ins.generate(name, fraction), tmp_path / name)
    params = params_of(tmp_path / name)
    model = build_model(params)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    model.train()
    train = loader(params, "train", shuffle=True, max_len=30)
    for batch in (batch for _ in range(2) for batch in train):
        optimizer.zero_grad()
        model.add_loss(model(batch), model.get_labels(batch)).backward()
        optimizer.step()
    assert (
        0.6
        < model.evaluate(loader(params, "test", max_len=30), ["AUC"])["AUC"]
        < card["bayes_auc"]["test"]
    )


def test_the_seed_decides(tmp_path: Path) -> None:
    hashes = [
        layout.write(stand_ins.generate("Ebnerd_small_x1", 1e-4, seed), tmp_path / str(i))["hash"]
        for i, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_nobody_takes_a_stand_in_for_the_real_data(folder: Path) -> None:
    card = (folder / CARD).read_text()
    assert f"synthetic stand-in of {folder.name}, not the real data" in card


@pytest.mark.parametrize(
    ("name", "fraction", "message"),
    [
        ("KuaiVideo_x2", 0, "fraction 0: write a number above 0"),
        ("KuaiVideo_x2", 1.5, "fraction 1.5: .* at most 1"),
        ("KuaiVideo_x2", float("nan"), "fraction nan"),
    ],
)
def test_bad_arguments(name: str, fraction: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stand_ins.generate(name, fraction)
