"""FuxiCTR's embedding of all features, with this project's tables of vectors that were learned elsewhere."""

from collections.abc import Callable

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding
from torch import Tensor

from .layers.pretrained import PretrainedTable


def feature_embedding(
    feature_map: FeatureMap, embedding_dim: int, initializer: Callable[[Tensor], Tensor]
) -> FeatureEmbedding:
    """The embedding layer of a model.

    A feature with ``pretrained`` has a ``PretrainedTable``, and one with ``share_embedding`` the table
    of the feature that it names.

    Args:
        feature_map: FuxiCTR's.
        embedding_dim: width of every feature that does not set its own.
        initializer: draws the tables.
    """
    embedding = FeatureEmbedding(feature_map, embedding_dim, initializer)
    tables = embedding.embedding_layer.embedding_layers
    for name, spec in feature_map.features.items():
        if "pretrained" in spec:
            dim = spec.get("embedding_dim", embedding_dim)
            sizes = spec["vocab_size"], spec.get("vectors_dim", dim), dim
            tables[name] = PretrainedTable(*sizes, initializer, **spec["pretrained"])
        if (other := spec.get("share_embedding")) in tables:
            tables[name] = tables[other]
    return embedding
