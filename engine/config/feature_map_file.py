"""FuxiCTR's ``feature_map.json``, which says what the features of a prepared data set are."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..common.files import read_json
from ..common.schema import ABSENT, Schema, Size, one_of
from .feature_columns import FEATURE_TYPES


class Spec(Schema):
    """The specification of a feature; the configuration's checks see the rest of it."""

    type: Annotated[str, one_of(*FEATURE_TYPES)]
    vocab_size: Size = ABSENT
    max_len: Size = ABSENT


class FeatureMapFile(Schema):
    """What the project reads of FuxiCTR's ``feature_map.json``."""

    features: list[dict[str, Spec]]
    labels: list[str] = Field(min_length=1)


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
