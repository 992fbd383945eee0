"""The three data sets of the paper's tables, as LongCTR publishes them on the Hugging Face hub.

Their schema is written once, in ``config/dataset_config.yaml``. ``hub.py`` fetches the data, and
``tests/support/stand_ins.py`` makes stand-ins of the same shape.
"""

from typing import TYPE_CHECKING, Any

from ..common.places import CONFIG
from ..config.feature_map import build_feature_map
from ..config.read import read_yaml

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

NAMES = ("MicroVideo1.7M_x2", "KuaiVideo_x2", "Ebnerd_small_x1")


def feature_map(name: str) -> "FeatureMap":
    """FuxiCTR's feature map of one of ``NAMES``."""
    block = read_yaml(CONFIG / "dataset_config.yaml")[name]
    # Vocabulary sizes are all written there; no prepared folder is looked at.
    return build_feature_map(block | {"dataset_id": name, "data_root": str(CONFIG / "none")})


def features(feature_map: "FeatureMap") -> dict[str, dict[str, Any]]:
    """The specification of every feature but the meta columns, as ``layout.Dataset`` has it."""
    return {k: dict(v) for k, v in feature_map.features.items() if v["type"] != "meta"}
