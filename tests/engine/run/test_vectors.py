"""Vectors that were learned elsewhere: what a model starts from, and what is refused."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import torch

from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.datasets.command import main
from engine.run.vectors import load_vectors
from model_zoo import get_model
from model_zoo.layers.pretrained import PretrainedTable
from model_zoo.sequence_model import SequenceModel

from ...support.command_line import run_here
from ...support.helpers import loader, tiny_params

KEYS, WIDTH = np.array([7, 3, 9999, 12]), 5  # the item 9999 does not exist
VECTORS = np.random.default_rng(0).normal(size=(len(KEYS), WIDTH)).astype(np.float32)


def write(path: Path, keys: np.ndarray = KEYS, vectors: np.ndarray = VECTORS) -> str:
    if path.suffix == ".npz":
        np.savez(path, key=keys, value=vectors)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["key"], file["value"] = keys.astype("S"), vectors
    else:
        pl.DataFrame({"item": keys, "vector": vectors}).write_parquet(path)
    return str(path)


def with_vectors(data: Path, file: str, model: str = "TWIN", **column: Any) -> dict[str, Any]:
    params = tiny_params(data, model, verbose=0)
    return params | {"feature_cols": vectors_in(params["feature_cols"], file, **column)}


def vectors_in(columns: list[dict[str, Any]], file: str, **column: Any) -> list[dict[str, Any]]:
    changed = {"pretrained_emb": file, "pretrain_dim": WIDTH} | column
    return [c | changed if c["name"] == "item_id" else c for c in columns]


def built(params: dict[str, Any]) -> tuple[SequenceModel, PretrainedTable]:
    feature_map, model_class = build_feature_map(params), get_model(params["model"])
    load_vectors(params, feature_map, model_class)
    torch.manual_seed(0)
    model = model_class(feature_map, **params)
    return model, model.embedding_layer.embedding_layer.embedding_layers["item_id"]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".parquet"])
@pytest.mark.parametrize("freeze", [True, False])
def test_an_id_has_its_vector(
    suffix: str, freeze: bool, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / f"vectors{suffix}")
    with caplog.at_level(logging.INFO):
        _, table = built(with_vectors(tiny_data, file, freeze_emb=freeze))
    assert f"item_id: 3 of 300 ids have a vector in {file}" in caplog.text
    weight_VP = table.vectors.weight.detach()
    known = KEYS != 9999
    assert torch.equal(weight_VP[KEYS[known]], torch.from_numpy(VECTORS[known]))
    others = [number for number in range(len(weight_VP)) if number not in KEYS]
    assert weight_VP[0].abs().max() == 0 and weight_VP[others].abs().max() < 1e-3
    assert bool(weight_VP[others[1:]].any()) != freeze


@pytest.mark.parametrize("usage", ["init", "sum", "concat"])
def test_usages(usage: str, tiny_data: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "vectors.npz")
    _, table = built(with_vectors(tiny_data, file, pretrain_usage=usage))
    given, matrix = table.vectors.weight[7], table.proj.weight
    own = None if table.own is None else table.own.weight[7]
    want = {"init": lambda: matrix @ given, "sum": lambda: matrix @ given + own}
    want["concat"] = lambda: matrix @ torch.cat([given, own])
    torch.testing.assert_close(table(torch.tensor([7]))[0], want[usage]())
    assert (own is None) == (usage == "init") and (own is None or 0 < own.abs().max() < 1e-3)
    assert table(torch.tensor([0])).abs().max() == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_frozen_vectors_stay_and_others_train(
    sparse: bool, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_zoo.training.sparse_embedding.SMALL_TABLE", 10)
    file = write(tmp_path / "vectors.npz")
    for freeze in (True, False):
        params = with_vectors(tiny_data, file, "TWIN_MoS", freeze_emb=freeze, pretrain_usage="sum")
        params |= {"model_root": str(tmp_path), "sparse_embedding": sparse}
        model, table = built(params)
        before = [w.clone() for w in (table.vectors.weight, table.own.weight)]
        model.fit(loader(params), loader(params, "valid"), epochs=0.5, seed=1)
        changed = [
            not torch.equal(a, b)
            for a, b in zip(before, (table.vectors.weight, table.own.weight), strict=True)
        ]
        assert changed == [not freeze, True]


def test_a_feature_that_shares_the_table(tiny_data: Path, tmp_path: Path) -> None:
    params = with_vectors(tiny_data, write(tmp_path / "vectors.npz"))
    size = {"vocab_size": 301, "share_embedding": "item_id"}
    columns = params["feature_cols"]
    (cate,) = (c for c in columns if c["name"] == "cate_id")
    columns[columns.index(cate)] = cate | size
    model, table = built(params)
    assert model.embedding_layer.embedding_layer.embedding_layers["cate_id"] is table


def test_raw_values_of_a_prepared_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    what = [f"v{number}" for number in rng.integers(20, size=200)]
    log = {
        "who": rng.integers(9, size=200),
        "what": what,
        "when": range(200),
        "ok": rng.integers(2, size=200),
    }
    pl.DataFrame(log).write_csv("log.csv")
    keys = ("--user", "who", "--item", "what", "--time", "when", "--label", "ok")
    made = run_here(main, "generic", "--input", "log.csv", *keys, "--output", "out")
    assert made.code == 0, made.stderr
    write(tmp_path / "out" / "vectors.npz", np.array(["v3", "new"]), VECTORS[:2])
    params = load("TWIN_out", RunOptions(config=Path("out/config"), seed=1)).params
    params["feature_cols"] = vectors_in(params["feature_cols"], "vectors.npz")
    feature_map = build_feature_map(params)
    load_vectors(params, feature_map, get_model("TWIN"))
    vocabulary = dict(pl.read_parquet("out/encoders/0.parquet").iter_rows())
    given_VP = feature_map.features["item_id"]["pretrained"]["given_VP"]
    assert given_VP[vocabulary["v3"]].tolist() == VECTORS[0].tolist()
    assert given_VP.count_nonzero() == WIDTH


def test_bad_vectors_are_named(tiny_data: Path, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.npz"), tmp_path / "bad.npz"
    bad.write_bytes(Path(good).read_bytes()[:200])
    nan = write(tmp_path / "nan.npz", KEYS, np.full_like(VECTORS, np.nan))
    unknown = write(tmp_path / "unknown.npz", KEYS + 99999)
    cases = {
        "nowhere.npz": r"nowhere.npz cannot be read \(.*No such file",
        str(bad): r"bad.npz cannot be read \(",
        "vectors.txt": r"vectors.txt cannot be read \(its name has another ending\); write an .npz",
        nan: "there is not one finite vector",
        unknown: "has no vector for any id, but for such as",
    }
    for file, message in cases.items():
        with pytest.raises(UserError, match=message):
            built(with_vectors(tiny_data, file))
    with pytest.raises(UserError, match="vectors of width 5, not 8; write pretrain_dim: 5"):
        built(with_vectors(tiny_data, good, pretrain_dim=8))
    with pytest.raises(UserError, match="pretrain_usage is 'add'; write init or sum or concat"):
        built(with_vectors(tiny_data, good, pretrain_usage="add"))
    twice = write(tmp_path / "twice.npz", np.array([7, 7, 3, 12]))
    with pytest.raises(UserError, match="an id has two vectors"):
        built(with_vectors(tiny_data, twice))
    with pytest.raises(
        UserError, match="pretrained_emb needs pretrained_emb, of a feature of type"
    ):
        built(with_vectors(tiny_data, good, type="numeric"))
    with pytest.raises(UserError, match="has pretrained_emb and share_embedding; write one"):
        built(with_vectors(tiny_data, good, share_embedding="cate_id"))
    with pytest.raises(UserError, match="is a foreign model, which would not read it"):
        params = with_vectors(tiny_data, good)
        load_vectors(params, build_feature_map(params), object)
