"""FuxiCTR's feature map, built from a dataset configuration.

FuxiCTR builds it with a ``FeatureProcessor`` that reads raw data and, in version 2.3.10, starts Ray.
A prepared data set needs neither, because its configuration describes it completely. This module
also handles the differences between versions of FuxiCTR and their configurations.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError, did_you_mean
from .feature_columns import FEATURE_TYPES, OF_MODULES, SIZES, check_keys, columns_of
from .feature_map_file import read_feature_map

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

TABLE = ("vocab_size", "embedding_dim", "pretrain_dim")  # what features with one table share
# FuxiCTR evaluates a feature_encoder as code, so only these are allowed.
POOLING = "layers.MaskedAveragePooling()"
ENCODERS = ("nn.Identity()", POOLING, "layers.MaskedSumPooling()")
NO_ENCODER = (None, "null", "None", "none")
LINEAR = r"nn\.Linear\([0-9]+, *[0-9]+(, *bias=(True|False))?\)"


def build_feature_map(params: dict[str, Any]) -> "FeatureMap":
    """Build FuxiCTR's feature map from a dataset configuration.

    The configuration may leave out a ``vocab_size``. It then comes from ``feature_map.json`` in the
    data set's folder, which ``data/prepare.py`` and the generators write.

    Raises:
        UserError: a feature is described wrongly. The message names the feature and the key.
    """
    from fuxictr.features import FeatureMap

    path = Path(params["data_root"], params["dataset_id"], "feature_map.json")
    feature_map = FeatureMap(params["dataset_id"], str(path.parent))
    prepared = read_feature_map(path)[0] if path.exists() else {}
    for column in columns_of(params, "feature_cols"):
        name = column["name"]
        if column.get("active", True):
            feature_map.features[name] = _feature_spec(column, prepared.get(name, {}), params)
            _check_shared(params["dataset_id"], name, feature_map.features)
    feature_map.labels = [label["name"] for label in columns_of(params, "label_col")]
    feature_map.group_id = params.get("group_id")
    if feature_map.group_id and feature_map.group_id not in feature_map.features:
        what = f"{feature_map.group_id!r} is not one of the features of {params['dataset_id']}"
        hint = did_you_mean(feature_map.group_id, feature_map.features)
        if feature_map.group_id == "group_index":
            hint = (
                "; write user_index, or where the data have this column, name it in feature_cols: "
                "{name: group_index, active: True, dtype: int, type: meta}"
            )
        raise UserError(f"group_id: {what}{hint}")
    _check_events(params)
    feature_map.default_emb_dim = params.get("embedding_dim")
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map


def _check_shared(dataset_id: str, name: str, features: dict[str, dict]) -> None:
    """Reject a ``share_embedding`` that names no earlier feature, or one with a table of another size."""
    *earlier, own = ([s.get(k) for k in TABLE] for s in features.values())
    tables = [other for other, its in zip(features, earlier, strict=False) if its == own]
    if (shared := features[name].get("share_embedding")) not in (None, *tables):
        what = f"{shared!r}, which is no feature before it with its vocab_size and embedding_dim"
        hint = did_you_mean(str(shared), tables)
        raise UserError(f"{dataset_id}, feature_cols, {name!r}: share_embedding is {what}{hint}")


def _check_events(params: dict[str, Any]) -> None:
    """Reject features of events that the loader could not read; FuxiCTR knows none of them."""
    for column in columns_of(params, "event_cols") if params.get("event_cols") else []:
        if "vocab_size" not in column:
            where = f"{params['dataset_id']}, event_cols, {column['name']!r}"
            raise UserError(f"{where}: vocab_size is missing; write how many buckets it has")


def _feature_spec(column: dict, prepared: dict, params: dict[str, Any]) -> dict[str, Any]:
    """The specification of a feature, as FuxiCTR's ``FeatureProcessor`` would write it."""
    where = f"{params['dataset_id']}, feature_cols, {column['name']!r}"
    kind = column.get("type")
    if kind not in FEATURE_TYPES:
        raise UserError(f"{where}: type is {kind!r}; write one of {', '.join(FEATURE_TYPES)}")
    vectors = _vectors(where, column)
    if kind == "meta":
        return {"type": "meta"}
    if not column["name"] or "." in column["name"] or column["name"] in OF_MODULES.split():
        raise UserError(f"{where}: torch cannot name a module so; rename the column")
    kept = ("embedding_dim", "emb_output_dim", "share_embedding", "oov_idx")
    spec = {"source": column.get("source", ""), "type": kind}
    spec |= {key: column[key] for key in kept if key in column}
    spec |= _encoder(where, column)
    if kind == "embedding":
        # LongCTR's configurations leave pretrain_dim out; FuxiCTR 2.3.10 then fails.
        spec["pretrain_dim"] = column.get("pretrain_dim", column.get("embedding_dim"))
    if kind in ("categorical", "sequence"):
        spec["padding_idx"] = 0
        for key in ("vocab_size", "max_len") if kind == "sequence" else ("vocab_size",):
            spec[key] = column.get(key, prepared.get(key))
            if spec[key] is None:
                data = f"the prepared data in {Path(params['data_root'], params['dataset_id'])}"
                what = f"is neither in dataset_config.yaml nor in the feature_map.json of {data}"
                advice = "write it, or prepare the data (see data/README.md)"
                raise UserError(f"{where}: {key} {what}; {advice}")
    spec |= vectors
    check_keys(where, {key: spec[key] for key in SIZES if key in spec})
    return spec


def _encoder(where: str, column: dict) -> dict[str, Any]:
    """The key ``feature_encoder`` of a specification, if the feature has an encoder."""
    default = POOLING if column["type"] == "sequence" else None
    encoder = column.get("feature_encoder", default)
    for part in encoder if isinstance(encoder, list) else [encoder]:
        if part not in NO_ENCODER + ENCODERS and not re.fullmatch(LINEAR, str(part)):
            known = f"{', '.join(ENCODERS)} or nn.Linear(in, out, bias=False)"
            raise UserError(f"{where}: feature_encoder is {part!r}; write one of {known}")
    return {} if encoder in NO_ENCODER else {"feature_encoder": encoder}


def _vectors(where: str, column: dict) -> dict[str, Any]:
    """The keys of a specification about pretrained vectors; FuxiCTR's own class takes their names."""
    given = [key for key in column if key in ("pretrained_emb", "freeze_emb", "pretrain_usage")]
    if not given:
        return {}
    if "pretrained_emb" not in column or column["type"] not in ("categorical", "sequence"):
        what = "needs pretrained_emb, of a feature of type categorical or sequence"
        raise UserError(f"{where}: {given[0]} {what}; leave it out")
    if "share_embedding" in column:
        raise UserError(f"{where}: has pretrained_emb and share_embedding; write one of them")
    usage, freeze = column.get("pretrain_usage", "init"), column.get("freeze_emb", True)
    spec = {"pretrained": {"usage": usage, "freeze": freeze}, "vectors": column["pretrained_emb"]}
    return spec | ({"vectors_dim": column["pretrain_dim"]} if "pretrain_dim" in column else {})
