"""Configurations as FuxiCTR and LongCTR have them: the feature map equals that of FuxiCTR's processor."""

import copy
import re
from pathlib import Path

import pytest
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor
from torch import nn

from engine.common.errors import UserError
from engine.config import read as config
from engine.config.feature_map import build_feature_map

# Columns of every kind that LongCTR's published data sets have.
COLUMNS = [
    {"name": ["user_index", "item_index", "seq_len"], "active": True, "dtype": "int", "type": "meta"},
    {"name": "unused", "active": False, "dtype": "int", "type": "categorical"},
    {"name": "item_id", "active": True, "dtype": "int", "type": "categorical", "vocab_size": 90, "source": "item"},
    {"name": ["gender", "age"], "active": True, "dtype": "str", "type": "categorical", "vocab_size": 7},
    {"name": "topics", "active": True, "dtype": "str", "type": "sequence", "max_len": 5, "vocab_size": 80},
    {"name": "price", "active": True, "dtype": "float", "type": "numeric"},
    {"name": "image", "active": True, "dtype": "float", "type": "embedding", "source": "item",
     "embedding_dim": 64, "pretrain_dim": 64, "feature_encoder": "nn.Identity()"},
]  # fmt: skip


def dataset(tmp_path: Path) -> dict:
    return {
        "data_root": str(tmp_path),
        "dataset_id": "some_x1",
        "feature_cols": copy.deepcopy(COLUMNS),
        "label_col": {"name": "is_click", "dtype": "float"},
        "group_id": "user_index",
        "embedding_dim": 16,
    }


def test_equal_to_fuxictrs_processor(tmp_path: Path) -> None:
    params = dataset(tmp_path)
    processor = FeatureProcessor(**copy.deepcopy(params))
    processor.fit(None, rebuild_dataset=False)
    theirs = FeatureMap("some_x1", str(tmp_path / "some_x1"))
    theirs.load(str(tmp_path / "some_x1" / "feature_map.json"), params)
    (tmp_path / "some_x1" / "feature_map.json").unlink()
    ours = build_feature_map(params)
    assert list(ours.features) == list(theirs.features)
    assert ours.features == theirs.features
    for attribute in ("labels", "group_id", "num_fields", "column_index"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.sum_emb_out_dim() == theirs.sum_emb_out_dim()


@pytest.mark.parametrize("name", ["price", ["other", "price"]])
def test_a_name_stands_once(name: str | list[str], tmp_path: Path) -> None:
    params = dataset(tmp_path)
    params["feature_cols"].append(
        {"name": name, "active": True, "dtype": "float", "type": "numeric"}
    )
    with pytest.raises(UserError, match="some_x1, feature_cols: 'price' is there twice"):
        build_feature_map(params)


def test_pretrain_dim_may_be_left_out_as_in_longctr(tmp_path: Path) -> None:
    params = dataset(tmp_path)
    del params["feature_cols"][-1]["pretrain_dim"]
    assert build_feature_map(params).features["image"]["pretrain_dim"] == 64


def test_tables_that_are_left_out_stand_beside_the_samples(tmp_path: Path) -> None:
    """Some of LongCTR's published configurations name neither ``user_info`` nor ``item_info``."""
    (tmp_path / "model_config.yaml").write_text("DCNv2_x: {model: DCNv2, dataset_id: x}")
    dataset = "x: {train_data: ./data/x/train.parquet, item_info: ./items.parquet}"
    (tmp_path / "dataset_config.yaml").write_text(dataset)
    params = config.load_experiment(tmp_path, "DCNv2_x")
    assert Path(params["user_info"]) == Path("data/x/user_info.parquet")
    assert params["item_info"] == "./items.parquet"


def test_vocab_size_comes_from_the_prepared_data(tiny_data: Path) -> None:
    params = dataset(tiny_data.parent) | {"dataset_id": tiny_data.name}
    del params["feature_cols"][2]["vocab_size"]
    assert build_feature_map(params).features["item_id"]["vocab_size"] == 301
    with pytest.raises(UserError, match="'gender': vocab_size is neither in"):
        params["feature_cols"][3].pop("vocab_size")
        build_feature_map(params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "catgorical"}, "type is 'catgorical'"),
        ({"feature_encoder": "__import__('os').system('true')"}, "feature_encoder is"),
        ({"feature_encoder": "nn.Linear(4, __import__('os'))"}, "feature_encoder is"),
        ({"embeding_dim": 4}, "unknown key `embeding_dim`; did you mean `embedding_dim`"),
        ({"active": "False"}, "active is 'False'; write True or False"),
        ({"dtype": "double"}, "dtype is 'double'; write int or float or str"),
        ({"source": "itm"}, "source is 'itm'; write item or user or context or ''"),
        ({"embedding_dim": 0}, "embedding_dim is 0; write a whole number above 0"),
        ({"embedding_dim": "wide"}, "embedding_dim is 'wide'; write a whole number"),
        ({"share_embedding": "itemid"}, "share_embedding is 'itemid', which"),
        ({"share_embedding": "price"}, "share_embedding is 'price', which is no feature"),
        (
            {"share_embedding": "topics"},
            "'topics', which is no feature before it with its vocab_size",
        ),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, change: dict, message: str) -> None:
    params = dataset(tmp_path)
    params["feature_cols"][-1] |= change
    with pytest.raises(UserError, match=message) as error:
        build_feature_map(params)
    assert str(error.value).startswith("some_x1, feature_cols, 'image': ")


def test_names_that_torch_has_for_modules_are_refused(tmp_path: Path) -> None:
    own = [name for name in dir(nn.ModuleDict()) if re.fullmatch("[a-z]+[0-9]*", name)]
    assert {"type", "items", "forward", "training"} < set(own)
    for name in (*own, "a.b", ""):
        params = dataset(tmp_path)
        params["feature_cols"][-1]["name"] = name
        with pytest.raises(UserError, match=f"feature_cols, '{name}': torch cannot name"):
            build_feature_map(params)


def test_a_table_may_be_shared(tmp_path: Path) -> None:
    params = dataset(tmp_path)
    params["feature_cols"][4] |= {"share_embedding": "item_id", "vocab_size": 90}
    assert build_feature_map(params).features["topics"]["share_embedding"] == "item_id"


def test_linear_encoders_are_allowed(tmp_path: Path) -> None:
    params = dataset(tmp_path)
    params["feature_cols"][-1]["feature_encoder"] = [
        "nn.Linear(64, 32, bias=False)",
        "nn.Identity()",
    ]
    assert build_feature_map(params).features["image"]["feature_encoder"]
    params["group_id"] = "user_id"
    with pytest.raises(UserError, match="did you mean `user_index`"):
        build_feature_map(params)
