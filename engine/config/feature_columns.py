"""The columns that a dataset configuration names: their keys, and the types of the values."""

from typing import Any, Literal

from ..common.errors import UserError, did_you_mean
from .convert import WRONG, convert, describe

FEATURE_TYPES = ("meta", "categorical", "sequence", "numeric", "embedding")
SIZES = ("embedding_dim", "emb_output_dim", "pretrain_dim", "vocab_size", "max_len", "oov_idx")
# How FuxiCTR prepares raw data; prepared data needs none of it.
RAW = "fill_na preprocess normalizer category_processor splitter padding remap min_categr_count num_buckets"
# The keys of a column, and the types of their values; those of Any are checked elsewhere, or not read.
COLUMN: dict[str, Any] = dict.fromkeys(SIZES, int) | {"name": str, "share_embedding": str}
COLUMN |= {"active": bool, "dtype": Literal["int", "float", "str"]}
COLUMN |= {"source": Literal["item", "user", "context", ""]}
COLUMN |= {
    "pretrained_emb": str,
    "freeze_emb": bool,
    "pretrain_usage": Literal["init", "sum", "concat"],
}
COLUMN |= dict.fromkeys(("type", "feature_encoder", *RAW.split()), Any)
# What torch's modules call their own. Each feature has a module of its name.
OF_MODULES = (
    "apply bfloat16 buffers children clear compile cpu cuda double eval float forward half ipu items keys modules"
    " mtia parameters pop to train training type update values xpu"
)


def columns_of(params: dict[str, Any], key: str) -> list[dict]:
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
            check_keys(f"{params['dataset_id']}, {key}, {name!r}", columns[-1])
    if not columns:
        raise UserError(f"{params['dataset_id']}, {key}: is empty; name the columns")
    return columns


def check_keys(where: str, column: dict) -> None:
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
