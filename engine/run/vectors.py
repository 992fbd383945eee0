"""Vectors for ids that were learned elsewhere: ``pretrained_emb`` of a feature, as in FuxiCTR.

Shape suffixes: N rows of a file, V ids of a feature, P width of the vectors.
"""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import torch
from fuxictr.features import FeatureMap
from numpy.typing import NDArray

from model_zoo.sequence_model import SequenceModel
from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..common.files import read_json
from ..config.read import Params
from ..datasets.prepared.layout import ENCODERS
from ..datasets.writing.encoders import load
from ..datasets.writing.features import CategoricalEncoder

KEY, VALUE = "key", "value"  # FuxiCTR's names in a file
FORMS = f"an .npz or .h5 file with `{KEY}` and `{VALUE}`, or .parquet with a column of ids and one of lists"
MISSING_STD = 1e-4  # FuxiCTR's, of ids without a vector that train


def load_vectors(params: Params, feature_map: FeatureMap, model_class: type[StagedModel]) -> None:
    """Read the vectors of all features that have some, and put them into the feature map.

    An id without a vector gets zeros if the vectors are frozen, and otherwise a small random one. How
    many there are is logged.

    Raises:
        UserError: a file is missing, damaged, or has vectors of another width; or a foreign model would
            ignore them.
    """
    folder = Path(params["train_data"]).parent
    for name, spec in feature_map.features.items():
        if "pretrained" not in spec:
            continue
        where = f"{params['dataset_id']}, feature_cols, {name!r}, pretrained_emb"
        if not issubclass(model_class, SequenceModel):
            raise UserError(
                f"{where}: {params['model']} is a foreign model, which would not read it"
            )
        path = folder / spec["vectors"]
        keys, given_NP = _read(where, path)
        width = spec.get("vectors_dim", spec.get("embedding_dim", params.get("embedding_dim", 10)))
        if given_NP.shape[1] != width:
            advice = f"write pretrain_dim: {given_NP.shape[1]}"
            raise UserError(
                f"{where}: {path} has vectors of width {given_NP.shape[1]}, not {width}; {advice}"
            )
        id_N = _ids(folder, name, keys, spec["vocab_size"])
        generator = torch.Generator().manual_seed(params["seed"])
        vector_VP = MISSING_STD * torch.randn(spec["vocab_size"], width, generator=generator)
        vector_VP *= not spec["pretrained"]["freeze"]
        vector_VP[0] = 0
        vector_VP[id_N[id_N > 0]] = torch.from_numpy(given_NP[id_N > 0])
        found = len(np.unique(id_N[id_N > 0]))
        if not found:
            raise UserError(f"{where}: {path} has no vector for any id, but for such as {keys[:3]}")
        logging.info(f"{name}: {found:,} of {spec['vocab_size'] - 1:,} ids have a vector in {path}")
        spec["pretrained"]["given_VP"] = vector_VP


def forget_vectors(feature_map: FeatureMap) -> None:
    """Drop the vectors from the feature map, once the model has them."""
    for spec in feature_map.features.values():
        spec.get("pretrained", {}).pop("given_VP", None)


def _read(where: str, path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """The keys of a file as texts, and their vectors, ``(N, P)``."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                keys, values = file[KEY], file[VALUE]
        elif path.suffix == ".h5":
            import h5py  # FuxiCTR needs it, too

            with h5py.File(path) as file:
                keys, values = file[KEY][:], file[VALUE][:]
        elif path.suffix == ".parquet":
            table = pl.read_parquet(path, glob=False)
            (lists,) = (c for c in table if isinstance(c.dtype, pl.List | pl.Array))
            (ids,) = (c for c in table if c.name != lists.name)
            vectors = lists.cast(pl.List(pl.Float32))
            keys, values = ids.to_numpy(), vectors.list.to_array(len(vectors[0])).to_numpy()
        else:
            raise ValueError("its name has another ending")
        given_NP = np.asarray(values, np.float32)
        if given_NP.ndim != 2 or len(given_NP) != len(keys) or not np.isfinite(given_NP).all():
            raise ValueError("there is not one finite vector of one width for each id")
        names = [k.decode() if isinstance(k, bytes) else str(k) for k in keys.tolist()]
        if len(set(names)) < len(names):
            raise ValueError("an id has two vectors")
    except Exception as error:  # each library has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {path} cannot be read ({reason}); write {FORMS}") from None
    return names, given_NP


def _ids(folder: Path, name: str, keys: list[str], vocab_size: int) -> NDArray[np.int64]:
    """The id of each key, and 0 for a key that the data set does not have.

    A key is a raw value, if the data set knows these, and otherwise an id.
    """
    if (folder / ENCODERS).exists():
        encoders = (e for own in load(folder).by_source.values() for e in own)
        ids = (e for e in encoders if isinstance(e, CategoricalEncoder))
        own = next((e for e in ids if e.feature.name == name), None)
        if own is None:
            raise UserError(f"{folder / ENCODERS} has no ids of {name}; leave pretrained_emb out")
        known = own.id_by_text()
    elif (path := folder / "feature_vocab.json").exists():  # FuxiCTR's
        known = read_json(path, dict[str, dict[str, int]]).get(name, {})
    else:
        known = {str(number): number for number in range(1, vocab_size)}
    id_N = np.array([known.get(key, 0) for key in keys], np.int64)
    if (id_N >= vocab_size).any():
        raise UserError(
            f"{folder}: an id of {name} is {id_N.max()}, but vocab_size is {vocab_size}"
        )
    return id_N
