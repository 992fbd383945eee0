"""FuxiCTR's feature map, built from a dataset configuration.

FuxiCTR builds it with a ``FeatureProcessor`` that reads raw data and, in version 2.3.10, starts Ray.
A prepared data set needs neither, because its configuration describes it completely. This module
also handles the differences between versions of FuxiCTR and their configurations.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..common.errors import UserError, did_you_mean
from ..common.files import read_json
from ..common.schema import ABSENT, Schema, Size, one_of
from .convert import WRONG, convert, describe

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

FEATURE_TYPES = ("meta", "categorical", "sequence", "numeric", "embedding")
SIZES = ("embedding_dim", "emb_output_dim", "pretrain_dim", "vocab_size", "max_len", "oov_idx")
# How FuxiCTR prepares raw data; prepared data needs none of it.
RAW = "fill_na preprocess normalizer category_processor splitter padding remap min_categr_count num_buckets"
# The keys of a column, and the types of their values; those of Any are checked below, or not read.
COLUMN: dict[str, Any] = dict.fromkeys(SIZES, int) | {"name": str, "share_embedding": str}
COLUMN |= {"active": bool, "dtype": Literal["int", "float", "str"]}
COLUMN |= {"source": Literal["item", "user", "context", ""]}
COLUMN |= {
    "pretrained_emb": str,
    "freeze_emb": bool,
    "pretrain_usage": Literal["init", "sum", "concat"],
}
COLUMN |= dict.fromkeys(("type", "feature_encoder", *RAW.split()), Any)
TABLE = ("vocab_size", "embedding_dim", "pretrain_dim")  # what features with one table share
# FuxiCTR evaluates a feature_encoder as code, so only these are allowed.
POOLING = "layers.MaskedAveragePooling()"
ENCODERS = ("nn.Identity()", POOLING, "layers.MaskedSumPooling()")
NO_ENCODER = (None, "null", "None", "none")
LINEAR = r"nn\.Linear\([0-9]+, *[0-9]+(, *bias=(True|False))?\)"

# What torch's modules call their own. Each feature has a module of its name.
OF_MODULES = (
    "apply bfloat16 buffers children clear compile cpu cuda double eval float forward half ipu items keys modules"
    " mtia parameters pop to train training type update values xpu"
)


class Spec(Schema):
    """The specification of a feature; the configuration's checks see the rest of it."""

    type: Annotated[str, one_of(*FEATURE_TYPES)]
    vocab_size: Size = ABSENT
    max_len: Size = ABSENT


class FeatureMapFile(Schema):
    """What the project reads of FuxiCTR's ``feature_map.json``."""

    features: list[dict[str, Spec]]
    labels: list[str] = Field(min_length=1)


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
    for column in _columns(params, "feature_cols"):
        name = column["name"]
        if column.get("active", True):
            feature_map.features[name] = _feature_spec(column, prepared.get(name, {}), params)
            _check_shared(params["dataset_id"], name, feature_map.features)
    feature_map.labels = [label["name"] for label in _columns(params, "label_col")]
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


def write_feature_map(path: Path, dataset_id: str, features: dict[str, dict], label: str) -> None:
    """Write ``feature_map.json`` in FuxiCTR's form, so that FuxiCTR finds a prepared data set."""
    content = {
        "dataset_id": dataset_id,
        "num_fields": sum(spec["type"] != "meta" for spec in features.values()),
        "total_features": sum(spec.get("vocab_size", 0) for spec in features.values()),
        "input_length": 0,
        "labels": [label],
        "features": [{name: spec} for name, spec in features.items()],
    }
    path.write_text(json.dumps(content, indent=4))


def read_feature_map(path: Path) -> tuple[dict[str, dict], str]:
    """Read the specification of each feature of a prepared data set, and the name of its label.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(path, FeatureMapFile, "prepare the data again")
    features = {name: spec for entry in content["features"] for name, spec in entry.items()}
    return features, content["labels"][0]


def _columns(params: dict[str, Any], key: str) -> list[dict]:
    """The columns of a configuration, one entry each; FuxiCTR allows lists of names in an entry.

    Raises:
        UserError: a key is unknown, a value has the wrong type, or a name is there twice.
    """
    entries = params[key] if isinstance(params[key], list) else [params[key]]
    columns: list[dict] = []
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry:
            where = f"{params['dataset_id']}, {key}"
            raise UserError(f"{where}: {entry!r} has no name; write {{name: ..., ...}}")
        names = entry["name"] if isinstance(entry["name"], list) else [entry["name"]]
        for name in names:
            if any(column["name"] == name for column in columns):
                where = f"{params['dataset_id']}, {key}"
                raise UserError(f"{where}: {name!r} is there twice; keep one of them")
            columns.append({**entry, "name": name})
            _check_keys(f"{params['dataset_id']}, {key}, {name!r}", columns[-1])
    if not columns:
        raise UserError(f"{params['dataset_id']}, {key}: is empty; name the columns")
    return columns


def _check_keys(where: str, column: dict) -> None:
    """Reject an unknown key of a column, or a value of the wrong type."""
    for key, value in column.items():
        if key not in COLUMN:
            raise UserError(f"{where}: unknown key `{key}`{did_you_mean(key, COLUMN)}")
        try:
            convert(value, COLUMN[key])
            if key in SIZES and not (isinstance(value, int) and value > 0):
                raise ValueError
        except WRONG:
            what = "a whole number above 0" if key in SIZES else describe(COLUMN[key])
            raise UserError(f"{where}: {key} is {value!r}; write {what}") from None


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
    for column in _columns(params, "event_cols") if params.get("event_cols") else []:
        if "vocab_size" not in column:
            where = f"{params['dataset_id']}, event_cols, {column['name']!r}"
            raise UserError(f"{where}: vocab_size is missing; write how many buckets it has")


def _feature_spec(column: dict, prepared: dict, params: dict[str, Any]) -> dict[str, Any]:
    """The specification of a feature, as FuxiCTR's ``FeatureProcessor`` would write it."""
    where = f"{params['dataset_id']}, feature_cols, {column['name']!r}"
    kind = column.get("type")
    if kind not in FEATURE_TYPES:
        raise UserError(f"{where}: type is {kind!r}; write one of {', '.join(FEATURE_TYPES)}")
    vectors = [key for key in column if key in ("pretrained_emb", "freeze_emb", "pretrain_usage")]
    if vectors and ("pretrained_emb" not in column or kind not in ("categorical", "sequence")):
        what = "needs pretrained_emb, of a feature of type categorical or sequence"
        raise UserError(f"{where}: {vectors[0]} {what}; leave it out")
    if vectors and "share_embedding" in column:
        raise UserError(f"{where}: has pretrained_emb and share_embedding; write one of them")
    if kind == "meta":
        return {"type": "meta"}
    if not column["name"] or "." in column["name"] or column["name"] in OF_MODULES.split():
        raise UserError(f"{where}: torch cannot name a module so; rename the column")
    kept = ("embedding_dim", "emb_output_dim", "share_embedding", "oov_idx")
    spec = {"source": column.get("source", ""), "type": kind}
    spec |= {key: column[key] for key in kept if key in column}
    encoder = column.get("feature_encoder", POOLING if kind == "sequence" else None)
    for part in encoder if isinstance(encoder, list) else [encoder]:
        if part not in NO_ENCODER + ENCODERS and not re.fullmatch(LINEAR, str(part)):
            known = f"{', '.join(ENCODERS)} or nn.Linear(in, out, bias=False)"
            raise UserError(f"{where}: feature_encoder is {part!r}; write one of {known}")
    if encoder not in NO_ENCODER:
        spec["feature_encoder"] = encoder
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
        if "pretrained_emb" in column:  # FuxiCTR's own class takes this name in its specification
            usage, freeze = column.get("pretrain_usage", "init"), column.get("freeze_emb", True)
            spec["pretrained"] = {"usage": usage, "freeze": freeze}
            spec["vectors"] = column["pretrained_emb"]
            spec |= {"vectors_dim": column["pretrain_dim"]} if "pretrain_dim" in column else {}
    _check_keys(where, {key: spec[key] for key in SIZES if key in spec})
    return spec
