"""The three data sets of the paper's tables, as LongCTR publishes them on the Hugging Face hub.

Their schema is written once, in ``config/dataset_config.yaml``. ``hub.py`` fetches the data, and
``tests/support/stand_ins.py`` makes stand-ins of the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.errors import UserError, did_you_mean
from ..common.places import CONFIG
from ..config.feature_map import build_feature_map
from ..config.read import read_yaml

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

NAMES = ("MicroVideo1.7M_x2", "KuaiVideo_x2", "Ebnerd_small_x1")
BLOCKS = CONFIG / "dataset_config.yaml"


def feature_map(name: str) -> FeatureMap:
    """FuxiCTR's feature map of one of ``NAMES``.

    Raises:
        UserError: the name is another one, or the configuration lacks the data set.
    """
    if name not in NAMES:
        raise UserError(
            f"{name!r} is none of the paper's data sets; write one of {', '.join(NAMES)}"
            f"{did_you_mean(name, NAMES)}"
        )
    blocks = read_yaml(BLOCKS)
    if name not in blocks:
        raise UserError(
            f"{BLOCKS} has no block {name}, which describes the data set's columns; add it"
        )
    # Vocabulary sizes are all written there; no prepared folder is looked at.
    return build_feature_map(blocks[name] | {"dataset_id": name, "data_root": str(CONFIG / "none")})


def features(feature_map: FeatureMap) -> dict[str, dict]:
    """The specification of every feature but the meta columns, as ``layout.Dataset`` has it."""
    return {k: dict(v) for k, v in feature_map.features.items() if v["type"] != "meta"}
